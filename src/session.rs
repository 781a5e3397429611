//! A [`Session`] is one conversation, as its handler sees it: messages in, messages out.
//!
//! It owns what every handler would otherwise repeat, each in a file of its own: framing (`input`, `output`), buffers
//! that an idle conversation does not hold (`buffers`), backpressure and half-close (`wire`), unprompted messages
//! (`pusher`), what a handler sends in one turn (`turn`), and a loop for those that only answer (`exchange`).
//!
//! # When is it written?
//! [`send`](Session::send) takes the message into a buffer. The buffer is written when the handler waits, for the next
//! message or for anything else, so a batch of pipelined requests is answered in one write. A handler that sends more
//! than [`WATERMARK`] bytes waits until the peer has taken them: this is how a slow reader stops its own handler and
//! nobody else.
//!
//! # Who closes?
//! `recv` gives `None` when the peer will send no more, when the conversation was idle for too long, or when the
//! server drains. The handler may still send; when it returns, what it sent is flushed and the conversation closed.

mod buffers;
mod common;
mod exchange;
mod framed;
mod inbound;
mod input;
mod messages;
mod output;
mod pusher;
#[cfg(test)]
mod tests;
pub(crate) mod turn;
mod wire;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::event::Totals;
use crate::framing::Framing;
use crate::link::{Link, Opened, Peer};
use crate::transport::Datagrams;

pub(crate) use common::WireRef;
pub use exchange::Exchange;
pub use framed::Framed;
use inbound::{For, Inbound, Source};
use input::Input;
use output::Output;
pub use pusher::{PushError, Pusher};
pub(crate) use wire::{SharedSocket, Wire, WireLink};

/// How many bytes may wait to be written before `send` waits too.
///
/// A buffer that has reached it takes one message more. What a peer that does not read costs, with the holes that
/// buffers of many sizes leave in the heap, was measured to be well below 64 KiB with this, and above it with twice as
/// much.
pub const WATERMARK: usize = 16 * 1024;

/// One conversation. See the module's documentation for its rules.
pub struct Session {
    wire: WireRef,
    inbound: Inbound,
}

impl Session {
    /// A session over an open link; bytes need a framing, messages need none.
    pub fn new(opened: Opened, framing: Option<Arc<dyn Framing>>) -> Result<Self> {
        match (opened.link, framing) {
            (Link::Bytes(io), Some(framing)) => {
                let link = WireLink::Bytes(io, Output::default());
                Ok(Session::with_source(link, opened.peer, Source::Stream(Input::default()), Some(framing)))
            }
            (Link::Bytes(_), None) => Err(Error::handler("a stream of bytes needs a framing")),
            (Link::Messages(messages), _) => Ok(Session::over(WireLink::Messages(messages), opened.peer)),
        }
    }

    /// A session over a link that carries messages.
    pub(crate) fn over(link: WireLink, peer: Peer) -> Self {
        Session::with_source(link, peer, Source::Messages(Box::default()), None)
    }

    fn with_source(link: WireLink, peer: Peer, source: Source, framing: Option<Arc<dyn Framing>>) -> Self {
        Session { wire: WireRef::new(Wire::new(link), framing), inbound: Inbound::new(source, peer) }
    }

    /// Its link [tells of more](crate::Transport::tells_of_more) by itself.
    pub(crate) fn let_be_told(&mut self) {
        if let Source::Stream(input) = &mut self.inbound.source {
            input.let_be_told();
        }
    }

    pub(crate) fn wire(&self) -> &WireRef {
        &self.wire
    }

    /// What came and went so far.
    pub(crate) fn totals(&mut self) -> Totals {
        let mut wire = self.wire.lock();
        wire.count_received(self.inbound.take_received());
        wire.totals()
    }

    /// Closes the link, even while a [`Pusher`] to it is still held; gives what came and went.
    pub(crate) fn shut(&mut self) -> Totals {
        let mut wire = self.wire.lock();
        wire.count_received(self.inbound.take_received());
        wire.close();
        wire.totals()
    }

    /// Ends the conversation in order and [shuts](Self::shut) it, if nothing has to be waited for; see
    /// [`Wire::closes_at_once`].
    pub(crate) fn shut_at_once(&mut self, closing_tells: bool, cx: &mut Context<'_>) -> Option<Totals> {
        let mut wire = self.wire.lock();
        if !wire.closes_at_once(closing_tells, cx) {
            return None;
        }
        wire.count_received(self.inbound.take_received());
        wire.close();
        Some(wire.totals())
    }

    /// What a shared session was given and has not received, for the one that comes after it.
    pub(crate) fn take_unreceived(&mut self) -> Option<Datagrams> {
        let Source::Messages(messages) = &mut self.inbound.source else { return None };
        let (payload, segment) = messages.take_rest()?;
        let (remote, local) = (self.peer().remote.clone(), self.peer().local().clone());
        Some(Datagrams { segment, ..Datagrams::one(payload, remote, local) })
    }

    /// Who is at the other end. In a [shared](crate::Sessions::Shared) session: who sent the last message.
    pub fn peer(&self) -> &Peer {
        &self.inbound.peer
    }

    /// The next message; `None` when there will be none. What was sent before is written while this waits.
    ///
    /// Cancel-safe: when the future is dropped, as `select!` does, no message is lost.
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// [`recv`](Self::recv) for poll-based code.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.inbound.poll_next(&self.wire, For::Keeping, cx).map_ok(|came| came.then(|| self.inbound.take()))
    }

    /// How many bytes may still be sent in answer to the last message; none where there is no such limit.
    ///
    /// On datagrams a responder must not answer a source that may be forged with much more than it was asked. What
    /// exceeds the limit is not sent, and counted; a handler that could say more says less.
    pub fn reply_limit(&self) -> Option<usize> {
        self.wire.lock().reply_limit()
    }

    /// Sends one message. Waits only while more than [`WATERMARK`] bytes have not been taken by the peer.
    ///
    /// [`Error::TooLong`] means that the message is more than the link carries: nothing was sent, and the session goes
    /// on.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> impl Future<Output = Result<()>> + Send {
        poll_fn(move |cx| self.poll_send(cx, &[message]))
    }

    /// Sends one message that is given in parts, without joining them first.
    #[inline]
    pub fn send_parts(&mut self, parts: &[&[u8]]) -> impl Future<Output = Result<()>> + Send {
        poll_fn(move |cx| self.poll_send(cx, parts))
    }

    /// [`send_parts`](Self::send_parts) for poll-based code: nothing is taken unless it is ready.
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, parts: &[&[u8]]) -> Poll<Result<()>> {
        // Within the session's own turn that needs no look at the wire.
        if let Some(framing) = self.wire.framing()
            && let Some(mut gathered) = turn::gather(self.wire.id())
        {
            return Poll::Ready(gathered.send(framing, parts));
        }
        self.poll_send_on_wire(cx, parts)
    }

    #[inline(never)]
    fn poll_send_on_wire(&self, cx: &mut Context<'_>, parts: &[&[u8]]) -> Poll<Result<()>> {
        let mut wire = self.wire.lock_settled();
        let sent = wire.poll_send(cx, parts, self.peer(), self.wire.framing());
        turn::take_up(self.wire.id(), &wire);
        sent
    }

    /// Waits until all that was sent is written. Seldom needed: see the module's documentation.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.wire.lock_settled().poll_written(cx)).await
    }

    /// Says that no more will be sent, where the transport can say that (half-close); receiving goes on.
    pub async fn finish(&mut self) -> Result<()> {
        poll_fn(|cx| self.wire.lock_settled().poll_finish(cx)).await
    }

    /// Ends the conversation in order: writes what was sent, half-closes, and, where the peer has not ended its side,
    /// reads on for a moment, so that what it was sending does not destroy what it has yet to read.
    pub async fn close(mut self) -> Result<()> {
        self.end().await
    }

    /// [`close`](Self::close), up to the dropping of the link.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let finished = self.finish().await;
        if finished.is_ok() {
            wire::linger(&self.wire).await;
        }
        finished
    }

    /// A handle to send to this peer from another task or another session, as long as the session lasts.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(&self.wire, self.peer())
    }

    /// Both directions apart, for handlers that wait on either at the same time.
    ///
    /// In a [shared](crate::Sessions::Shared) session the sending side answers whoever had spoken last when it was
    /// split: there, split anew for each message.
    pub fn split(&mut self) -> (Receiving<'_>, Sending<'_>) {
        let sending = Sending { wire: &self.wire, peer: self.inbound.peer.clone() };
        (Receiving { wire: &self.wire, inbound: &mut self.inbound }, sending)
    }
}

/// The link is closed with the session, even while a [`Pusher`] to it is still held.
impl Drop for Session {
    fn drop(&mut self) {
        // Where nobody else holds the wire, it goes now.
        if !self.wire.is_only() {
            self.wire.lock().close();
        }
    }
}

/// The receiving direction of a session; see [`Session::split`].
pub struct Receiving<'a> {
    wire: &'a WireRef,
    inbound: &'a mut Inbound,
}

impl Receiving<'_> {
    /// As [`Session::recv`].
    pub async fn recv(&mut self) -> Result<Option<Bytes>> {
        let came = poll_fn(|cx| self.inbound.poll_next(self.wire, For::Keeping, cx)).await?;
        Ok(came.then(|| self.inbound.take()))
    }
}

/// The sending direction of a session; see [`Session::split`].
pub struct Sending<'a> {
    wire: &'a WireRef,
    peer: Peer,
}

impl Sending<'_> {
    /// As [`Session::send`].
    pub async fn send(&mut self, message: &[u8]) -> Result<()> {
        poll_fn(|cx| self.wire.lock_settled().poll_send(cx, &[message], &self.peer, self.wire.framing())).await
    }

    /// As [`Session::flush`].
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.wire.lock_settled().poll_written(cx)).await
    }

    /// As [`Session::finish`].
    pub async fn finish(&mut self) -> Result<()> {
        poll_fn(|cx| self.wire.lock_settled().poll_finish(cx)).await
    }
}
