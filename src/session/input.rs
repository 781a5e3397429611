//! What was read from a stream of bytes, cut into messages.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio_util::io::poll_read_buf;

use super::buffers;
use crate::error::Result;
use crate::framing::{Framing, FramingError};
use crate::link::ByteStream;

/// The receiving half of a framed stream. Between messages it holds no buffer.
pub(super) struct Input {
    framing: Arc<dyn Framing>,
    /// What was read and is no message yet.
    unread: BytesMut,
    /// How far `unread` was searched for an end already; see [`Framing::decode`].
    searched: usize,
    /// Whether `unread` has memory of its own, rather than a piece of the thread's scratch buffer.
    owned: bool,
    /// The stream has ended.
    ended: bool,
}

impl Input {
    pub(super) fn new(framing: Arc<dyn Framing>) -> Self {
        Input { framing, unread: BytesMut::new(), searched: 0, owned: true, ended: false }
    }

    /// The next message of what was read; `None` where more must be read first.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        if self.unread.is_empty() || self.ended {
            return Ok(None);
        }
        let decoded = self.framing.decode(&mut self.unread, &mut self.searched);
        if let Ok(Some(_)) = &decoded {
            self.searched = 0;
        }
        decoded
    }

    /// The next message, of what was read or of what can be read now; `None` at the end of the stream.
    #[inline]
    pub(super) fn poll_next(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if let Some(message) = self.next()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                return Poll::Ready(Ok(self.framing.decode_end(&mut self.unread)?));
            }
            ready!(self.poll_fill(io, cx))?;
        }
    }

    /// Gives up what was read.
    pub(super) fn clear(&mut self) {
        self.unread = BytesMut::new();
    }

    /// Reads once more: afterwards there is more to be cut into messages, or the stream has ended.
    #[inline]
    fn poll_fill(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = buffers::with_scratch(|scratch| {
            poll_read_buf(Pin::new(io), cx, scratch).map_ok(|count| {
                self.ended = count == 0;
                if self.unread.is_empty() {
                    self.unread = scratch.split();
                    self.owned = false;
                } else {
                    self.unread.extend_from_slice(scratch);
                    self.owned = true;
                }
            })
        });
        if polled.is_pending() && (self.unread.is_empty() || !self.owned) {
            self.let_go();
        }
        polled
    }

    /// It will wait: a piece of a message must not hold the whole scratch buffer in memory, nor must what a long message
    /// grew to be kept for nothing.
    fn let_go(&mut self) {
        self.unread = if self.unread.is_empty() { BytesMut::new() } else { BytesMut::from(&self.unread[..]) };
        self.owned = true;
    }
}

/// Reads and drops whatever comes, to the end of the stream; what framing it is in does not matter any more.
pub(super) fn poll_discard(io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        match buffers::with_scratch(|scratch| poll_read_buf(Pin::new(&mut *io), cx, scratch)) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}
