//! What a session, its driver and its pushers share: the link, and the state that rules it.
//!
//! The lock is held for the length of one poll and is contended only when another task pushes. It is taken for each read,
//! and once for all that a handler sends in one turn (`turn`), or once a message where others push. It is what allows the
//! engine to write when the handler waits for something else, a pusher to send without a task and a channel per session,
//! and the two directions of a session to run apart.

use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::{coop, yield_now};
use tokio::time::Instant;

use super::inbound::{Received, Source};
use super::input::poll_discard;
use super::output::Output;
use super::{WATERMARK, WireRef, turn};
use crate::address::Address;
use crate::error::{Error, Result};
use crate::event::Totals;
use crate::framing::{self, Framing};
use crate::link::{ByteStream, MessageStream, Peer};
use crate::transport::Datagrams;

/// How long, and how many messages, a closed session reads on; see [`linger`].
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_MESSAGES: usize = 1024;
/// How many turns of the reactor without anything are the end of what a peer sends to a session that is to end: of one from
/// which nothing has come since it was to end, and of one that is still sending, in which there may be gaps.
const LOOKS: u8 = 8;
const LOOKS_AT_SENDING: u8 = 200;

/// A datagram socket that one session answers for all peers.
pub(crate) trait SharedSocket: Send {
    /// The next datagrams that may be answered; `None` when the socket is no more.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Datagrams>>;
    /// Takes a datagram to that peer, from that address of ours. What is more than the link carries is an
    /// [`Error::TooLong`], and nothing is taken.
    fn start_send(&mut self, parts: &[&[u8]], remote: &Address, local: &Address) -> Result<()>;
    fn buffered(&self) -> usize;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// As [`MessageStream::reply_limit`].
    fn reply_limit(&self) -> Option<usize>;
    /// What was given and not received comes next once more.
    fn put_back(&mut self, datagrams: Datagrams);
    /// What is received already is the last that is received.
    fn end(&mut self);
}

/// How messages come and go.
pub(crate) enum WireLink {
    /// What is read is cut into messages by the session itself, which alone receives.
    Bytes(Box<dyn ByteStream>, Output),
    Messages(Box<dyn MessageStream>),
    Shared(Box<dyn SharedSocket>),
}

#[expect(clippy::struct_excessive_bools, reason = "independent states of one conversation, each documented")]
pub(crate) struct Wire {
    /// Gone once the session is closed.
    link: Option<WireLink>,
    totals: Totals,
    /// Set while the handler waits for a message: only then does the idle clock run.
    receiving: bool,
    /// The peer will send no more.
    peer_ended: bool,
    /// The link itself failed: nobody is there any more. A handler's other links are not this one.
    broken: bool,
    /// What came broke the framing: nothing more is received, though more may come.
    refused: bool,
    /// Whether we will send no more.
    sending: Sending,
    /// `recv` gives `None` as soon as nothing is there to be received.
    ending: bool,
    /// How often the reactor is let look, since something was received, before it is believed that no more has come.
    looks: u8,
    /// Set by each write that moved something; the write clock looks at it.
    progressed: bool,
    /// Who else has to do with it; most sessions go without.
    others: Option<Box<Others>>,
}

/// Whether anything more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    GoesOn,
    Finished,
    /// And the peer was told so.
    Told,
}

/// Those who push, or wait, beside the task that runs the session.
#[derive(Default)]
struct Others {
    /// Whether they may push at any time: then what is sent goes through the lock at once, so that it keeps its order among
    /// what is pushed.
    push: bool,
    /// The task that runs the session, to be woken when another one pushed.
    driver: Option<Waker>,
    /// Tasks that wait for room, or until all is written, and are not the driver.
    waiting: Vec<Waker>,
}

impl Wire {
    pub(super) fn new(link: WireLink) -> Self {
        Wire {
            link: Some(link),
            totals: Totals::default(),
            receiving: false,
            peer_ended: false,
            broken: false,
            refused: false,
            sending: Sending::GoesOn,
            ending: false,
            looks: 0,
            progressed: false,
            others: None,
        }
    }

    /// Whether there is a next message, which is in `source` then: of bytes, the first that is made of what can be read.
    pub(super) fn poll_recv(
        &mut self,
        whose: usize,
        cx: &mut Context<'_>,
        source: &mut Source,
        peer: &mut Peer,
        framing: Option<&dyn Framing>,
    ) -> Poll<Result<bool>> {
        if self.peer_ended || self.refused {
            return Poll::Ready(Ok(false));
        }
        let polled = match (&mut self.link, &mut *source, framing) {
            (Some(WireLink::Bytes(io, _)), Source::Stream(input), Some(framing)) => {
                input.poll_next(framing, &mut **io, cx)
            }
            (Some(link), Source::Messages(messages), _) => messages.poll_fill(link, peer, cx),
            _ => return Poll::Ready(Ok(false)),
        };
        match polled {
            Poll::Ready(received) => {
                self.receiving = false;
                self.looks = if self.ending { LOOKS_AT_SENDING } else { LOOKS };
                match &received {
                    Ok(true) => {}
                    Ok(false) => self.peer_ended = true,
                    Err(error) => self.refuse(error),
                }
                Poll::Ready(received)
            }
            Poll::Pending if self.ending => self.poll_end(cx).map(|()| Ok(false)),
            Poll::Pending => {
                self.receiving = true;
                // The handler waits: now is the time to write, unless that is done behind its turn. Whether it could all be
                // written does not matter here, and a failure will be met again by whoever reads or writes next.
                if turn::wait(whose, cx.waker()) {
                    return Poll::Pending;
                }
                match self.poll_flush(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Pending,
                }
            }
        }
    }

    /// Ready when it is to be believed that no more comes to a session that is to end, and for which there is nothing now.
    #[cold]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !coop::has_budget_remaining() {
            // The task has had its turn, so the link was perhaps not even asked: what it holds is received in the next.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.take_look() {
            // Woken once the reactor has had its turn.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Nothing is received any more.
    pub(super) fn refuse(&mut self, error: &Error) {
        self.note_failure(error);
        self.refused = true;
    }

    /// Counts what was received without asking the wire.
    pub(super) fn count_received(&mut self, received: Received) {
        self.totals.messages_in += u64::from(received.messages);
        self.totals.bytes_in += u64::from(received.bytes);
    }

    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[&[u8]],
        peer: &Peer,
        framing: Option<&dyn Framing>,
    ) -> Poll<Result<()>> {
        ready!(self.poll_room(cx))?;
        Poll::Ready(self.start_send(parts, &peer.remote, peer.local(), framing))
    }

    /// Ready when a message may be taken.
    #[inline]
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.buffered() >= WATERMARK {
            if let Poll::Ready(flushed) = self.poll_flush(cx) {
                flushed?;
            } else if self.buffered() >= WATERMARK {
                self.tell_when_written(cx);
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a message without waiting.
    #[inline]
    pub(super) fn start_send(
        &mut self,
        parts: &[&[u8]],
        remote: &Address,
        local: &Address,
        framing: Option<&dyn Framing>,
    ) -> Result<()> {
        if self.sending != Sending::GoesOn {
            return Err(Error::Closed);
        }
        let size = framing::length(parts);
        match (&mut self.link, framing) {
            (Some(WireLink::Bytes(_, output)), Some(framing)) => output.start_send(framing, parts, size)?,
            (Some(WireLink::Messages(messages)), _) => messages.start_send(parts)?,
            (Some(WireLink::Shared(socket)), _) => socket.start_send(parts, remote, local)?,
            (Some(WireLink::Bytes(..)), None) | (None, _) => return Err(Error::Closed),
        }
        self.totals.messages_out += 1;
        self.totals.bytes_out += size as u64;
        Ok(())
    }

    /// Writes what waits.
    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // As a rule nobody is to be told.
        if self.others.is_none() {
            let before = self.buffered();
            if before == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(WireLink::Bytes(io, output)) = &mut self.link {
                let polled = output.poll_flush(&mut **io, cx);
                self.note_flush(before, &polled);
                return polled;
            }
        }
        self.flush(cx)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let before = self.buffered();
        let polled = match &mut self.link {
            None => Poll::Ready(Ok(())),
            Some(_) if before == 0 => Poll::Ready(Ok(())),
            Some(WireLink::Bytes(io, output)) => output.poll_flush(&mut **io, cx),
            Some(WireLink::Messages(messages)) => messages.poll_flush(cx),
            Some(WireLink::Shared(socket)) => socket.poll_flush(cx).map(Ok),
        };
        let after = self.note_flush(before, &polled);
        // Also when the room came by another hand: the sessions of a datagram socket share what waits for it. But not where
        // nothing has changed: who waits until all is written would ask again and again.
        if after < WATERMARK && (polled.is_ready() || after < before) {
            self.wake_waiting();
        }
        polled
    }

    /// Notes what became of `before` bytes that were to be written; gives how many still are.
    #[inline]
    fn note_flush(&mut self, before: usize, polled: &Poll<Result<()>>) -> usize {
        let after = match polled {
            Poll::Ready(Ok(())) => 0,
            Poll::Ready(Err(error)) => {
                self.note_failure(error);
                self.buffered()
            }
            Poll::Pending => self.buffered(),
        };
        self.progressed |= after < before;
        after
    }

    /// [`poll_flush`](Self::poll_flush) for a handler.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let polled = self.poll_flush(cx);
        if polled.is_pending() {
            self.tell_when_written(cx);
        }
        polled
    }

    /// A link knows one waker, which is that of whoever wrote last: the driver, in the end. Where a handler waits in a future
    /// that is woken by itself, as those of a `FuturesUnordered` are, that future has to be told besides.
    fn tell_when_written(&mut self, cx: &mut Context<'_>) {
        let others = self.others.get_or_insert_default();
        if !others.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            others.wait(cx);
        }
    }

    /// The task waits for room.
    pub(super) fn wait_for_room(&mut self, cx: &mut Context<'_>) {
        self.others.get_or_insert_default().wait(cx);
    }

    fn wake_waiting(&mut self) {
        if let Some(others) = &mut self.others {
            others.waiting.drain(..).for_each(Waker::wake);
            if !others.push {
                self.others = None;
            }
        }
    }

    /// Counts messages that were gathered in a turn, of so many bytes together.
    #[inline]
    pub(super) fn count_gathered(&mut self, messages: u32, bytes: u64) {
        self.totals.messages_out += u64::from(messages);
        self.totals.bytes_out += bytes;
    }

    /// Takes what was gathered in a turn: messages that are encoded already.
    #[inline]
    pub(super) fn take_gathered(&mut self, encoded: &mut Vec<u8>) {
        if let Some(WireLink::Bytes(_, output)) = &mut self.link {
            output.take(encoded);
        }
        // Where there is no such link any more, it has nowhere to go.
        encoded.clear();
    }

    /// Writes what was gathered in a turn that is over; takes what there is no room for.
    #[inline]
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, encoded: &mut Vec<u8>) -> Poll<Result<()>> {
        // That the handler waits was noted with its turn.
        self.receiving = false;
        let Some(WireLink::Bytes(io, output)) = &mut self.link else { return Poll::Ready(Ok(())) };
        let before = encoded.len();
        let polled = output.poll_write(&mut **io, cx, encoded);
        self.note_flush(before, &polled);
        polled
    }

    /// Whether what the handler sends may be gathered without a look at this wire: nothing waits that it would have to wait
    /// for, and nobody else sends.
    #[inline]
    pub(crate) fn lets_gather(&self) -> bool {
        matches!(self.link, Some(WireLink::Bytes(..)))
            && self.others.is_none()
            && self.sending == Sending::GoesOn
            && self.buffered() == 0
    }

    /// The handler waits for a message.
    #[inline]
    pub(super) fn note_receiving(&mut self) {
        self.receiving = true;
    }

    /// From now on others may push.
    pub(super) fn let_push(&mut self) {
        self.others.get_or_insert_default().push = true;
    }

    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let before = self.buffered();
        let polled = match &mut self.link {
            None => Poll::Ready(Ok(())),
            // Whoever closes a session has often finished it before: once is enough for the peer, and for the kernel.
            Some(_) if self.sending == Sending::Told => Poll::Ready(Ok(())),
            Some(WireLink::Bytes(io, output)) => output.poll_finish(&mut **io, cx),
            Some(WireLink::Messages(messages)) => messages.poll_finish(cx),
            Some(WireLink::Shared(socket)) => socket.poll_flush(cx).map(Ok),
        };
        self.sending = if matches!(polled, Poll::Ready(Ok(()))) { Sending::Told } else { Sending::Finished };
        match &polled {
            Poll::Pending => self.tell_when_written(cx),
            Poll::Ready(Err(error)) => self.note_failure(error),
            Poll::Ready(Ok(())) => {}
        }
        self.progressed |= self.buffered() < before;
        polled
    }

    /// Finishes, and says whether that was all: everything is written, and the peer has ended its side too. Or the link
    /// failed, and there is nobody left to wait for.
    ///
    /// Where `closing_tells` the peer that no more will come, as it does on most transports where no layer has a farewell of
    /// its own, a peer that has ended need not be told before.
    pub(crate) fn closes_at_once(&mut self, closing_tells: bool, cx: &mut Context<'_>) -> bool {
        // Whoever would push now hears that it is too late.
        if self.sending == Sending::GoesOn {
            self.sending = Sending::Finished;
        }
        let polled = if closing_tells && self.peer_ended { self.poll_flush(cx) } else { self.poll_finish(cx) };
        match polled {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => self.peer_ended || self.broken,
            Poll::Ready(Err(_)) => true,
        }
    }

    fn note_failure(&mut self, error: &Error) {
        self.broken |= matches!(error, Error::Link(_) | Error::Closed);
    }

    /// Whether this session's own link failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// How many bytes wait to be written.
    pub(crate) fn buffered(&self) -> usize {
        match &self.link {
            None => 0,
            Some(WireLink::Bytes(_, output)) => output.buffered(),
            Some(WireLink::Messages(messages)) => messages.buffered(),
            Some(WireLink::Shared(socket)) => socket.buffered(),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether the handler waits for a message. It says so each time it is run: one that stopped waiting, because
    /// something else came first, works again.
    pub(crate) fn take_receiving(&mut self) -> bool {
        std::mem::take(&mut self.receiving)
    }

    /// Whether something was written since this was last asked.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    pub(super) fn reply_limit(&self) -> Option<usize> {
        match &self.link {
            Some(WireLink::Messages(messages)) => messages.reply_limit(),
            Some(WireLink::Shared(socket)) => socket.reply_limit(),
            Some(WireLink::Bytes(..)) | None => None,
        }
    }

    /// From now on `recv` gives `None` instead of waiting.
    pub(crate) fn end(&mut self) {
        self.ending = true;
        if let Some(WireLink::Shared(socket)) = &mut self.link {
            socket.end();
        }
    }

    /// Whether `recv` gives `None` instead of waiting.
    #[inline]
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether the reactor is to look once more before it is believed that no more has come: the link may not know of it yet,
    /// and the peer may be sending it at this moment.
    pub(crate) fn take_look(&mut self) -> bool {
        let any = self.looks > 0;
        self.looks = self.looks.saturating_sub(1);
        any
    }

    /// Remembers whom to wake when something was pushed, where anybody may push. To be called after the handler was run.
    pub(crate) fn set_driver(&mut self, waker: &Waker) {
        if let Some(others) = &mut self.others
            && !others.driver.as_ref().is_some_and(|driver| driver.will_wake(waker))
        {
            others.driver = Some(waker.clone());
        }
    }

    pub(super) fn wake_driver(&self) {
        if let Some(driver) = self.others.as_ref().and_then(|others| others.driver.as_ref()) {
            driver.wake_by_ref();
        }
    }

    /// Takes the link out, for another session.
    pub(crate) fn take_link(&mut self) -> Option<WireLink> {
        self.link.take()
    }

    /// Drops the link. Whoever still wants to push hears that the session is closed.
    pub(crate) fn close(&mut self) {
        self.link = None;
        if let Some(others) = self.others.take() {
            others.waiting.into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.link.is_none() || self.sending != Sending::GoesOn
    }
}

impl Others {
    fn wait(&mut self, cx: &mut Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }
}

/// Reads and drops what the peer still sends, for a moment. Closing a TCP socket with unread data resets the
/// connection, and the reset may overtake the last reply (RFC 1122, 4.2.2.13); this lets the peer read it first.
pub(super) async fn linger(wire: &WireRef) {
    let deadline = Instant::now() + LINGER_TIME;
    let drain = std::future::poll_fn(|cx| {
        let mut wire = wire.lock();
        if wire.peer_ended || wire.broken {
            return Poll::Ready(());
        }
        let Wire { link, looks, .. } = &mut *wire;
        match link {
            Some(WireLink::Bytes(io, _)) => {
                let mut came = false;
                let polled = poll_discard(&mut **io, cx, &mut came);
                if came {
                    *looks = LOOKS_AT_SENDING;
                }
                polled
            }
            Some(WireLink::Messages(messages)) => {
                for _ in 0..LINGER_MESSAGES {
                    if !matches!(ready!(messages.poll_recv(cx)), Ok(Some(_))) {
                        break;
                    }
                }
                Poll::Ready(())
            }
            Some(WireLink::Shared(_)) | None => Poll::Ready(()),
        }
    });
    let _ = tokio::time::timeout_at(deadline, drain).await;
}
