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
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::message::Expectation;
use super::pattern::Pattern;
use crate::error::Result;
use crate::framing::Framing;
use crate::link::{ByteStream, Link, MessageStream};

/// The most that one read brings.
pub(super) const READ_SIZE: usize = 64 * 1024;
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
    /// Whether what one read brings is a message.
    ends_with_read: bool,
    /// What was read and could not be taken at once.
    input: BytesMut,
    /// As [`Framing::decode`] has it.
    searched: usize,
    ended: bool,
    output: Vec<u8>,
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
                ends_with_read: !framing.boundaries(),
                input: BytesMut::new(),
                searched: 0,
                ended: false,
                output: Vec::new(),
                unflushed: false,
            })),
            (Link::Bytes(_), None) => return Err(io::Error::other("a stream of bytes needs a framing")),
        })
    }

    /// The size of a message.
    pub(super) fn message_size(&self) -> usize {
        match self {
            Line::Stream(stream) => stream.message.size(),
            Line::Messages { message, .. } => message.size(),
        }
    }

    /// Takes the message with that number.
    #[inline]
    pub(super) fn start_send(&mut self, number: u64) -> Result<()> {
        match self {
            Line::Messages { messages, message } => messages.start_send(&[message.at(number)]),
            Line::Stream(stream) => {
                match &mut stream.framed {
                    Some(framed) => stream.output.extend_from_slice(framed.at(number)),
                    None => stream.framing.encode(&[stream.message.at(number)], &mut stream.output)?,
                }
                Ok(())
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
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Option<Bytes>>> {
        let stream = match self {
            Line::Messages { messages, .. } => return messages.poll_recv(cx),
            Line::Stream(stream) => stream,
        };
        loop {
            if let Some(message) = stream.decode()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let came = ready!(stream.poll_read(cx, scratch))?;
            stream.keep(&scratch[..came]);
            if came == 0 {
                return Poll::Ready(stream.decode());
            }
        }
    }
}

impl Stream {
    /// Reads once, into a buffer that is common to all; nothing at the end of the stream.
    #[inline]
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
        let count = into.filled().len();
        self.ended = count == 0;
        Poll::Ready(Ok(count))
    }

    /// Whether nothing is left of what was read before.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.input.is_empty()
    }

    /// Keeps what was read to be decoded.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// How many of the replies to the requests from `first` on, at most so many, stand at the front of what was read and
    /// are as predicted, and how many bytes they have.
    #[inline]
    pub(super) fn predicted(&mut self, bytes: &[u8], first: u64, most: u64) -> (u64, usize) {
        let Some(predicted) = &mut self.predicted else { return (0, 0) };
        let size = predicted.size();
        // Where nothing marks the end of a reply, what one read brings is one.
        if self.ends_with_read && bytes.len() != size {
            return (0, 0);
        }
        let chunks = bytes.chunks_exact(size).zip(first..first + most);
        let count = chunks.take_while(|(chunk, number)| *chunk == predicted.at(*number)).count();
        (count as u64, count * size)
    }

    /// As [`predicted`](Self::predicted), of what was kept, which is taken.
    pub(super) fn take_predicted(&mut self, first: u64, most: u64) -> u64 {
        let input = std::mem::take(&mut self.input);
        let (count, size) = self.predicted(&input, first, most);
        self.input = input;
        if size > 0 {
            self.input.advance(size);
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
        let frame = match self.input.is_empty() || self.ended {
            true if self.ended => self.framing.decode_end(&self.input)?,
            true => None,
            false => self.framing.decode(&self.input, &mut self.searched)?,
        };
        let message = match frame {
            Some(frame) => {
                self.searched = 0;
                Some(frame.take(&*self.framing, &mut self.input)?)
            }
            None => None,
        };
        if self.input.is_empty() {
            // What a long message grew to is given back.
            self.input = BytesMut::new();
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
                count => drop(self.output.drain(..count)),
            }
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }
}
