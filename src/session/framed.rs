//! A stream of bytes with a framing in front: messages.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::{WATERMARK, buffers};
use crate::error::Result;
use crate::framing::{Framing, length};
use crate::link::{ByteStream, MessageStream};

/// Messages cut out of bytes and put into bytes. Between messages it holds no buffer.
pub struct Framed {
    io: Box<dyn ByteStream>,
    framing: Arc<dyn Framing>,
    /// What was read and is no whole message yet.
    input: BytesMut,
    /// How far `input` was searched for an end already; see [`Framing::decode`].
    searched: usize,
    /// Whether `input` has memory of its own, rather than a piece of the thread's scratch buffer.
    input_owned: bool,
    ended: bool,
    output: BytesMut,
    /// Whether a layer below holds some of what was written; see [`MessageStream::buffered`].
    unflushed: bool,
}

impl Framed {
    /// Puts the framing in front of the bytes.
    pub fn new(io: Box<dyn ByteStream>, framing: Arc<dyn Framing>) -> Self {
        Framed {
            io,
            framing,
            input: BytesMut::new(),
            searched: 0,
            input_owned: true,
            ended: false,
            output: BytesMut::new(),
            unflushed: false,
        }
    }

    /// Reads and drops whatever comes, to the end of the stream; what framing it is in does not matter any more.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.input.clear();
            if !matches!(ready!(self.poll_fill(cx)), Ok(true)) {
                return Poll::Ready(());
            }
        }
    }

    /// Reads once; `false` at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let polled = buffers::with_scratch(|scratch| {
            poll_read_buf(Pin::new(&mut self.io), cx, scratch).map_ok(|count| {
                if self.input.is_empty() {
                    self.input = scratch.split();
                    self.input_owned = false;
                } else {
                    self.input.extend_from_slice(scratch);
                    self.input_owned = true;
                }
                count > 0
            })
        });
        if polled.is_pending() && self.input.is_empty() {
            // It will wait: what a long message grew to, or was cut from, is given back.
            self.input = BytesMut::new();
        } else if polled.is_pending() && !self.input_owned {
            // Nor must a piece of a message hold the whole scratch buffer in memory.
            self.input = BytesMut::from(&self.input[..]);
            self.input_owned = true;
        }
        polled
    }
}

impl MessageStream for Framed {
    #[inline]
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if !self.input.is_empty()
                && !self.ended
                && let Some(message) = self.framing.decode(&mut self.input, &mut self.searched)?
            {
                self.searched = 0;
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                return Poll::Ready(Ok(self.framing.decode_end(&mut self.input)?));
            }
            self.ended = !ready!(self.poll_fill(cx))?;
        }
    }

    #[inline]
    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        if self.output.capacity() == 0 {
            self.output = buffers::take();
        }
        if self.output.capacity() - self.output.len() < length(parts) {
            // At once to what a peer that does not read may hold: growing step by step leaves each step behind as a hole
            // in the heap, which costs as much again. Memory that is never written to costs nothing.
            self.output.reserve(length(parts).max(WATERMARK + WATERMARK / 2));
        }
        Ok(self.framing.encode(parts, &mut self.output)?)
    }

    /// What a layer below holds counts as one byte: enough that it is flushed, and that its sticking is noticed.
    fn buffered(&self) -> usize {
        self.output.len() + usize::from(self.unflushed)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                // `clear` rather than `advance` to the end, which would give up the front of the buffer.
                count if count == self.output.len() => self.output.clear(),
                // What is left moves to the front: a buffer whose front is given up grows with every slow reader's write.
                count => {
                    let left = self.output.len() - count;
                    self.output.copy_within(count.., 0);
                    self.output.truncate(left);
                }
            }
        }
        if self.output.capacity() > 0 {
            buffers::give(std::mem::take(&mut self.output));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed.map_err(Into::into)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(cx))?;
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            // The peer closed its side entirely: there is nobody left to tell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other.map_err(Into::into)),
        }
    }
}
