//! `length8`, `length16`, `length32` and their little-endian forms: a fixed count of bytes says the message's length.
//!
//! Network byte order is what most protocols take: DNS over TCP (RFC 1035, 4.2.2) is `length16`, the frames of Erlang's
//! `{packet, 4}` are `length32`. The length does not count itself.

use bytes::BufMut;

use super::counted::{self, Shape};
use crate::framing::{self, Frame, Framing, FramingError};

/// A message behind its length.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// How the length is written.
    pub prefix: Prefix,
    /// The size in bytes of the largest message that is taken from a peer.
    pub largest: usize,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// One byte.
    U8,
    /// Two bytes, the most significant first.
    U16,
    /// Two bytes, the least significant first.
    U16Le,
    /// Four bytes, the most significant first.
    U32,
    /// Four bytes, the least significant first.
    U32Le,
}

impl Prefix {
    /// How many bytes it takes.
    pub const fn width(self) -> usize {
        match self {
            Prefix::U8 => 1,
            Prefix::U16 | Prefix::U16Le => 2,
            Prefix::U32 | Prefix::U32Le => 4,
        }
    }

    /// The largest length that it can say.
    pub const fn limit(self) -> usize {
        match self {
            Prefix::U8 => u8::MAX as usize,
            Prefix::U16 | Prefix::U16Le => u16::MAX as usize,
            Prefix::U32 | Prefix::U32Le => u32::MAX as usize,
        }
    }

    fn read(self, input: &[u8]) -> Option<usize> {
        match self {
            Prefix::U8 => input.first().map(|byte| usize::from(*byte)),
            Prefix::U16 => input.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes))),
            Prefix::U16Le => input.first_chunk().map(|bytes| usize::from(u16::from_le_bytes(*bytes))),
            Prefix::U32 => input.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize),
            Prefix::U32Le => input.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize),
        }
    }

    /// Writes a length that is not above [`limit`](Self::limit).
    fn write(self, length: usize, output: &mut Vec<u8>) {
        match self {
            Prefix::U8 => output.put_u8(length as u8),
            Prefix::U16 => output.put_u16(length as u16),
            Prefix::U16Le => output.put_u16_le(length as u16),
            Prefix::U32 => output.put_u32(length as u32),
            Prefix::U32Le => output.put_u32_le(length as u32),
        }
    }
}

impl Length {
    fn shape(self, input: &[u8]) -> Result<Option<Shape>, FramingError> {
        match self.prefix.read(input) {
            Some(size) if size > self.largest => Err(FramingError::TooLong { size, limit: self.largest }),
            size => Ok(size.map(|size| Shape { header: self.prefix.width(), size, trailer: 0 })),
        }
    }
}

impl Framing for Length {
    fn decode(&self, input: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
        Ok(counted::decode(input, self.shape(input)?))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        counted::decode_end(input, self.shape(input)?)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        let size = framing::length(parts);
        if size > self.prefix.limit() {
            return Err(FramingError::TooLong { size, limit: self.prefix.limit() });
        }
        output.reserve(self.prefix.width() + size);
        self.prefix.write(size, output);
        framing::append(parts, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_stands_before_the_message_in_the_order_of_its_name() {
        for (prefix, expected) in [
            (Prefix::U8, &b"\x03abc"[..]),
            (Prefix::U16, b"\0\x03abc"),
            (Prefix::U16Le, b"\x03\0abc"),
            (Prefix::U32, b"\0\0\0\x03abc"),
            (Prefix::U32Le, b"\x03\0\0\0abc"),
        ] {
            let mut output = Vec::new();
            Length { prefix, largest: 8 }.encode(&[b"a", b"bc"], &mut output).unwrap();
            assert_eq!(output, expected, "{prefix:?}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_message_comes() {
        let length = Length { prefix: Prefix::U32, largest: 1000 };
        let refused = FramingError::TooLong { size: 0xffff_ffff, limit: 1000 };
        assert_eq!(length.decode(b"\xff\xff\xff\xff", &mut 0), Err(refused));
    }

    #[test]
    fn a_message_that_the_prefix_cannot_say_is_refused() {
        let length = Length { prefix: Prefix::U8, largest: 1 << 20 };
        let mut output = Vec::new();
        assert_eq!(length.encode(&[&[b'x'; 256]], &mut output), Err(FramingError::TooLong { size: 256, limit: 255 }));
        assert!(length.encode(&[&[b'x'; 255]], &mut output).is_ok());
    }

    #[test]
    fn a_stream_that_ends_inside_a_message_says_how_much_is_missing() {
        let length = Length { prefix: Prefix::U16, largest: 100 };
        let missing = |bytes: &[u8]| length.decode_end(bytes);
        assert_eq!(missing(b""), Ok(None));
        assert_eq!(missing(b"\0"), Err(FramingError::Incomplete { missing: 1 }));
        assert_eq!(missing(b"\0\x05ab"), Err(FramingError::Incomplete { missing: 3 }));
    }
}
