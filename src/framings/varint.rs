//! `varint`: the message's length before it, as unsigned LEB128: seven bits a byte, the least significant first.
//!
//! This is how Protocol Buffers delimit messages and libp2p negotiates. Only the shortest form of a length is taken,
//! as multiformats' unsigned-varint asks: a second way to write the same message is a second way past a filter.

use bytes::BufMut;

use super::counted::{self, Shape};
use crate::framing::{self, Frame, Framing, FramingError};

/// A message behind its length in LEB128.
#[derive(Debug, Clone, Copy)]
pub struct Varint {
    /// The size in bytes of the largest message that is taken from a peer.
    pub largest: usize,
}

impl Varint {
    /// Refuses a length as soon as its bytes so far can only come to one over the limit.
    fn shape(self, input: &[u8]) -> Result<Option<Shape>, FramingError> {
        // Wider than any limit, so that nothing overflows: the limit ends the loop within ten bytes.
        let mut size: u128 = 0;
        for (index, byte) in input.iter().enumerate() {
            let (is_last, is_padding) = (byte & 0x80 == 0, *byte == 0 && index > 0);
            if is_padding {
                return Err(FramingError::Malformed { framing: "varint", reason: "a length is padded with zeros" });
            }
            size |= u128::from(byte & 0x7f) << (7 * index);
            // A byte that is not the last promises at least one bit more, seven places up.
            let least = if is_last { size } else { size + (1 << (7 * (index + 1))) };
            if least > self.largest as u128 {
                let size = usize::try_from(least).unwrap_or(usize::MAX);
                return Err(FramingError::TooLong { size, limit: self.largest });
            }
            if is_last {
                return Ok(Some(Shape { header: index + 1, size: size as usize, trailer: 0 }));
            }
        }
        Ok(None)
    }
}

impl Framing for Varint {
    fn decode(&self, input: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
        Ok(counted::decode(input, self.shape(input)?))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        counted::decode_end(input, self.shape(input)?)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        let mut length = framing::length(parts);
        output.reserve(length + 10);
        while length >= 0x80 {
            output.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        output.put_u8(length as u8);
        framing::append(parts, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn decode(largest: usize, bytes: &[u8]) -> Result<Option<Bytes>, FramingError> {
        framing::first(&Varint { largest }, bytes)
    }

    #[test]
    fn a_length_of_three_hundred_takes_two_bytes() {
        let mut output = Vec::new();
        Varint { largest: 300 }.encode(&[&[7; 300]], &mut output).unwrap();
        assert_eq!(output[..2], [0xac, 0x02]);
        assert_eq!(decode(300, &output).unwrap().unwrap().len(), 300);
    }

    #[test]
    fn only_the_shortest_form_of_a_length_is_taken() {
        assert_eq!(decode(300, b"\0").unwrap().unwrap(), "");
        assert!(matches!(decode(300, b"\x80\0"), Err(FramingError::Malformed { .. })));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_at_the_first_byte_that_makes_it_certain() {
        assert_eq!(decode(300, b"\xac"), Ok(None));
        assert_eq!(decode(300, b"\xad\x02"), Err(FramingError::TooLong { size: 301, limit: 300 }));
        assert_eq!(decode(300, b"\x80\x80"), Err(FramingError::TooLong { size: 16384, limit: 300 }));
        assert!(matches!(decode(usize::MAX, &[0x80; 11]), Err(FramingError::TooLong { .. })));
        assert!(matches!(decode(usize::MAX, &[0xff; 11]), Err(FramingError::TooLong { .. })));
    }
}
