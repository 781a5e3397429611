//! Connected sockets as links. They must not block, and the functions must be called within a tokio runtime.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::names;
use super::packets::PacketStream;
use super::stream::SocketStream;
use crate::link::Link;
use crate::transport::Dialled;

/// A stream of bytes: a TCP connection, of either family.
pub fn bytes(socket: OwnedFd) -> io::Result<Link> {
    Ok(Link::Bytes(Box::new(SocketStream::new(socket)?)))
}

/// A Unix stream.
pub fn unix(socket: OwnedFd) -> io::Result<Link> {
    Ok(Link::Bytes(Box::new(SocketStream::whose_reads_stop_short(socket)?)))
}

/// A socket that keeps the boundaries of its messages.
pub fn packets(socket: OwnedFd) -> io::Result<Link> {
    Ok(Link::Messages(Box::new(PacketStream::new(socket)?)))
}

/// Connects a stream of bytes.
pub async fn call(socket: OwnedFd, remote: SocketAddr) -> io::Result<Dialled> {
    let stream = SocketStream::connect(socket, remote).await?;
    let (local, remote) = (names::local(&stream)?, names::remote(&stream)?);
    Ok(Dialled::new(Link::Bytes(Box::new(stream)), local, remote))
}
