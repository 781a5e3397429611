//! The classes of errors that `accept` returns, with the reason for each: one pure function, and a table test.
//!
//! From accept(2), and from what servers learned the hard way: an accept loop that ends, spins or parks on any of
//! these is a server that is down.

use std::io;

use nix::errno::Errno;

use crate::event::AcceptFault;

/// What an error of `accept` means for the loop.
pub(super) fn classify(error: &io::Error) -> AcceptFault {
    let Some(number) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {
                AcceptFault::Transient
            }
            _ => AcceptFault::Fatal,
        };
    };
    match Errno::from_raw(number) {
        // The peer gave up between its SYN and our accept, or a signal came.
        Errno::ECONNABORTED | Errno::ECONNRESET | Errno::EINTR | Errno::EPROTO
        // A firewall forbids this one (accept(2), "Error handling").
        | Errno::EPERM
        // Linux passes pending network errors of the new socket through accept(2): treat like EAGAIN.
        | Errno::ENETDOWN | Errno::ENOPROTOOPT | Errno::EHOSTDOWN | Errno::ENONET | Errno::EHOSTUNREACH
        | Errno::EOPNOTSUPP | Errno::ENETUNREACH | Errno::ETIMEDOUT => AcceptFault::Transient,
        // Out of descriptors (of the process, of the machine) or of memory: the backlog keeps the others meanwhile.
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => AcceptFault::Exhausted,
        _ => AcceptFault::Fatal,
    }
}

/// Whether a descriptor is what is missing, so that giving up the spare one helps.
pub(super) fn lacks_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_accept_has_its_class() {
        use AcceptFault::{Exhausted, Fatal, Transient};
        let table = [
            (Errno::ECONNABORTED, Transient),
            (Errno::ECONNRESET, Transient),
            (Errno::EINTR, Transient),
            (Errno::EPROTO, Transient),
            (Errno::EPERM, Transient),
            (Errno::ENETDOWN, Transient),
            (Errno::ENOPROTOOPT, Transient),
            (Errno::EHOSTDOWN, Transient),
            (Errno::ENONET, Transient),
            (Errno::EHOSTUNREACH, Transient),
            (Errno::EOPNOTSUPP, Transient),
            (Errno::ENETUNREACH, Transient),
            (Errno::ETIMEDOUT, Transient),
            (Errno::EMFILE, Exhausted),
            (Errno::ENFILE, Exhausted),
            (Errno::ENOBUFS, Exhausted),
            (Errno::ENOMEM, Exhausted),
            (Errno::EBADF, Fatal),
            (Errno::EINVAL, Fatal),
            (Errno::ENOTSOCK, Fatal),
            (Errno::EFAULT, Fatal),
        ];
        for (number, class) in table {
            assert_eq!(classify(&io::Error::from_raw_os_error(number as i32)), class, "{number}");
        }
    }
}
