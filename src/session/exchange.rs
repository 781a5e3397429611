//! Answering messages where they were received, without waiting in between: many in one go, where many have come.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::common::WireRef;
use super::inbound::{For, Inbound, Received};
use super::turn::{self, Gathered};
use super::{Session, WATERMARK};
use crate::error::Result;
use crate::framing::Framing;
use crate::link::Peer;

/// A message that was received, and the means to answer whoever sent it; see [`Session::answer`].
pub struct Exchange<'a> {
    message: &'a [u8],
    peer: &'a Peer,
    wire: &'a WireRef,
    framing: Option<&'a dyn Framing>,
    /// Where answers are laid, while they need no look at the wire.
    gathered: Option<Gathered>,
    /// What was not taken by the link has to be, before the next message is looked at.
    full: bool,
    ended: bool,
}

impl<'a> Exchange<'a> {
    /// The message.
    #[inline]
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Who sent it.
    #[inline]
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// Sends one message in answer, given in parts. It waits for nothing: where the peer takes its answers too slowly, the
    /// next message is not looked at before it has taken them.
    ///
    /// [`Error::TooLong`](crate::Error::TooLong) means that the answer is more than the link carries: nothing was sent, and
    /// the session goes on.
    #[expect(clippy::inline_always, reason = "it is what is left to be done for a message")]
    #[inline(always)]
    pub fn reply(&mut self, parts: &[&[u8]]) -> Result<()> {
        if let (Some(gathered), Some(framing)) = (&mut self.gathered, self.framing)
            && gathered.has_room()
        {
            return gathered.send(framing, parts);
        }
        self.reply_on_wire(parts)
    }

    #[inline(never)]
    fn reply_on_wire(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.gathered = None;
        let mut wire = self.wire.lock_settled();
        let sent = wire.start_send(parts, &self.peer.remote, self.peer.local(), self.framing);
        self.full = wire.buffered() >= WATERMARK;
        sent
    }

    /// Ends the conversation with this message: those that came behind it are not looked at.
    #[inline]
    pub fn end(&mut self) {
        self.ended = true;
    }
}

impl Session {
    /// Receives messages and gives each to `answer`, which may answer it, until none will come, or `answer` ends that or fails.
    ///
    /// It is [`recv`](Self::recv) and [`send`](Self::send) for a handler that waits for nothing else. A message is lent where it
    /// was received, and all that came together are answered in one go: it costs neither a copy, nor a count of who keeps it,
    /// nor a look at the session for each.
    ///
    /// ```
    /// # use greetd::{Result, Session};
    /// # async fn serve(session: &mut Session) -> Result<()> {
    /// session.answer(|exchange| exchange.reply(&[b"Hello ", exchange.message()])).await
    /// # }
    /// ```
    ///
    /// Cancel-safe as [`recv`](Self::recv) is.
    pub fn answer<F>(&mut self, mut answer: F) -> impl Future<Output = Result<()>> + Send
    where
        F: FnMut(&mut Exchange<'_>) -> Result<()> + Send,
    {
        // It may have been filled before, also by answers of a call that was given up.
        let mut full = true;
        poll_fn(move |cx| {
            loop {
                if full {
                    ready!(self.poll_room(cx))?;
                    full = false;
                }
                if !ready!(self.inbound.poll_next(&self.wire, For::Answering, cx))? {
                    return Poll::Ready(Ok(()));
                }
                match self.inbound.answer(&self.wire, &mut answer)? {
                    Answered::All => {}
                    Answered::Full => full = true,
                    Answered::Last => return Poll::Ready(Ok(())),
                }
            }
        })
    }

    /// Waits until an answer may be sent.
    #[inline]
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if turn::has_room(self.wire.id()) { Poll::Ready(Ok(())) } else { self.poll_room_on_wire(cx) }
    }

    #[inline(never)]
    fn poll_room_on_wire(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut wire = self.wire.lock();
        ready!(wire.poll_room(cx))?;
        turn::take_up(self.wire.id(), &wire);
        Poll::Ready(Ok(()))
    }
}

/// What became of what was read.
enum Answered {
    /// All messages in it were answered.
    All,
    /// There is no room for more answers.
    Full,
    /// One of them was the last.
    Last,
}

impl Inbound {
    /// Answers the message that was received last, and those that were found with it. Each counts from when it is looked at.
    #[inline]
    fn answer(&mut self, wire: &WireRef, answer: &mut impl FnMut(&mut Exchange<'_>) -> Result<()>) -> Result<Answered> {
        let Inbound { source, peer, received } = self;
        let Some(messages) = source.together() else { return Ok(Answered::All) };
        let mut seen = Seen { messages: 0, bytes: 0, received };
        let (framing, gathered) = (wire.framing(), turn::gather(wire.id()));
        let mut exchange = Exchange { message: &[], peer, wire, framing, gathered, full: false, ended: false };
        for message in messages {
            seen.messages += 1;
            seen.bytes += message.len();
            exchange.message = message;
            answer(&mut exchange)?;
            if exchange.ended {
                return Ok(Answered::Last);
            }
            if exchange.full {
                return Ok(Answered::Full);
            }
        }
        Ok(Answered::All)
    }
}

/// What was looked at of what came together, which is received then, whatever becomes of it.
struct Seen<'a> {
    messages: u32,
    bytes: usize,
    received: &'a mut Received,
}

impl Drop for Seen<'_> {
    #[inline]
    fn drop(&mut self) {
        self.received.add(Received::of(self.messages, self.bytes));
    }
}
