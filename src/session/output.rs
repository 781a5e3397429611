//! What was sent and is not yet written to a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{WATERMARK, buffers};
use crate::error::Result;
use crate::framing::{Framing, SLACK};
use crate::link::ByteStream;

/// The sending half of a framed stream. When all is written it holds no buffer.
#[derive(Default)]
pub(crate) struct Output {
    unwritten: Vec<u8>,
    /// Whether a layer below holds some of what was written; see [`buffered`](Self::buffered).
    unflushed: bool,
}

impl Output {
    /// Takes a message of `size` bytes, given in parts.
    #[inline]
    pub(super) fn start_send(&mut self, framing: &dyn Framing, parts: &[&[u8]], size: usize) -> Result<()> {
        append(framing, parts, size, &mut self.unwritten)
    }

    /// Takes messages that are encoded already, and leaves a buffer with nothing in it.
    #[inline]
    pub(super) fn take(&mut self, encoded: &mut Vec<u8>) {
        if self.unwritten.is_empty() {
            std::mem::swap(&mut self.unwritten, encoded);
        } else {
            self.unwritten.append(encoded);
        }
    }

    /// How many bytes wait. What a layer below holds counts as one: enough that it is flushed, and that its sticking is
    /// noticed.
    #[inline]
    pub(super) fn buffered(&self) -> usize {
        self.unwritten.len() + usize::from(self.unflushed)
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.unwritten.is_empty() {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.unwritten))? {
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                // `clear` rather than `advance` to the end, which would give up the front of the buffer.
                count if count == self.unwritten.len() => self.unwritten.clear(),
                // What is left moves to the front: a buffer whose front is given up grows with every slow reader's write.
                count => drop(self.unwritten.drain(..count)),
            }
        }
        if self.unwritten.capacity() > 0 {
            buffers::give_output(std::mem::take(&mut self.unwritten));
        }
        let flushed = Pin::new(io).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed.map_err(Into::into)
    }

    /// Writes what waits, then half-closes.
    pub(super) fn poll_finish(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(io, cx))?;
        match ready!(Pin::new(io).poll_shutdown(cx)) {
            // The peer closed its side entirely: there is nobody left to tell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other.map_err(Into::into)),
        }
    }
}

/// Appends a message of `size` bytes, given in parts.
#[inline]
pub(super) fn append(framing: &dyn Framing, parts: &[&[u8]], size: usize, output: &mut Vec<u8>) -> Result<()> {
    if output.capacity() - output.len() < size + SLACK {
        make_room(size, output);
    }
    Ok(framing.encode(parts, output)?)
}

fn make_room(size: usize, output: &mut Vec<u8>) {
    if output.capacity() == 0 {
        *output = buffers::take_output();
    }
    if output.capacity() - output.len() < size + SLACK {
        // At once to what a peer that does not read may hold: growing step by step leaves each step behind as a hole in the
        // heap, which costs as much again. Memory that is never written to costs nothing.
        output.reserve((size + SLACK).max(WATERMARK + WATERMARK / 2));
    }
}
