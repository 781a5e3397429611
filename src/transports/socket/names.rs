//! The names of sockets, as the kernel tells them.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use crate::address::Address;

/// The address of this end; getsockname(2).
pub fn local(socket: impl AsFd) -> io::Result<Address> {
    Ok(address(Some(rustix::net::getsockname(socket)?)))
}

/// The address of this end that was asked for last: accepted sockets mostly have theirs in common.
#[derive(Default)]
pub struct LastLocal(Mutex<Option<Arc<Address>>>);

impl LastLocal {
    /// [`local`], the same again where it is the same.
    pub fn of(&self, socket: impl AsFd) -> io::Result<Arc<Address>> {
        let local = local(socket)?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(last) if **last == local => Ok(last.clone()),
            _ => Ok(last.insert(local.into()).clone()),
        }
    }
}

/// The address of the other end of a connected socket; getpeername(2).
pub fn remote(socket: impl AsFd) -> io::Result<Address> {
    Ok(address(rustix::net::getpeername(socket)?))
}

/// What the kernel told, as an address.
pub fn address(told: Option<SocketAddrAny>) -> Address {
    let Some(told) = told else { return Address::Unnamed };
    if matches!(told.address_family(), AddressFamily::INET | AddressFamily::INET6) {
        return SocketAddr::try_from(told).map_or(Address::Unnamed, Address::Ip);
    }
    let Ok(unix) = SocketAddrUnix::try_from(told) else { return Address::Unnamed };
    if let Some(path) = unix.path_bytes() {
        Address::UnixPath(Arc::from(Path::new(OsStr::from_bytes(path))))
    } else if let Some(name) = unix.abstract_name().filter(|name| !name.is_empty()) {
        // Of a peer that never bound, accept4(2) tells an empty name.
        Address::UnixAbstract(Arc::from(name))
    } else {
        Address::Unnamed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, SockAddr, Socket, Type};

    fn unix() -> Socket {
        Socket::new(Domain::UNIX, Type::STREAM, None).unwrap()
    }

    #[test]
    fn unix_sockets_have_a_path_an_abstract_name_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let by_path = unix();
        by_path.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(local(&by_path).unwrap(), Address::UnixPath(Arc::from(path.as_path())));
        let abstract_name = format!("greetd-test-{}-names", std::process::id());
        let by_name = unix();
        by_name.bind(&SockAddr::unix(format!("\0{abstract_name}")).unwrap()).unwrap();
        assert_eq!(local(&by_name).unwrap(), Address::UnixAbstract(Arc::from(abstract_name.as_bytes())));
        assert_eq!(local(unix()).unwrap(), Address::Unnamed);

        by_path.listen(1).unwrap();
        let caller = unix();
        caller.connect(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(remote(&caller).unwrap(), Address::UnixPath(Arc::from(path.as_path())));
        let (accepted, told) = rustix::net::acceptfrom(&by_path).unwrap();
        assert_eq!(address(told), Address::Unnamed);
        assert_eq!(remote(&accepted).unwrap(), Address::Unnamed);
    }

    #[test]
    fn ip_sockets_have_an_address_and_a_port() {
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        assert_eq!(local(&socket).unwrap(), Address::Ip(socket.local_addr().unwrap()));
    }
}
