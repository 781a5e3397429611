//! `crlf`: a carriage return and a line feed end a message, and neither may stand alone.
//!
//! This is the line of SMTP, IMAP and FTP. A lone CR or LF is refused rather than guessed at: two sides that disagree
//! on where a line ends can be made to see different messages (RFC 5321, 2.3.8).

use memchr::memchr2;

use crate::framing::{self, Frame, Framing, FramingError};

/// Lines that end in CR LF, strictly. Its [options](super::lines::OPTIONS) are those of `lines`.
#[derive(Debug, Clone, Copy)]
pub struct Crlf {
    /// The size in bytes of the longest line that is taken from a peer, its end not counted.
    pub longest: usize,
}

impl Framing for Crlf {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        let malformed = |reason| Err(FramingError::Malformed { framing: "crlf", reason });
        let window = &input[..input.len().min(self.longest.saturating_add(1))];
        let from = (*searched).min(window.len());
        let Some(found) = memchr2(b'\r', b'\n', &window[from..]) else {
            if window.len() > self.longest {
                return Err(FramingError::TooLong { size: window.len(), limit: self.longest });
            }
            *searched = window.len();
            return Ok(None);
        };
        let end = from + found;
        match (input[end], input.get(end + 1)) {
            (b'\n', _) => malformed("a line feed stands alone"),
            (_, Some(b'\n')) => Ok(Some(Frame::new(0..end, end + 2))),
            (_, Some(_)) => malformed("a carriage return stands alone"),
            (_, None) => {
                *searched = end;
                Ok(None)
            }
        }
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        match self.decode(input, &mut 0)? {
            None if input.is_empty() => Ok(None),
            None => Err(FramingError::Incomplete { missing: if input.ends_with(b"\r") { 1 } else { 2 } }),
            line => Ok(line),
        }
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        let start = output.len();
        output.reserve(framing::length(parts) + 2);
        framing::append(parts, output);
        if memchr2(b'\r', b'\n', &output[start..]).is_some() {
            output.truncate(start);
            let reason = "it holds a carriage return or a line feed";
            return Err(FramingError::Unencodable { framing: "crlf", reason });
        }
        output.extend_from_slice(b"\r\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn decode(bytes: &[u8]) -> Result<Option<Bytes>, FramingError> {
        framing::first(&Crlf { longest: 3 }, bytes)
    }

    #[test]
    fn neither_sign_of_the_end_may_stand_alone() {
        assert_eq!(decode(b"ab\r\ncd").unwrap().unwrap(), "ab");
        assert_eq!(decode(b"ab\r").unwrap(), None);
        assert!(matches!(decode(b"ab\n"), Err(FramingError::Malformed { .. })));
        assert!(matches!(decode(b"a\rb"), Err(FramingError::Malformed { .. })));
    }

    #[test]
    fn the_longest_line_fits_and_one_byte_more_is_refused_at_once() {
        assert_eq!(decode(b"abc\r\n").unwrap().unwrap(), "abc");
        assert_eq!(decode(b"abc\r").unwrap(), None);
        assert_eq!(decode(b"abcd"), Err(FramingError::TooLong { size: 4, limit: 3 }));
    }

    #[test]
    fn a_stream_that_ends_inside_a_line_is_an_error() {
        let end = |bytes: &[u8]| Crlf { longest: 3 }.decode_end(bytes);
        assert_eq!(end(b""), Ok(None));
        assert_eq!(end(b"a\r\n").unwrap().unwrap(), Frame::new(0..1, 3));
        assert_eq!(end(b"a\r"), Err(FramingError::Incomplete { missing: 1 }));
        assert_eq!(end(b"a"), Err(FramingError::Incomplete { missing: 2 }));
    }
}
