//! What was read from a stream of bytes, cut into messages.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::buffers;
use crate::error::Result;
use crate::framing::{Frame, Framing, FramingError};
use crate::link::ByteStream;

/// The receiving half of a framed stream. Between messages it holds nothing.
#[derive(Default)]
pub(super) struct Input {
    reading: Option<Box<Reading>>,
    /// The stream has ended.
    ended: bool,
    /// The last read brought less than it had room for.
    short: bool,
    /// Whether the stream [tells of more](crate::Transport::tells_of_more) by itself.
    told: bool,
}

/// What was read and is not given up yet.
///
/// The message that was found last stays where it was read until the next one is asked for, so that whoever only looks at
/// it costs neither a copy nor a count.
#[derive(Default)]
pub(super) struct Reading {
    /// The message that was found last, and what is no message so far.
    unread: BytesMut,
    /// Where in `unread` the message that was found last ends, with what stands around it.
    rest: usize,
    /// Where that message stands.
    message: Range<usize>,
    /// What was made of it, where it was escaped.
    made: Option<Bytes>,
    /// Those that were found behind it, the last one first.
    found: Vec<Frame>,
    /// How far what follows them was searched for an end already; see [`Framing::decode`].
    searched: usize,
    /// The most that `unread` has held: its memory, of which it knows no more than what lies behind its front.
    most: usize,
}

impl Input {
    /// Finds the next message in what was read. `false` where more must be read first.
    #[inline]
    pub(super) fn next(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        match &mut self.reading {
            Some(reading) if !self.ended => reading.next(framing),
            _ => Ok(false),
        }
    }

    /// How much memory it holds, in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| reading.capacity())
    }

    /// The message that was found last.
    #[inline]
    pub(super) fn message(&self) -> &[u8] {
        self.reading.as_ref().map_or(&[], |reading| reading.message())
    }

    /// The message that was found last, to be kept.
    #[inline]
    pub(super) fn take(&mut self) -> Bytes {
        self.reading.as_mut().map_or_else(Bytes::new, |reading| reading.take())
    }

    /// Finds the next message in what was read or can be read now. `false` at the end of the stream.
    #[inline]
    pub(super) fn poll_next(
        &mut self,
        framing: &dyn Framing,
        io: &mut dyn ByteStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool>> {
        loop {
            if self.next(framing)? {
                return Poll::Ready(Ok(true));
            }
            if self.ended {
                return Poll::Ready(Ok(self.last(framing)?));
            }
            ready!(self.poll_fill(io, cx))?;
        }
    }

    fn last(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        match &mut self.reading {
            Some(reading) => reading.last(framing),
            // Nothing is left, and nothing can be made of it.
            None => framing.decode_end(&[]).map(|_| false),
        }
    }

    /// Gives up what was read.
    pub(super) fn clear(&mut self) {
        self.reading = None;
    }

    /// Reads once more: afterwards there is more to be cut into messages, or the stream has ended.
    #[inline]
    fn poll_fill(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = buffers::with_scratch(|scratch| {
            let mut came = ReadBuf::new(scratch);
            Pin::new(io).poll_read(cx, &mut came).map_ok(|()| {
                self.ended = came.filled().is_empty();
                self.short = came.remaining() > 0;
                if !self.ended {
                    self.reading.get_or_insert_with(buffers::take_reading).add(came.filled());
                }
            })
        });
        if polled.is_pending() {
            self.let_go();
        }
        polled
    }

    /// Of a stream that [tells of more](crate::Transport::tells_of_more) by itself.
    pub(super) fn told() -> Self {
        Input { told: true, ..Input::default() }
    }

    /// Whether the stream has nothing more, not even its end, and will tell when it has.
    #[inline]
    pub(super) fn is_drained(&self) -> bool {
        self.told && self.short && !self.ended
    }

    /// It will wait: nothing is held for nothing.
    pub(super) fn let_go(&mut self) {
        if let Some(reading) = &mut self.reading
            && reading.is_through()
            && let Some(reading) = self.reading.take()
        {
            buffers::give_reading(reading);
        }
    }
}

impl Reading {
    #[inline]
    fn next(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        match self.found.pop() {
            Some(frame) => self.keep(framing, frame).map(|()| true),
            None if self.rest == self.unread.len() => Ok(false),
            None => self.find(framing),
        }
    }

    /// Looks for messages in what is left.
    #[inline(never)]
    fn find(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        let first = framing.decode_many(&self.unread[self.rest..], &mut self.searched, &mut self.found)?;
        self.found.reverse();
        match first {
            Some(frame) => self.keep(framing, frame).map(|()| true),
            None => Ok(false),
        }
    }

    fn last(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        match framing.decode_end(&self.unread[self.rest..])? {
            Some(frame) => self.keep(framing, frame).map(|()| true),
            None => Ok(false),
        }
    }

    #[inline]
    fn keep(&mut self, framing: &dyn Framing, frame: Frame) -> Result<(), FramingError> {
        if frame.taken == 0 {
            let reason = "it finds messages that take nothing of the input";
            return Err(FramingError::Malformed { framing: "what the framing takes", reason });
        }
        self.message = self.rest + frame.start..self.rest + frame.end;
        self.rest += frame.taken;
        if frame.escaped || self.made.is_some() {
            self.unescape(framing, frame.escaped)?;
        }
        Ok(())
    }

    #[cold]
    fn unescape(&mut self, framing: &dyn Framing, escaped: bool) -> Result<(), FramingError> {
        self.made = escaped.then(|| framing.unescape(&self.unread[self.message.clone()])).transpose()?;
        Ok(())
    }

    #[inline]
    fn message(&self) -> &[u8] {
        match &self.made {
            None => &self.unread[self.message.clone()],
            Some(made) => made,
        }
    }

    #[inline]
    fn take(&mut self) -> Bytes {
        let Range { start, end } = std::mem::take(&mut self.message);
        // Its memory is used again once the message is let go of.
        let mut message = self.unread.split_to(std::mem::take(&mut self.rest));
        message.truncate(end);
        message.advance(start);
        self.made.take().unwrap_or_else(|| message.freeze())
    }

    #[inline]
    fn add(&mut self, bytes: &[u8]) {
        self.let_message_go();
        self.unread.extend_from_slice(bytes);
        self.most = self.most.max(self.unread.len());
    }

    fn let_message_go(&mut self) {
        (self.message, self.made) = (0..0, None);
        match std::mem::take(&mut self.rest) {
            // All of it, as a rule: the memory is used again from its front.
            rest if rest == self.unread.len() => self.unread.clear(),
            rest => self.unread.advance(rest),
        }
    }

    /// Whether nothing is left of it; of a piece of a message no more is held than it needs.
    fn is_through(&mut self) -> bool {
        self.let_message_go();
        let left = self.unread.len();
        if left > 0 && self.capacity() > 4 * left {
            self.unread = BytesMut::from(&self.unread[..]);
            (self.most, self.found) = (left, Vec::new());
        }
        left == 0
    }

    /// How much memory it holds, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.unread.capacity().max(self.most)
    }
}

/// Reads and drops whatever comes, to the end of the stream; what framing it is in does not matter any more. Sets
/// `came_some` where something did.
pub(super) fn poll_discard(io: &mut dyn ByteStream, cx: &mut Context<'_>, came_some: &mut bool) -> Poll<()> {
    loop {
        let more = buffers::with_scratch(|scratch| {
            let mut came = ReadBuf::new(scratch);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut came));
            Poll::Ready(read.is_ok() && !came.filled().is_empty())
        });
        if !ready!(more) {
            return Poll::Ready(());
        }
        *came_some = true;
    }
}
