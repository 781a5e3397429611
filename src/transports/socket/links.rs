//! Connected sockets as links. They must not block, and the functions must be called within a tokio runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::packets::PacketStream;
use super::prompt::PromptStream;
use crate::link::Link;

/// A TCP connection, of either family.
pub fn tcp(socket: OwnedFd) -> io::Result<Link> {
    let stream = tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket))?;
    Ok(Link::Bytes(Box::new(PromptStream::new(stream))))
}

/// A Unix stream.
pub fn unix(socket: OwnedFd) -> io::Result<Link> {
    let stream = tokio::net::UnixStream::from_std(UnixStream::from(socket))?;
    Ok(Link::Bytes(Box::new(PromptStream::new(stream))))
}

/// A socket that keeps the boundaries of its messages.
pub fn packets(socket: OwnedFd) -> io::Result<Link> {
    Ok(Link::Messages(Box::new(PacketStream::new(socket)?)))
}
