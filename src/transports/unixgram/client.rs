//! The calling side: a socket connected to one peer, which carries messages.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::UnixDatagram;

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
    largest: usize,
    largest_received: usize,
}

impl Client {
    /// Takes over a socket that is connected. Sizes are those of the largest message sent and received.
    pub(super) fn new(io: UnixDatagram, largest: usize, largest_received: usize) -> Self {
        Client { io, incoming: VecDeque::new(), outgoing: Outgoing::default(), largest, largest_received }
    }
}

impl MessageStream for Client {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            match self.incoming.pop_front() {
                Some(Received { truncated: false, payload, .. }) => return Poll::Ready(Ok(Some(payload))),
                Some(_) => {
                    let most = self.largest_received;
                    let reason = format!("a datagram of more than {most} bytes came, and its end is lost");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason).into()));
                }
                None => ready!(poll_recv(&self.io, cx, self.largest_received, |came| self.incoming.push_back(came)))?,
            }
        }
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if size > self.largest {
            return Err(Error::TooLong { size, limit: self.largest });
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
