//! Asking the kernel by trying: the only way to learn what it tells nobody, such as the options that a closed listener
//! has left to its connections.

use std::io;

use socket2::{Domain, Socket, Type};

use super::Claim;
use super::processes::SharingOptions;
use super::sockets::Protocol;

/// Binds a socket and closes it at once. It never listens, so nobody can reach it; but it has the port for that moment.
/// Ask only where nobody serves there.
///
/// # Errors
/// What bind(2) says, or the call before it that failed.
pub fn bind(claim: &Claim, options: SharingOptions) -> io::Result<()> {
    let kind = match claim.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(claim.address), kind.cloexec(), None)?;
    if claim.address.is_ipv6() {
        socket.set_only_v6(claim.v6_only)?;
    }
    socket.set_reuse_address(options.reuse_addr)?;
    socket.set_reuse_port(options.reuse_port)?;
    if let Some(device) = &claim.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&claim.address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_found_to_be_taken_and_a_free_one_free() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let claim = Claim::new(Protocol::Tcp, listener.local_addr().unwrap());
        let none = SharingOptions { reuse_addr: false, reuse_port: false };
        assert_eq!(bind(&claim, none).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        bind(&claim, SharingOptions { reuse_addr: true, ..none }).unwrap();
    }
}
