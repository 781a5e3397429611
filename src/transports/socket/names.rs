//! The names of sockets, as the kernel tells them.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::net::{SocketAddrAny, SocketAddrUnix};

use crate::address::Address;

/// The address of this end; getsockname(2).
pub fn local(socket: impl AsFd) -> io::Result<Address> {
    Ok(address(Some(rustix::net::getsockname(socket)?)))
}

/// The address of the other end of a connected socket; getpeername(2).
pub fn remote(socket: impl AsFd) -> io::Result<Address> {
    Ok(address(rustix::net::getpeername(socket)?))
}

/// What the kernel told, as an address.
pub fn address(told: Option<SocketAddrAny>) -> Address {
    let Some(told) = told else { return Address::Unnamed };
    if let Ok(ip) = SocketAddr::try_from(told.clone()) {
        return Address::Ip(ip);
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
