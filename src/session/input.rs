//! What was read from a stream of bytes, cut into messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, iter};

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
    /// The messages that were found last, as far as they were not taken, and what is no message so far.
    unread: BytesMut,
    /// Where those messages stand, in what was there when they were found.
    found: Vec<Frame>,
    /// How many of them were given. The last one that was stays until the next is asked for.
    given: usize,
    /// How much was taken from the front of `unread` since they were found.
    gone: usize,
    /// How much stands behind them.
    behind: usize,
    /// What was made of the message that was given last, where it is escaped.
    made: Option<Bytes>,
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

    /// The message that was given last, and those behind it that are found already, as far as they need not be made first.
    #[inline]
    pub(super) fn together(&mut self) -> Option<impl Iterator<Item = &[u8]>> {
        self.reading.as_mut().map(|reading| reading.together())
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
        buffers::with_scratch(|scratch| {
            let mut came = ReadBuf::new(scratch);
            let polled = Pin::new(io).poll_read(cx, &mut came);
            match &polled {
                Poll::Ready(Ok(())) => self.put(came.filled(), came.remaining() > 0),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => self.let_go(),
            }
            polled
        })
    }

    /// Takes what one read brought: nothing at the end. It was `short` where there was room for more.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8], short: bool) {
        (self.ended, self.short) = (bytes.is_empty(), short);
        if !bytes.is_empty() {
            self.reading.get_or_insert_with(buffers::take_reading).add(bytes);
        }
    }

    /// The stream [tells of more](crate::Transport::tells_of_more) by itself.
    pub(super) fn let_be_told(&mut self) {
        self.told = true;
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
        match self.found.get(self.given) {
            Some(frame) if frame.escaped => self.unescape(framing, *frame)?,
            Some(_) => {}
            None if self.behind == 0 => return Ok(false),
            None => return self.find(framing),
        }
        self.given += 1;
        Ok(true)
    }

    /// Looks for messages in what is left.
    #[inline(never)]
    fn find(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        self.let_messages_go();
        framing.decode_many(&self.unread, &mut self.searched, &mut self.found)?;
        self.first(framing)
    }

    fn last(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        self.let_messages_go();
        self.found.extend(framing.decode_end(&self.unread)?);
        self.first(framing)
    }

    /// Gives the first message that was found, if any was.
    #[inline]
    fn first(&mut self, framing: &dyn Framing) -> Result<bool, FramingError> {
        match self.found.first() {
            None => return Ok(false),
            Some(Frame { taken: 0, .. }) => {
                self.found.clear();
                let reason = "it finds messages that take nothing of the input";
                return Err(FramingError::Malformed { framing: "what the framing takes", reason });
            }
            Some(frame) if frame.escaped => self.unescape(framing, *frame)?,
            Some(_) => {}
        }
        self.given = 1;
        self.behind -= self.found.last().map_or(0, |last| last.taken);
        Ok(true)
    }

    #[cold]
    fn unescape(&mut self, framing: &dyn Framing, frame: Frame) -> Result<(), FramingError> {
        self.made = Some(framing.unescape(&self.unread[frame.start - self.gone..frame.end - self.gone])?);
        Ok(())
    }

    /// Where the message is that was given last, unless it was taken.
    #[inline]
    fn given(&self) -> Option<Frame> {
        self.found.get(self.given.wrapping_sub(1)).filter(|frame| frame.taken > self.gone).copied()
    }

    #[inline]
    fn together(&mut self) -> impl Iterator<Item = &[u8]> {
        let Reading { unread, found, given, made, gone, .. } = self;
        let (unread, found, gone) = (&unread[..], &found[..], *gone);
        *given = given.saturating_sub(1);
        // Of those behind the first none is made yet.
        let mut made = found.get(*given).filter(|frame| frame.escaped).and(made.as_deref());
        iter::from_fn(move || {
            let frame = found.get(*given)?;
            let message = if frame.escaped { made.take()? } else { &unread[frame.start - gone..frame.end - gone] };
            *given += 1;
            Some(message)
        })
    }

    #[inline]
    fn take(&mut self) -> Bytes {
        let Some(Frame { start, end, taken, escaped }) = self.given() else { return Bytes::new() };
        // Its memory is used again once the message is let go of.
        let mut message = self.unread.split_to(taken - self.gone);
        message.truncate(end - self.gone);
        message.advance(start - self.gone);
        self.gone = taken;
        if escaped { self.made.take().unwrap_or_default() } else { message.freeze() }
    }

    #[inline]
    fn add(&mut self, bytes: &[u8]) {
        self.let_messages_go();
        self.unread.extend_from_slice(bytes);
        self.behind = self.unread.len();
        self.most = self.most.max(self.unread.len());
    }

    /// Gives up the messages that were found, which were all given.
    #[inline]
    fn let_messages_go(&mut self) {
        debug_assert_eq!(self.given, self.found.len(), "what was found is given before more is looked for");
        if self.found.is_empty() {
            return;
        }
        if self.behind == 0 {
            // As a rule: the memory is used again from its front.
            self.unread.clear();
        } else {
            self.advance();
        }
        self.found.clear();
        (self.given, self.gone, self.made) = (0, 0, None);
    }

    #[cold]
    fn advance(&mut self) {
        self.unread.advance(self.unread.len() - self.behind);
    }

    /// Whether nothing is left of it; of a piece of a message no more is held than it needs.
    #[inline]
    fn is_through(&mut self) -> bool {
        self.let_messages_go();
        let is_through = self.unread.is_empty();
        if !is_through {
            self.shrink();
        }
        is_through
    }

    #[cold]
    fn shrink(&mut self) {
        let left = self.unread.len();
        if self.capacity() > 4 * left {
            self.unread = BytesMut::from(&self.unread[..]);
            (self.most, self.found) = (left, Vec::new());
        }
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
