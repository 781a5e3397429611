//! What only the receiving side of a session knows: no other task ever asks for it, so it stands outside the lock.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::common::WireRef;
use super::input::Input;
use super::messages::Messages;
use super::turn;
use crate::error::{Error, Result};
use crate::framing::FramingError;
use crate::link::Peer;

pub(super) struct Inbound {
    pub(super) source: Source,
    pub(super) peer: Peer,
    pub(super) received: Received,
}

/// Where messages come from. It keeps the last one until the next is asked for.
pub(super) enum Source {
    /// They are cut out of what is read.
    Stream(Input),
    /// The link gives them.
    Messages(Box<Messages>),
}

/// What a message is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// To be had; who then sends, waits for room.
    Keeping,
    /// To be answered without waiting.
    Answering,
}

impl Source {
    /// The last message, and those behind it that came together with it, each of which is the last one when it is given.
    #[inline]
    pub(super) fn together(&mut self) -> Option<impl Iterator<Item = &[u8]>> {
        Some(match self {
            Source::Stream(input) => Together::Found(input.together()?),
            Source::Messages(messages) => Together::Came(messages.together()),
        })
    }

    /// The last message, to be kept.
    #[inline]
    pub(super) fn take(&mut self) -> Bytes {
        match self {
            Source::Stream(input) => input.take(),
            Source::Messages(messages) => messages.take(),
        }
    }

    /// Whether the link has nothing more and will tell when it has.
    #[inline]
    fn is_drained(&self) -> bool {
        matches!(self, Source::Stream(input) if input.is_drained())
    }

    /// Nothing is held while nothing is there.
    #[inline]
    fn let_go(&mut self) {
        if let Source::Stream(input) = self {
            input.let_go();
        }
    }

    /// Nothing more is made of what was received.
    fn clear(&mut self) {
        match self {
            Source::Stream(input) => input.clear(),
            Source::Messages(messages) => messages.put_one(Bytes::new()),
        }
    }
}

/// Messages that came together: [`Source::together`].
enum Together<F, C> {
    Found(F),
    Came(C),
}

impl<'a, F: Iterator<Item = &'a [u8]>, C: Iterator<Item = &'a [u8]>> Iterator for Together<F, C> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Together::Found(found) => found.next(),
            Together::Came(came) => came.next(),
        }
    }
}

impl Inbound {
    pub(super) fn new(source: Source, peer: Peer) -> Self {
        Inbound { source, peer, received: Received::NOTHING }
    }

    /// Whether there is a next message, in [`source`](Self::source) then. What is read already comes without a look at
    /// the wire.
    #[expect(
        clippy::inline_always,
        reason = "handing an answer up through calls costs as much as cutting a message out"
    )]
    #[inline(always)]
    pub(super) fn poll_next(&mut self, wire: &WireRef, what_for: For, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        match self.next_read(wire) {
            Ok(false) if turn::may_wait(wire.id(), cx.waker(), &mut self.received) => {
                self.source.let_go();
                Poll::Pending
            }
            Ok(false) => self.poll_wire(wire, what_for, cx),
            read => Poll::Ready(read),
        }
    }

    /// Whether there is a next message in what is read already.
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    pub(super) fn next_read(&mut self, wire: &WireRef) -> Result<bool> {
        match (&mut self.source, wire.framing()) {
            (Source::Stream(input), Some(framing)) => match input.next(framing) {
                Ok(found) => Ok(found),
                Err(error) => Err(self.refuse(wire, error)),
            },
            (Source::Messages(messages), _) => Ok(messages.next()),
            (Source::Stream(_), None) => Ok(false),
        }
    }

    #[inline(never)]
    fn poll_wire(&mut self, wire: &WireRef, what_for: For, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        let (whose, framing) = (wire.id(), wire.framing());
        let mut wire = wire.lock();
        if self.received.messages > 0 && !turn::receive(whose, &mut self.received) {
            wire.count_received(std::mem::take(&mut self.received));
        }
        if what_for == For::Answering && matches!(self.source, Source::Messages(_)) {
            // Other sessions may fill the same link: what is answered without a look at it must have room before.
            ready!(wire.poll_room(cx))?;
        }
        let polled = wire.poll_recv(whose, cx, &mut self.source, &mut self.peer, framing);
        if let Poll::Ready(came) = &polled {
            // A session that is to end looks by itself whether more has come, and does not wait to be told.
            let drained = matches!(came, Ok(true)) && self.source.is_drained() && !wire.is_ending();
            turn::note_answer(whose, cx.waker(), drained);
            if came.is_err() {
                self.source.clear();
            }
        }
        polled
    }

    /// The message that was received last, which counts from now on, to be kept.
    #[inline]
    pub(super) fn take(&mut self) -> Bytes {
        let message = self.source.take();
        self.received.add(Received::of(1, message.len()));
        message
    }

    /// Nothing more is made of bytes that broke the framing.
    #[cold]
    fn refuse(&mut self, wire: &WireRef, error: FramingError) -> Error {
        self.source.clear();
        let error = error.into();
        wire.lock().refuse(&error);
        error
    }

    /// What was received since this was last asked, and not told to the wire.
    pub(super) fn take_received(&mut self) -> Received {
        std::mem::take(&mut self.received)
    }
}

/// What a session received since it asked its wire, which is told when it is asked again. Between the two it is what one read
/// brought, so small numbers do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    pub(super) messages: u32,
    pub(super) bytes: u32,
}

impl Received {
    pub(super) const NOTHING: Received = Received { messages: 0, bytes: 0 };

    #[inline]
    pub(super) fn add(&mut self, more: Received) {
        self.messages += more.messages;
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    /// So many messages, of so many bytes together.
    #[inline]
    pub(super) fn of(messages: u32, bytes: usize) -> Self {
        Received { messages, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    }
}
