//! A [`Framing`] turns a stream of bytes into messages and back. It is pure: no I/O, no clock, no state of its own.
//!
//! One framing serves all sessions of a listener. What a session must remember between reads (how far the buffer was
//! searched already) it keeps itself, and passes in.
//!
//! # Bounds
//! A framing is made with the size of the largest message that it takes from a peer. One that would be longer is an
//! error as soon as that is certain: no more is ever held than the longest encoding of a message of that size, and
//! [`SLACK`] bytes. What the handler sends is its own affair: it is refused only where the format cannot carry it.
//!
//! # Writing one
//! [`testing::framing_conforms`](crate::testing::framing_conforms) checks it.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How many bytes more than the longest encoding of the largest message may be held, until it is certain that what comes
/// is longer.
pub const SLACK: usize = 64;

/// How many messages are looked for at once; see [`Framing::decode_many`].
pub(crate) const MANY: usize = 16;

/// Cuts messages out of bytes, and wraps messages into bytes.
pub trait Framing: Send + Sync {
    /// Finds the first message, at the front of `input`; `None` asks for more.
    ///
    /// `searched` starts at 0 for each message. A framing that looks for an end may store there how many bytes it has
    /// looked through in vain, so that a message that comes a byte at a time costs no more than one that comes at once.
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError>;

    /// Finds the first message as [`decode`](Self::decode) does, and with it some that stand behind it: they are added to
    /// `found`, which is empty, each as `decode` would find it behind the one before, and [so far behind](Frame::behind) the
    /// front of `input`. How many they are at most is left to the framing; what is no message yet, or none at all, is left for
    /// the next time, and an error only where it stands first. `searched` is then that of what stands behind them.
    ///
    /// There is no need to write it: it is here so that many messages which came together cost one virtual call. Whoever finds
    /// many at once in less may.
    fn decode_many(&self, input: &[u8], searched: &mut usize, found: &mut Vec<Frame>) -> Result<(), FramingError> {
        let Some(first) = self.decode(input, searched)? else { return Ok(()) };
        let mut taken = first.taken;
        found.push(first);
        *searched = 0;
        while found.len() < MANY
            && let Some(rest @ [_, ..]) = input.get(taken..)
            && let Ok(Some(frame)) = self.decode(rest, searched)
            && frame.taken > 0
        {
            found.push(frame.behind(taken));
            taken += frame.taken;
            *searched = 0;
        }
        Ok(())
    }

    /// What the bytes that are left mean when the peer will send no more: a last message, nothing, or an error.
    /// Called until it gives `None`.
    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError>;

    /// Makes a message of bytes that are [escaped](Frame::escaped).
    fn unescape(&self, bytes: &[u8]) -> Result<Bytes, FramingError> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    /// Appends the message, given in parts, to `output`. On an error `output` is as it was.
    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError>;

    /// Whether the other side gets the messages as they were sent, whatever way the bytes between are cut.
    fn boundaries(&self) -> bool {
        true
    }
}

/// Where a message stands at the front of what was read. It is read there, and neither copied nor counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where the message begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// How many bytes are taken off the front of the input: the message with all that stands around it; above 0.
    pub taken: usize,
    /// Whether these bytes are only made into the message by [`Framing::unescape`].
    pub escaped: bool,
}

impl Frame {
    /// A message that stands in the input as it is.
    #[inline]
    pub fn new(message: Range<usize>, taken: usize) -> Self {
        Frame { start: message.start, end: message.end, taken, escaped: false }
    }

    /// The same message, where so many bytes stand before what it was found in.
    #[inline]
    #[must_use]
    pub fn behind(self, before: usize) -> Self {
        let Frame { start, end, taken, escaped } = self;
        Frame { start: before + start, end: before + end, taken: before + taken, escaped }
    }

    /// Takes the message off the front of the input that it was found in.
    pub fn take(self, framing: &dyn Framing, input: &mut BytesMut) -> Result<Bytes, FramingError> {
        let mut message = take_front(input, self.taken);
        message.truncate(self.end);
        message.advance(self.start);
        if self.escaped { framing.unescape(&message) } else { Ok(message.freeze()) }
    }
}

/// Why bytes are no message, or a message cannot be put into bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A message over the limit. Sizes in bytes.
    #[error("a message of {size} bytes or more is over the limit of {limit}")]
    TooLong {
        /// How long it is, at least.
        size: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// Bytes that the framing does not allow.
    #[error("the bytes are not {framing}: {reason}")]
    Malformed {
        /// The framing's name.
        framing: &'static str,
        /// What is wrong, without the bytes themselves.
        reason: &'static str,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message, {missing} bytes or more before its end")]
    Incomplete {
        /// How many bytes are missing, at least.
        missing: usize,
    },
    /// A message that this framing cannot carry, such as one with a line feed in `lines`.
    #[error("{framing} cannot carry this message: {reason}")]
    Unencodable {
        /// The framing's name.
        framing: &'static str,
        /// Why.
        reason: &'static str,
    },
}

/// Takes that many bytes off the front. Where they are all that there is, which they often are, this is cheaper than
/// [`BytesMut::split_to`]. The memory of a long message is left to `input` all the same, to be used for the next one.
#[inline]
fn take_front(input: &mut BytesMut, size: usize) -> BytesMut {
    const LONG: usize = 64 * 1024;
    if size == input.len() && size <= LONG { std::mem::take(input) } else { input.split_to(size) }
}

/// Where the byte stands first. Most messages are short: there a simple search is over before a clever one has begun.
#[inline]
pub fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    const NEAR: usize = 4;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().take(NEAR).enumerate() {
        if let Some(at) = first_in(byte, *word) {
            return Some(8 * index + at);
        }
    }
    if words.len() > NEAR {
        let (_, far) = bytes.split_at(8 * NEAR);
        return memchr::memchr(byte, far).map(|at| 8 * NEAR + at);
    }
    match bytes.last_chunk() {
        // Some of it was looked at before, and is not that byte.
        Some(last) => first_in(byte, *last).map(|at| bytes.len() - 8 + at),
        None => bytes.iter().position(|here| *here == byte),
    }
}

/// Where the byte stands first among eight.
#[inline]
fn first_in(byte: u8, word: [u8; 8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let difference = u64::from_le_bytes(word) ^ u64::from_ne_bytes([byte; 8]);
    // Shows the high bit of each byte that is zero: the first one borrows from none before it. One that is not, and shows all
    // the same, stands behind one that is.
    let here = difference.wrapping_sub(LOW) & !difference & HIGH;
    (here != 0).then(|| here.trailing_zeros() as usize / 8)
}

/// Whether the byte stands anywhere, which takes less than to say where.
#[inline]
pub fn contains(byte: u8, bytes: &[u8]) -> bool {
    match bytes.len() {
        ..8 => bytes.contains(&byte),
        8..16 => at_an_end::<8>(byte, bytes),
        16..=32 => at_an_end::<16>(byte, bytes),
        33..=128 => at_an_end::<16>(byte, bytes) || bytes.as_chunks::<16>().0.iter().any(|block| holds(byte, block)),
        _ => memchr::memchr(byte, bytes).is_some(),
    }
}

/// Whether the byte is one of the first or the last so many.
#[inline]
fn at_an_end<const N: usize>(byte: u8, bytes: &[u8]) -> bool {
    let (first, last) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>());
    first.is_some_and(|first| holds(byte, first)) | last.is_some_and(|last| holds(byte, last))
}

/// Whether the byte stands in the block. All of it is looked at, which is one comparison to most processors.
#[inline]
fn holds<const N: usize>(byte: u8, block: &[u8; N]) -> bool {
    block.iter().fold(0, |any, here| any | u8::from(*here == byte)) != 0
}

/// The length in bytes of a message that is given in parts.
#[inline]
pub fn length(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Appends the message as it is: what every framing does between its header and its end.
#[inline]
pub fn append(parts: &[&[u8]], output: &mut impl BufMut) {
    for part in parts {
        output.put_slice(part);
    }
}

/// The first message of some bytes, as tests of framings want it.
#[cfg(test)]
pub(crate) fn first(framing: &dyn Framing, input: &[u8]) -> Result<Option<Bytes>, FramingError> {
    let Some(frame) = framing.decode(input, &mut 0)? else { return Ok(None) };
    frame.take(framing, &mut BytesMut::from(input)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_byte_is_found_where_it_stands_first(bytes in proptest::collection::vec(0u8..40, 0..200), byte in 0u8..41) {
            prop_assert_eq!(find(byte, &bytes), bytes.iter().position(|here| *here == byte));
            prop_assert_eq!(contains(byte, &bytes), bytes.contains(&byte));
        }

        #[test]
        fn what_is_taken_off_the_front_and_what_is_left_are_the_whole(bytes: Vec<u8>, size: prop::sample::Index) {
            let size = size.index(bytes.len() + 1);
            let mut left = BytesMut::from(&bytes[..]);
            let front = take_front(&mut left, size);
            prop_assert_eq!((&front[..], &left[..]), bytes.split_at(size));
        }
    }
}
