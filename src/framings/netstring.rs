//! `netstring`: the length in decimal, a colon, the message, a comma: `5:hello,`.
//!
//! As D. J. Bernstein wrote it down (<https://cr.yp.to/proto/netstrings.txt>): no leading zeros, no spaces, and the
//! comma is checked.

use std::io::Write as _;

use bytes::BufMut;

use super::counted::{self, Shape};
use crate::framing::{self, Frame, Framing, FramingError};

/// A message as a netstring.
#[derive(Debug, Clone, Copy)]
pub struct Netstring {
    /// The size in bytes of the largest message that is taken from a peer.
    pub largest: usize,
}

/// The digits of the largest length, and the two signs.
const MOST_AROUND: usize = 22;

impl Netstring {
    fn shape(self, input: &[u8]) -> Result<Option<Shape>, FramingError> {
        let malformed = |reason| Err(FramingError::Malformed { framing: "netstring", reason });
        let mut size: usize = 0;
        for (index, byte) in input.iter().enumerate() {
            match byte {
                b'0'..=b'9' if index > 0 && size == 0 => return malformed("a length has a leading zero"),
                b'0'..=b'9' => {
                    size = size.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                    if size > self.largest {
                        return Err(FramingError::TooLong { size, limit: self.largest });
                    }
                }
                b':' if index > 0 => {
                    let header = index + 1;
                    return match input.get(header.saturating_add(size)) {
                        None | Some(b',') => Ok(Some(Shape { header, size, trailer: 1 })),
                        Some(_) => malformed("a message is not followed by a comma"),
                    };
                }
                _ => return malformed("a length is not digits and a colon"),
            }
        }
        Ok(None)
    }
}

impl Framing for Netstring {
    fn decode(&self, input: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
        Ok(counted::decode(input, self.shape(input)?))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        counted::decode_end(input, self.shape(input)?)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        let size = framing::length(parts);
        output.reserve(size + MOST_AROUND);
        // Writing to a buffer that grows cannot fail.
        let _ = write!(output, "{size}:");
        framing::append(parts, output);
        output.put_u8(b',');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn decode(bytes: &[u8]) -> Result<Option<Bytes>, FramingError> {
        framing::first(&Netstring { largest: 100 }, bytes)
    }

    #[test]
    fn it_is_written_as_the_specification_shows() {
        let mut output = Vec::new();
        let netstring = Netstring { largest: 100 };
        netstring.encode(&[b"hello ", b"world!"], &mut output).unwrap();
        netstring.encode(&[], &mut output).unwrap();
        assert_eq!(output, b"12:hello world!,0:,");
    }

    #[test]
    fn what_is_not_strict_is_refused() {
        for bytes in ["05:hello,", "00:,", ":,", "5 :hello,", "-1:,", "5:hello.", "\n", "1a"] {
            assert!(matches!(decode(bytes.as_bytes()), Err(FramingError::Malformed { .. })), "{bytes}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_digit_by_digit() {
        assert_eq!(decode(b"100"), Ok(None));
        assert_eq!(decode(b"101"), Err(FramingError::TooLong { size: 101, limit: 100 }));
        assert!(decode(b"99999999999999999999999").is_err());
    }
}
