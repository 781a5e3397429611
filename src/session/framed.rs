//! A stream of bytes with a framing in front: messages, for layers and for tests that need no [`Session`](super::Session).

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::input::Input;
use super::output::Output;
use crate::error::Result;
use crate::framing::{Framing, length};
use crate::link::{ByteStream, MessageStream};

/// Messages cut out of bytes and put into bytes. Between messages it holds no buffer.
pub struct Framed {
    io: Box<dyn ByteStream>,
    framing: Arc<dyn Framing>,
    input: Input,
    output: Output,
}

impl Framed {
    /// Puts the framing in front of the bytes.
    pub fn new(io: Box<dyn ByteStream>, framing: Arc<dyn Framing>) -> Self {
        Framed { io, framing, input: Input::default(), output: Output::default() }
    }
}

impl MessageStream for Framed {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let found = ready!(self.input.poll_next(&*self.framing, &mut *self.io, cx))?;
        Poll::Ready(Ok(found.then(|| self.input.take())))
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.output.start_send(&*self.framing, parts, length(parts))
    }

    fn buffered(&self) -> usize {
        self.output.buffered()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.output.poll_flush(&mut *self.io, cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.output.poll_finish(&mut *self.io, cx)
    }
}
