//! The calling side: a socket connected to one peer, which carries messages.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::UnixDatagram;

use super::Sizes;
use super::receive::{Received, poll_recv};
use crate::error::{Error, Result};
use crate::framing;
use crate::link::MessageStream;
use crate::transports::outgoing::Outgoing;

/// Datagrams to and from one peer.
pub(super) struct Client {
    io: UnixDatagram,
    incoming: VecDeque<Received>,
    outgoing: Outgoing,
    sizes: Sizes,
}

impl Client {
    /// Takes over a socket that is connected.
    pub(super) fn new(io: UnixDatagram, sizes: Sizes) -> Self {
        Client { io, incoming: VecDeque::new(), outgoing: Outgoing::default(), sizes }
    }
}

impl MessageStream for Client {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            match self.incoming.pop_front() {
                Some(Received { truncated: false, payload, .. }) => return Poll::Ready(Ok(Some(payload))),
                Some(_) => {
                    let most = self.sizes.received;
                    let reason = format!("a datagram of more than {most} bytes came, and its end is lost");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason).into()));
                }
                None => ready!(poll_recv(&self.io, cx, self.sizes.received, |came| self.incoming.push_back(came)))?,
            }
        }
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if size > self.sizes.sent {
            return Err(Error::TooLong { size, limit: self.sizes.sent });
        }
        self.outgoing.push(parts);
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.outgoing.buffered()
    }

    /// Waits for room in the peer's queue.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some((message, _)) = self.outgoing.first(1, 0) {
            let sent = ready!(self.io.poll_send(cx, message));
            self.outgoing.forget_first();
            sent?;
        }
        Poll::Ready(Ok(()))
    }

    /// There is no way to tell the peer.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }
}
