//! What was sent and is not yet written to a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{WATERMARK, buffers};
use crate::error::Result;
use crate::framing::{Framing, SLACK};
use crate::link::ByteStream;

/// What waits to be written, in a box that is lent; see [`buffers`].
pub(super) struct Unwritten(pub(super) Vec<u8>);

/// The sending half of a framed stream. When all is written it holds no buffer.
#[derive(Default)]
pub(crate) struct Output {
    unwritten: Option<Box<Unwritten>>,
    /// Whether a layer below holds some of what was written; see [`buffered`](Self::buffered).
    unflushed: bool,
}

impl Output {
    /// Takes a message of `size` bytes, given in parts.
    #[inline]
    pub(super) fn start_send(&mut self, framing: &dyn Framing, parts: &[&[u8]], size: usize) -> Result<()> {
        let appended = append(framing, parts, size, &mut self.unwritten.get_or_insert_with(buffers::take_output).0);
        if appended.is_err() {
            self.let_go();
        }
        appended
    }

    /// Takes messages that are encoded already, and leaves an empty buffer for the next.
    #[inline]
    pub(super) fn take(&mut self, encoded: &mut Vec<u8>) {
        let unwritten = &mut self.unwritten.get_or_insert_with(buffers::take_output).0;
        if unwritten.is_empty() {
            std::mem::swap(unwritten, encoded);
        } else {
            unwritten.append(encoded);
        }
    }

    /// How many bytes wait. What a layer below holds counts as one: enough that it is flushed, and that its sticking is
    /// noticed.
    #[inline]
    pub(super) fn buffered(&self) -> usize {
        self.unwritten.as_ref().map_or(0, |unwritten| unwritten.0.len()) + usize::from(self.unflushed)
    }

    /// Writes messages that are encoded already, as they are: what is written at once is laid nowhere. Leaves an empty buffer for
    /// the next.
    #[inline]
    pub(super) fn poll_write(
        &mut self,
        io: &mut dyn ByteStream,
        cx: &mut Context<'_>,
        encoded: &mut Vec<u8>,
    ) -> Poll<Result<()>> {
        if self.unwritten.is_none() {
            match Pin::new(&mut *io).poll_write(cx, encoded) {
                Poll::Ready(Ok(count)) if count == encoded.len() => {
                    encoded.clear();
                    return self.flush_below(io, cx);
                }
                Poll::Ready(Ok(count)) => drop(encoded.drain(..count)),
                Poll::Ready(Err(error)) => {
                    self.take(encoded);
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Pending => {}
            }
        }
        self.take(encoded);
        self.poll_flush(io, cx)
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(lent) = &mut self.unwritten {
            let unwritten = &mut lent.0;
            while !unwritten.is_empty() {
                match ready!(Pin::new(&mut *io).poll_write(cx, unwritten))? {
                    0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                    count if count == unwritten.len() => unwritten.clear(),
                    // What is left moves to the front: a buffer whose front is given up grows with every slow reader's write.
                    count => drop(unwritten.drain(..count)),
                }
            }
        }
        self.let_go();
        self.flush_below(io, cx)
    }

    /// Has the layers below write what they hold.
    #[inline]
    fn flush_below(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(io).poll_flush(cx);
        self.unflushed = !matches!(flushed, Poll::Ready(Ok(())));
        flushed.map_err(Into::into)
    }

    /// Gives the buffer back if nothing is in it.
    fn let_go(&mut self) {
        if let Some(empty) = self.unwritten.take_if(|lent| lent.0.is_empty()) {
            buffers::give_output(empty);
        }
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
        output.reserve(buffers::FIRST_CAPACITY);
    }
    if output.capacity() - output.len() < size + SLACK {
        // At once to what a peer that does not read may hold: growing step by step leaves each step behind as a hole in the
        // heap, which costs as much again. Memory that is never written to costs nothing.
        output.reserve((size + SLACK).max(WATERMARK + WATERMARK / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framings::lines::Lines;

    #[test]
    fn a_message_that_the_framing_refuses_leaves_no_buffer_behind_and_takes_none_away() {
        let (lines, mut output) = (Lines { longest: 10 }, Output::default());
        assert!(output.start_send(&lines, &[b"a\nb"], 3).is_err());
        assert!(output.unwritten.is_none());
        output.start_send(&lines, &[b"a"], 1).unwrap();
        assert!(output.start_send(&lines, &[b"a\nb"], 3).is_err());
        assert_eq!(output.buffered(), 2);
    }
}
