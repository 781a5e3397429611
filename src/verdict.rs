//! One vocabulary for how an attempt ended: the word on stderr, the `verdict` field in JSON, and the exit code.

use std::io;

/// How an attempt ended. The numbers are the exit codes of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Verdict {
    /// All well; a server that drained.
    Ok = 0,
    /// Anything else; a server that had to cut sessions at the drain deadline.
    Failed = 1,
    /// The words of the command are off.
    Usage = 2,
    /// ECONNREFUSED, or an ICMP port unreachable.
    Refused = 10,
    /// No answer: dropped or lost.
    Timeout = 11,
    /// No route to the net or the host.
    Unreachable = 12,
    /// A filter says no: EACCES or EPERM on connect.
    Prohibited = 13,
    /// The name has no address.
    Unresolved = 14,
    /// EADDRINUSE.
    InUse = 15,
    /// EADDRNOTAVAIL on bind.
    NotLocal = 16,
    /// EACCES or EPERM on bind, or on a file.
    Permission = 17,
    /// An answer came, and it is not what was asked for.
    Unexpected = 18,
    /// An objective of a measurement was not met.
    Missed = 19,
    /// The configuration is at fault.
    Invalid = 20,
}

impl Verdict {
    /// All of them, by exit code.
    pub const ALL: [Verdict; 14] = [
        Verdict::Ok,
        Verdict::Failed,
        Verdict::Usage,
        Verdict::Refused,
        Verdict::Timeout,
        Verdict::Unreachable,
        Verdict::Prohibited,
        Verdict::Unresolved,
        Verdict::InUse,
        Verdict::NotLocal,
        Verdict::Permission,
        Verdict::Unexpected,
        Verdict::Missed,
        Verdict::Invalid,
    ];

    /// The exit code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::Usage => "usage",
            Verdict::Refused => "refused",
            Verdict::Timeout => "timeout",
            Verdict::Unreachable => "unreachable",
            Verdict::Prohibited => "prohibited",
            Verdict::Unresolved => "unresolved",
            Verdict::InUse => "in-use",
            Verdict::NotLocal => "not-local",
            Verdict::Permission => "permission",
            Verdict::Unexpected => "unexpected",
            Verdict::Missed => "missed",
            Verdict::Invalid => "invalid",
        }
    }

    /// What an error of `bind`, `listen` or a file means.
    pub fn of_bind(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Verdict::InUse,
            io::ErrorKind::AddrNotAvailable => Verdict::NotLocal,
            io::ErrorKind::PermissionDenied => Verdict::Permission,
            io::ErrorKind::InvalidInput if error.raw_os_error().is_none() => Verdict::Usage,
            _ if is_unresolved(error) => Verdict::Unresolved,
            _ => Verdict::Failed,
        }
    }

    /// What an error of `connect`, or of a connected socket, means.
    pub fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Verdict::Refused,
            io::ErrorKind::TimedOut => Verdict::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                Verdict::Unreachable
            }
            io::ErrorKind::PermissionDenied => Verdict::Prohibited,
            io::ErrorKind::InvalidInput if error.raw_os_error().is_none() => Verdict::Usage,
            _ if is_unresolved(error) => Verdict::Unresolved,
            _ => Verdict::Failed,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// Names that could not be resolved come as [`Unresolved`] inside an `io::Error`.
fn is_unresolved(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Unresolved>()).is_some()
}

/// A name without an address; transports wrap it into the `io::Error` of their resolve step.
#[derive(Debug, thiserror::Error)]
#[error("the name `{name}` has no {wanted} address: {reason}")]
pub struct Unresolved {
    /// The name.
    pub name: String,
    /// The family that was asked for: `IPv4`, `IPv6`, or `IP` for any.
    pub wanted: &'static str,
    /// What the resolver said.
    pub reason: String,
}

impl From<Unresolved> for io::Error {
    fn from(unresolved: Unresolved) -> Self {
        io::Error::new(io::ErrorKind::NotFound, unresolved)
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn the_words_in_json_are_the_words_on_stderr() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.word());
        }
    }

    #[test]
    fn each_errno_has_its_verdict() {
        let errno = |number: Errno| io::Error::from_raw_os_error(number as i32);
        for (number, bind, connect) in [
            (Errno::EADDRINUSE, Verdict::InUse, Verdict::Failed),
            (Errno::EADDRNOTAVAIL, Verdict::NotLocal, Verdict::Failed),
            (Errno::EACCES, Verdict::Permission, Verdict::Prohibited),
            (Errno::EPERM, Verdict::Permission, Verdict::Prohibited),
            (Errno::ECONNREFUSED, Verdict::Failed, Verdict::Refused),
            (Errno::ETIMEDOUT, Verdict::Failed, Verdict::Timeout),
            (Errno::EHOSTUNREACH, Verdict::Failed, Verdict::Unreachable),
            (Errno::ENETUNREACH, Verdict::Failed, Verdict::Unreachable),
        ] {
            assert_eq!(Verdict::of_bind(&errno(number)), bind, "{number}");
            assert_eq!(Verdict::of_connect(&errno(number)), connect, "{number}");
        }
    }
}
