//! What was read from a stream of bytes, cut into messages.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::buffers;
use crate::error::Result;
use crate::framing::{Frame, Framing, FramingError};
use crate::link::ByteStream;

/// The receiving half of a framed stream. Between messages it holds no buffer.
///
/// The message that was found last stays where it was read until the next one is asked for, so that whoever only looks at
/// it costs neither a copy nor a count.
pub(super) struct Input {
    framing: Arc<dyn Framing>,
    /// What was read and is not given up yet: the message that was found last, and what is no message so far.
    unread: BytesMut,
    /// Where in `unread` the message that was found last ends, with what stands around it.
    rest: usize,
    /// Where that message stands.
    message: Range<usize>,
    /// What was made of it, where it was escaped.
    made: Option<Box<Bytes>>,
    /// How far what follows it was searched for an end already; see [`Framing::decode`].
    searched: usize,
    /// The stream has ended.
    ended: bool,
}

impl Input {
    pub(super) fn new(framing: Arc<dyn Framing>) -> Self {
        Input { framing, unread: BytesMut::new(), rest: 0, message: 0..0, made: None, searched: 0, ended: false }
    }

    pub(super) fn framing(&self) -> &dyn Framing {
        &*self.framing
    }

    /// Finds the next message in what was read. `false` where more must be read first.
    #[inline]
    pub(super) fn next(&mut self) -> Result<bool, FramingError> {
        if self.rest == self.unread.len() || self.ended {
            return Ok(false);
        }
        let found = self.framing.decode(&self.unread[self.rest..], &mut self.searched)?;
        match found {
            Some(frame) => self.keep(frame).map(|()| true),
            None => Ok(false),
        }
    }

    #[inline]
    fn keep(&mut self, frame: Frame) -> Result<(), FramingError> {
        self.searched = 0;
        self.message = self.rest + frame.start..self.rest + frame.end;
        self.rest += frame.taken;
        if frame.escaped || self.made.is_some() {
            self.unescape(frame.escaped)?;
        }
        Ok(())
    }

    #[cold]
    fn unescape(&mut self, escaped: bool) -> Result<(), FramingError> {
        let make = || self.framing.unescape(&self.unread[self.message.clone()]).map(Box::new);
        self.made = escaped.then(make).transpose()?;
        Ok(())
    }

    /// The message that was found last.
    #[inline]
    pub(super) fn message(&self) -> &[u8] {
        match &self.made {
            None => &self.unread[self.message.clone()],
            Some(made) => made,
        }
    }

    /// The message that was found last, to be kept.
    #[inline]
    pub(super) fn take(&mut self) -> Bytes {
        let frame = Frame::new(std::mem::take(&mut self.message), std::mem::take(&mut self.rest));
        let message = frame.take_as_it_is(&mut self.unread);
        self.made.take().map_or(message, |made| *made)
    }

    /// Finds the next message in what was read or can be read now. `false` at the end of the stream.
    #[inline]
    pub(super) fn poll_next(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        loop {
            if self.next()? {
                return Poll::Ready(Ok(true));
            }
            if self.ended {
                let Some(frame) = self.framing.decode_end(&self.unread[self.rest..])? else {
                    return Poll::Ready(Ok(false));
                };
                self.keep(frame)?;
                return Poll::Ready(Ok(true));
            }
            ready!(self.poll_fill(io, cx))?;
        }
    }

    /// Gives up what was read.
    pub(super) fn clear(&mut self) {
        (self.unread, self.rest, self.message, self.made) = (BytesMut::new(), 0, 0..0, None);
    }

    /// Reads once more: afterwards there is more to be cut into messages, or the stream has ended.
    #[inline]
    fn poll_fill(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = buffers::with_scratch(|scratch| {
            let mut came = ReadBuf::new(scratch);
            Pin::new(io).poll_read(cx, &mut came).map_ok(|()| {
                self.ended = came.filled().is_empty();
                self.let_message_go();
                if self.unread.capacity() == 0 {
                    self.unread = buffers::take_input();
                }
                self.unread.extend_from_slice(came.filled());
            })
        });
        if polled.is_pending() {
            self.let_go();
        }
        polled
    }

    fn let_message_go(&mut self) {
        (self.message, self.made) = (0..0, None);
        match std::mem::take(&mut self.rest) {
            // All of it, as a rule: the memory is used again from its front.
            rest if rest == self.unread.len() => self.unread.clear(),
            rest => self.unread.advance(rest),
        }
    }

    /// It will wait: nothing is held for nothing, and for a piece of a message not much more than it needs.
    fn let_go(&mut self) {
        self.let_message_go();
        if self.unread.capacity() == 0 {
            return;
        }
        if self.unread.is_empty() {
            buffers::give_input(std::mem::take(&mut self.unread));
        } else if self.unread.capacity() > 4 * self.unread.len() {
            let piece = BytesMut::from(&self.unread[..]);
            buffers::give_input(std::mem::replace(&mut self.unread, piece));
        }
    }
}

/// Reads and drops whatever comes, to the end of the stream; what framing it is in does not matter any more.
pub(super) fn poll_discard(io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let more = buffers::with_scratch(|scratch| {
            let mut came = ReadBuf::new(scratch);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut came));
            Poll::Ready(read.is_ok() && !came.filled().is_empty())
        });
        if !ready!(more) {
            return Poll::Ready(());
        }
    }
}
