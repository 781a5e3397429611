//! The way to the server and back: what is sent leaves in one write, what one read brings is taken at once.
//!
//! A load generator must cost less than the server that it measures. So a stream is not framed message by message where
//! that can be helped: a request is a copy of bytes that were framed once, with the next number in them, and a reply is
//! first compared with what the last right one predicts. Only what differs is decoded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

use super::message::Expectation;
use super::pattern::Pattern;
use crate::error::Result;
use crate::framing::Framing;
use crate::link::{ByteStream, Link, MessageStream};

/// The most that one read brings.
const READ_SIZE: usize = 64 * 1024;
/// Two reads fit, so that the memory is gone round less often than it is read into.
const SCRATCH_SIZE: usize = 2 * READ_SIZE;
/// How much is written at once: what is to be sent beyond waits until that is gone.
const WATERMARK: usize = 64 * 1024;
/// After so many replies that could not be predicted nobody tries any more.
const TRIES: u8 = 4;
/// A longer reply is not predicted: each connection would hold one.
const LONGEST_PREDICTED: usize = 16 * 1024;

/// A link, with the messages that are sent over it.
pub(super) enum Line {
    Stream(Box<Stream>),
    Messages { messages: Box<dyn MessageStream>, message: Pattern },
}

/// A link that carries bytes, and its framing.
pub(super) struct Stream {
    io: Box<dyn ByteStream>,
    framing: Arc<dyn Framing>,
    pub(super) message: Pattern,
    /// The message as it is sent; none where the framing does more than wrap it.
    framed: Option<Pattern>,
    /// The reply that is expected, as it comes.
    predicted: Option<Pattern>,
    tries: u8,
    /// What was read and not yet taken.
    input: BytesMut,
    /// As [`Framing::decode`] has it.
    searched: usize,
    /// Whether `input` has memory of its own, rather than a piece of the common buffer.
    input_owned: bool,
    ended: bool,
    output: BytesMut,
    /// Whether a layer below holds some of what was written.
    unflushed: bool,
}

impl Line {
    /// Over a link; bytes need a framing.
    pub(super) fn new(link: Link, framing: Option<&Arc<dyn Framing>>, message: Pattern) -> io::Result<Self> {
        Ok(match (link, framing) {
            (Link::Messages(messages), _) => Line::Messages { messages, message },
            (Link::Bytes(io), Some(framing)) => Line::Stream(Box::new(Stream {
                framed: message.framed(&**framing),
                io,
                framing: framing.clone(),
                message,
                predicted: None,
                tries: 0,
                input: BytesMut::new(),
                searched: 0,
                input_owned: true,
                ended: false,
                output: BytesMut::new(),
                unflushed: false,
            })),
            (Link::Bytes(_), None) => return Err(io::Error::other("a stream of bytes needs a framing")),
        })
    }

    /// Takes the message with that number, and gives its size.
    #[inline]
    pub(super) fn start_send(&mut self, number: u64) -> Result<usize> {
        match self {
            Line::Messages { messages, message } => {
                messages.start_send(&[message.at(number)])?;
                Ok(message.size())
            }
            Line::Stream(stream) => {
                match &mut stream.framed {
                    Some(framed) => stream.output.extend_from_slice(framed.at(number)),
                    None => stream.framing.encode(&[stream.message.at(number)], &mut stream.output)?,
                }
                Ok(stream.message.size())
            }
        }
    }

    /// Whether what was taken must be written before more is.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        match self {
            Line::Stream(stream) => stream.output.len() >= WATERMARK,
            Line::Messages { messages, .. } => messages.buffered() >= WATERMARK,
        }
    }

    /// Writes what was taken.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            Line::Stream(stream) if stream.output.is_empty() && !stream.unflushed => Poll::Ready(Ok(())),
            Line::Stream(stream) => stream.poll_flush(cx).map_err(Into::into),
            Line::Messages { messages, .. } if messages.buffered() == 0 => Poll::Ready(Ok(())),
            Line::Messages { messages, .. } => messages.poll_flush(cx),
        }
    }

    /// The next message, whatever it is.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, scratch: &mut BytesMut) -> Poll<Result<Option<Bytes>>> {
        let stream = match self {
            Line::Messages { messages, .. } => return messages.poll_recv(cx),
            Line::Stream(stream) => stream,
        };
        loop {
            if let Some(message) = stream.decode()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if !ready!(stream.poll_read(cx, scratch))? {
                return Poll::Ready(stream.decode());
            }
        }
    }
}

impl Stream {
    /// Reads once, by way of a buffer that is common to all; `false` at the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut BytesMut) -> Poll<io::Result<bool>> {
        if scratch.capacity() < READ_SIZE {
            scratch.reserve(SCRATCH_SIZE);
        }
        let polled = poll_read_buf(Pin::new(&mut self.io), cx, scratch);
        if let Poll::Ready(Ok(count)) = polled {
            self.ended = count == 0;
            if self.input.is_empty() {
                self.input = scratch.split();
                self.input_owned = false;
            } else {
                self.input.extend_from_slice(scratch);
                self.input_owned = true;
                scratch.clear();
            }
        } else if polled.is_pending() && self.input.is_empty() {
            self.input = BytesMut::new();
        } else if polled.is_pending() && !self.input_owned {
            // A piece of a message must not hold all of the common buffer.
            self.input = BytesMut::from(&self.input[..]);
            self.input_owned = true;
        }
        polled.map_ok(|count| count > 0)
    }

    /// Takes the replies to the requests from `first` on, at most so many, that are as predicted, and says how many
    /// these are.
    #[inline]
    pub(super) fn take_predicted(&mut self, first: u64, most: usize) -> usize {
        let Some(predicted) = &mut self.predicted else { return 0 };
        let size = predicted.size();
        // Where nothing marks the end of a reply, what one read brings is one.
        if !self.framing.boundaries() && self.input.len() != size {
            return 0;
        }
        let chunks = self.input.chunks_exact(size).take(most).zip(first..);
        let count = chunks.take_while(|(chunk, number)| *chunk == predicted.at(*number)).count();
        if count > 0 {
            self.input.advance(count * size);
            self.searched = 0;
        }
        count
    }

    /// How long a reply is that was as predicted.
    pub(super) fn predicted_size(&self) -> usize {
        self.predicted.as_ref().map_or(0, Pattern::size)
    }

    /// The next message of what was read.
    pub(super) fn decode(&mut self) -> Result<Option<Bytes>> {
        let message = match self.input.is_empty() || self.ended {
            true if self.ended => self.framing.decode_end(&mut self.input)?,
            true => None,
            false => self.framing.decode(&mut self.input, &mut self.searched)?,
        };
        if message.is_some() {
            self.searched = 0;
        }
        Ok(message)
    }

    /// This was the right reply to that request: the next ones are predicted from it.
    pub(super) fn learn(&mut self, number: u64, reply: &[u8], expectation: &Expectation) {
        if self.tries == TRIES || !(1..=LONGEST_PREDICTED).contains(&reply.len()) {
            return;
        }
        self.tries += 1;
        let message = &mut self.message;
        let pattern = match expectation {
            Expectation::Exactly { after: None, .. } => None,
            _ if message.width() == 0 => None,
            Expectation::Anything => message.within(number, reply, 0),
            Expectation::Holds | Expectation::Exactly { .. } => {
                let least = if let Expectation::Exactly { before, .. } = expectation { before.len() } else { 0 };
                match message.within(number, reply, least) {
                    None => return,
                    found => found,
                }
            }
        };
        self.predicted = pattern.unwrap_or_else(|| Pattern::constant(reply)).framed(&*self.framing);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                // `clear` rather than `advance` to the end, which would give up the front of the buffer.
                count if count == self.output.len() => self.output.clear(),
                count => self.output.advance(count),
            }
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }
}
