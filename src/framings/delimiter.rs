//! `delimiter`: a byte or a string of bytes ends each message, such as NUL, as `find -print0` has it.
//!
//! What stands after the last delimiter when the stream ends is a message too, as it is to `xargs -0`.

use std::str::FromStr;

use memchr::memmem::Finder;
use serde::Deserialize;

use crate::framing::{self, Frame, Framing, FramingError};
use crate::options::{OptionDoc, OptionError};

/// Messages with a delimiter behind each.
#[derive(Debug, Clone)]
pub struct Delimited {
    /// Knows the delimiter, and how to look for it.
    finder: Finder<'static>,
    largest: usize,
}

/// The bytes that end a message; not empty, and at most [`LONGEST`](Self::LONGEST).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Delimiter(Vec<u8>);

/// The options of [`Delimited`].
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "delimiter",
    value: "BYTES",
    default: "none; it must be given",
    help: "what ends a message: any text, with \\0, \\n, \\r, \\t, \\\\ and \\xHH for what cannot be typed",
}];

/// [`OPTIONS`] as they are read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    delimiter: Option<Delimiter>,
}

impl Settings {
    /// The framing, under a limit for all messages.
    pub fn framing(self, largest_message: usize) -> Result<Delimited, OptionError> {
        let missing =
            || OptionError::Invalid("`delimiter` must know what ends a message; add delimiter=\\0".to_owned());
        Ok(Delimited::new(&self.delimiter.ok_or_else(missing)?, largest_message))
    }
}

impl Delimiter {
    /// The most bytes that a delimiter may have.
    pub const LONGEST: usize = 64;

    /// Those bytes; none where there are too many or too few.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        Some(bytes.into()).filter(|bytes| (1..=Self::LONGEST).contains(&bytes.len())).map(Delimiter)
    }
}

impl FromStr for Delimiter {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let wrong = |reason: &str| OptionError::Invalid(format!("the option `delimiter`: {reason}"));
        let bytes = unescape(text).ok_or_else(|| wrong("the escapes are \\0, \\n, \\r, \\t, \\\\ and \\xHH"))?;
        Delimiter::new(bytes).ok_or_else(|| wrong("a delimiter has 1 to 64 bytes"))
    }
}

impl TryFrom<String> for Delimiter {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match byte {
            b'\\' => {
                let (escape, after) = after.split_first()?;
                match escape {
                    b'0' => (0, after),
                    b'n' => (b'\n', after),
                    b'r' => (b'\r', after),
                    b't' => (b'\t', after),
                    b'\\' => (b'\\', after),
                    b'x' => {
                        let (digits, after) = after.split_at_checked(2)?;
                        (16 * hex(digits[0])? + hex(digits[1])?, after)
                    }
                    _ => return None,
                }
            }
            plain => (plain, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

impl Delimited {
    /// The framing with that delimiter; `largest` is the size in bytes of the largest message that is taken from a peer.
    pub fn new(delimiter: &Delimiter, largest: usize) -> Self {
        Delimited { finder: Finder::new(&delimiter.0).into_owned(), largest }
    }

    fn delimiter(&self) -> &[u8] {
        self.finder.needle()
    }
}

impl Framing for Delimited {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        // A delimiter further on ends a message that is too long.
        let enough = self.largest.saturating_add(self.delimiter().len());
        let window = &input[..input.len().min(enough)];
        let from = (*searched).min(window.len());
        if let Some(found) = self.finder.find(&window[from..]) {
            let size = from + found;
            return Ok(Some(Frame::new(0..size, size + self.delimiter().len())));
        }
        if window.len() == enough {
            return Err(FramingError::TooLong { size: self.largest.saturating_add(1), limit: self.largest });
        }
        // The delimiter may have begun, and end with bytes that are still to come.
        *searched = window.len().saturating_sub(self.delimiter().len() - 1);
        Ok(None)
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        match self.decode(input, &mut 0)? {
            None if input.len() > self.largest => Err(FramingError::TooLong { size: input.len(), limit: self.largest }),
            None => Ok((!input.is_empty()).then(|| Frame::new(0..input.len(), input.len()))),
            message => Ok(message),
        }
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        let start = output.len();
        let size = framing::length(parts);
        output.reserve(size + self.delimiter().len());
        framing::append(parts, output);
        output.extend_from_slice(self.delimiter());
        // Searched with the delimiter in place, since the end of the message may begin one: `a` before `aa`.
        if self.finder.find(&output[start..]) != Some(size) {
            output.truncate(start);
            return Err(FramingError::Unencodable { framing: "delimiter", reason: "it holds the delimiter" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn framing(delimiter: &str) -> Delimited {
        Delimited::new(&delimiter.parse().unwrap(), 4)
    }

    #[test]
    fn the_bytes_of_a_delimiter_can_all_be_typed() {
        for (text, bytes) in [("\\0", &b"\0"[..]), ("\0", b"\0"), ("\\x1e\\xfF", b"\x1e\xff"), ("a\\\\\\n", b"a\\\n")] {
            assert_eq!(text.parse::<Delimiter>().unwrap().0, bytes);
        }
        for text in ["", "\\", "\\q", "\\x1", "\\x1g", &"a".repeat(65)] {
            let error = text.parse::<Delimiter>().unwrap_err().to_string();
            assert!(error.starts_with("the option `delimiter`: "), "{error}");
        }
    }

    #[test]
    fn a_delimiter_that_comes_in_pieces_is_found() {
        let framing = framing("ab");
        let mut searched = 0;
        assert_eq!(framing.decode(b"xya", &mut searched).unwrap(), None);
        assert_eq!(searched, 2);
        assert_eq!(framing.decode(b"xyabz", &mut searched).unwrap(), Some(Frame::new(0..2, 4)));
    }

    #[test]
    fn a_message_that_would_arrive_cut_is_refused() {
        for (delimiter, parts) in [("ab", &[&b"xa"[..], b"by"][..]), ("aa", &[b"a"]), ("\\n", &[b"\n"])] {
            let mut output = b"kept".to_vec();
            assert!(framing(delimiter).encode(parts, &mut output).is_err());
            assert_eq!(output, b"kept");
        }
    }

    #[test]
    fn what_stands_after_the_last_delimiter_is_the_last_message() {
        let mut input = BytesMut::from(&b"a;b"[..]);
        let framing = framing(";");
        assert_eq!(framing.decode_end(&input).unwrap().unwrap().take(&framing, &mut input).unwrap(), "a");
        assert_eq!(framing.decode_end(&input).unwrap().unwrap().take(&framing, &mut input).unwrap(), "b");
        assert_eq!(framing.decode_end(&input).unwrap(), None);
    }
}
