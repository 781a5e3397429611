//! The calling side: a socket connected to one peer, which carries messages.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::batch::{BatchSocket, LARGEST, Segments};
use super::receive::split;
use super::refusals::Refusals;
use crate::error::{Error, Result};
use crate::framing;
use crate::link::MessageStream;
use crate::transports::outgoing::Outgoing;

/// Datagrams to and from one peer. An error loses at most the datagram that it is about: the stream can go on.
pub(super) struct Client {
    socket: BatchSocket,
    remote: SocketAddr,
    incoming: VecDeque<Bytes>,
    outgoing: Outgoing,
    refusals: Refusals,
}

impl Client {
    /// Takes over a socket that is connected.
    pub(super) fn new(socket: BatchSocket, remote: SocketAddr) -> Self {
        let refusals = Refusals::of(socket.io().clone());
        Client { socket, remote, incoming: VecDeque::new(), outgoing: Outgoing::default(), refusals }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        let Some((payload, segment)) = self.outgoing.first(self.socket.max_segments(), LARGEST) else {
            return Poll::Ready(Ok(None));
        };
        let sent = if payload.len() > segment {
            let segments = Segments { to: self.remote, from: None, payload, segment };
            self.socket.poll_send(cx, segments)
        } else {
            // The kernel knows the way to the peer of a connected socket, unless it is named again.
            self.socket.poll_send_connected(cx, payload)
        };
        sent.map_ok(Some)
    }
}

impl MessageStream for Client {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if let Some(message) = self.incoming.pop_front() {
                return Poll::Ready(Ok(Some(message)));
            }
            match self
                .socket
                .poll_recv(cx, |meta, joined| split(joined, meta.stride, |one| self.incoming.push_back(one)))
            {
                Poll::Ready(received) => received?,
                Poll::Pending => return self.refusals.poll(cx).map(|error| Err(error.into())),
            }
        }
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if size > LARGEST {
            return Err(Error::TooLong { size, limit: LARGEST });
        }
        self.outgoing.push(parts);
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.outgoing.buffered()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match ready!(self.poll_send(cx)) {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(bytes)) => self.outgoing.forget(bytes),
                Err(error) => {
                    self.outgoing.forget_first();
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    /// There is no way to tell the peer.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }
}
