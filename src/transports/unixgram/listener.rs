//! The listening side: datagrams from anybody who may write to the socket.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{SendFlags, SocketAddrAny, SocketAddrUnix, sendto};
use tokio::net::UnixDatagram;
use tokio::task::coop;

use super::Sizes;
use super::receive::poll_recv;
use crate::address::Address;
use crate::transport::{DatagramSocket, Datagrams, Transmit};
use crate::transports::socket::{SocketFile, names};

pub(super) struct Listener {
    /// Removed before the socket is closed, lest somebody take it for stale in between.
    _file: Option<SocketFile>,
    io: UnixDatagram,
    local: Address,
    sizes: Sizes,
    /// Who spoke last: a peer that speaks again is not named anew.
    last: Option<(SocketAddrAny, Address)>,
}

impl Listener {
    pub(super) fn new(io: UnixDatagram, file: Option<SocketFile>, local: Address, sizes: Sizes) -> Self {
        Listener { _file: file, io, local, sizes, last: None }
    }
}

impl DatagramSocket for Listener {
    fn local(&self) -> Address {
        self.local.clone()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<Datagrams>) -> Poll<io::Result<()>> {
        let Listener { io, local, sizes, last, .. } = self;
        poll_recv(io, cx, sizes.received, |came| {
            let remote = remote(last, came.from);
            let one = Datagrams::one(came.payload, remote, local.clone());
            into.push_back(Datagrams { truncated: came.truncated, ..one });
        })
    }

    /// Never waits: room in this socket's own buffer comes back when a peer has read, and a peer that does not read
    /// must not delay the others.
    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        let datagram = &transmit.payload[..transmit.payload.len().min(transmit.segment)];
        budget.made_progress();
        if datagram.len() > self.sizes.sent {
            // The buffer is larger, so that many can wait in it; a peer does not reckon with such a size.
            return Poll::Ready(Err(Errno::MSGSIZE.into()));
        }
        Poll::Ready(send(&self.io, datagram, transmit.remote).map(|()| datagram.len()))
    }
}

fn send(io: &UnixDatagram, datagram: &[u8], remote: &Address) -> io::Result<()> {
    let to = match remote {
        Address::UnixPath(path) => SocketAddrUnix::new(path.as_ref())?,
        Address::UnixAbstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        other => {
            let reason = format!("the peer is {other}: only one that has bound a name can be answered");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
    };
    sendto(io, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to)?;
    Ok(())
}

fn remote(last: &mut Option<(SocketAddrAny, Address)>, from: Option<SocketAddrAny>) -> Address {
    let Some(from) = from else { return Address::Unnamed };
    match last {
        Some((known, address)) if *known == from => address.clone(),
        _ => {
            let address = names::address(Some(from.clone()));
            *last = Some((from, address.clone()));
            address
        }
    }
}
