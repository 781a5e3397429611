//! `lines`: a line feed ends a message, as most text protocols and every terminal have it.
//!
//! A carriage return before the line feed is dropped on receipt, so that Windows and telnet clients are understood. A
//! message that itself ends in a carriage return is sent with another one behind it, so that every message without a
//! line feed arrives as it was. The last line of a stream need not be ended.

use serde::Deserialize;

use crate::framing::{self, Frame, Framing, FramingError, MANY};
use crate::options::{OptionDoc, OptionError, Size};

/// Lines of text, or of any bytes but the line feed.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    /// The size in bytes of the longest line that is taken from a peer, its end not counted.
    pub longest: usize,
}

/// The bound of a line where none is given: well above what text protocols allow, well below a message.
pub const DEFAULT_LONGEST: usize = 8 * 1024;

/// The options of [`Lines`] and of [`Crlf`](super::crlf::Crlf).
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "max-line",
    value: "SIZE",
    default: "8KiB, or max-message where that is less",
    help: "the longest line",
}];

/// [`OPTIONS`] as they are read.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    max_line: Option<Size>,
}

impl Settings {
    /// The longest line under a limit for all messages.
    pub fn longest(self, largest_message: usize) -> Result<usize, OptionError> {
        match self.max_line {
            None => Ok(DEFAULT_LONGEST.min(largest_message)),
            Some(Size(0)) => Err(OptionError::Invalid("the option `max-line` takes a size above 0".to_owned())),
            Some(longest) if longest.bytes() > largest_message => Err(OptionError::Invalid(format!(
                "`max-line` is {longest} and `max-message` is {}; raise that too",
                Size(largest_message)
            ))),
            Some(longest) => Ok(longest.bytes()),
        }
    }
}

impl Framing for Lines {
    #[inline]
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        let from = (*searched).min(input.len());
        let Some(found) = framing::find(b'\n', &input[from..]) else { return self.not_ended(input, searched) };
        let end = from + found;
        let size = without_return(&input[..end]);
        if size > self.longest {
            return Err(self.too_long());
        }
        Ok(Some(Frame::new(0..size, end + 1)))
    }

    fn decode_many(&self, input: &[u8], searched: &mut usize, found: &mut Vec<Frame>) -> Result<(), FramingError> {
        let Some(first) = self.decode(input, searched)? else { return Ok(()) };
        *searched = 0;
        let mut start = first.taken;
        found.push(first);
        while found.len() < MANY
            && let Some(found_at) = framing::find(b'\n', &input[start..])
        {
            let end = start + found_at;
            let size = without_return(&input[start..end]);
            if size > self.longest {
                break;
            }
            found.push(Frame { start, end: start + size, taken: end + 1, escaped: false });
            start = end + 1;
        }
        Ok(())
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        if let Some(line) = self.decode(input, &mut 0)? {
            return Ok(Some(line));
        }
        if input.is_empty() {
            return Ok(None);
        }
        Ok(Some(Frame::new(0..without_return(input), input.len())))
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        let start = output.len();
        framing::append(parts, output);
        let message = &output[start..];
        if framing::contains(b'\n', message) {
            output.truncate(start);
            return Err(FramingError::Unencodable { framing: "lines", reason: "it holds a line feed" });
        }
        if message.ends_with(b"\r") {
            output.push(b'\r');
        }
        output.push(b'\n');
        Ok(())
    }
}

impl Lines {
    #[inline(never)]
    fn not_ended(self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        if without_return(input) > self.longest {
            return Err(self.too_long());
        }
        *searched = input.len();
        Ok(None)
    }

    #[cold]
    fn too_long(self) -> FramingError {
        FramingError::TooLong { size: self.longest.saturating_add(1), limit: self.longest }
    }
}

/// The length of a line without the carriage return at its end.
fn without_return(line: &[u8]) -> usize {
    line.len() - usize::from(line.ends_with(b"\r"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};

    fn decode(longest: usize, bytes: &[u8]) -> Result<Option<Bytes>, FramingError> {
        framing::first(&Lines { longest }, bytes)
    }

    #[test]
    fn one_carriage_return_before_the_line_feed_is_dropped() {
        assert_eq!(decode(10, b"a\nb").unwrap().unwrap(), "a");
        assert_eq!(decode(10, b"a\r\nb").unwrap().unwrap(), "a");
        assert_eq!(decode(10, b"a\r\r\n").unwrap().unwrap(), "a\r");
        assert_eq!(decode(10, b"\r\n").unwrap().unwrap(), "");
    }

    #[test]
    fn the_longest_line_fits_with_either_end_and_one_byte_more_is_refused_at_once() {
        assert_eq!(decode(3, b"abc\n").unwrap().unwrap(), "abc");
        assert_eq!(decode(3, b"abc\r\n").unwrap().unwrap(), "abc");
        assert_eq!(decode(3, b"abc\r").unwrap(), None);
        for bytes in [&b"abcd"[..], b"abcd\n", b"abc\rd", b"abc\r\r\n"] {
            assert_eq!(decode(3, bytes), Err(FramingError::TooLong { size: 4, limit: 3 }));
        }
    }

    #[test]
    fn what_was_searched_in_vain_is_not_searched_again() {
        let mut searched = 0;
        assert_eq!(Lines { longest: 10 }.decode(b"abc", &mut searched).unwrap(), None);
        assert_eq!(searched, 3);
    }

    #[test]
    fn a_message_keeps_its_own_carriage_return_and_may_hold_no_line_feed() {
        let mut output = b"kept".to_vec();
        let lines = Lines { longest: 10 };
        assert!(lines.encode(&[b"a", b"\n"], &mut output).is_err());
        assert_eq!(output, b"kept");
        lines.encode(&[b"a\r"], &mut output).unwrap();
        assert_eq!(output, b"kepta\r\r\n");
    }

    #[test]
    fn the_last_line_need_not_be_ended() {
        let mut input = BytesMut::from(&b"a\nb\r"[..]);
        let lines = Lines { longest: 10 };
        assert_eq!(lines.decode_end(&input).unwrap().unwrap().take(&lines, &mut input).unwrap(), "a");
        assert_eq!(lines.decode_end(&input).unwrap().unwrap().take(&lines, &mut input).unwrap(), "b");
        assert_eq!(lines.decode_end(&input).unwrap(), None);
    }

    #[test]
    fn a_line_may_be_as_long_as_a_message_and_no_longer() {
        let longest = |max_line| Settings { max_line }.longest(1 << 20);
        assert_eq!(longest(None), Ok(8192));
        assert_eq!(longest(Some(Size(1 << 20))), Ok(1 << 20));
        assert_eq!(
            longest(Some(Size(2 << 20))).unwrap_err().to_string(),
            "`max-line` is 2MiB and `max-message` is 1MiB; raise that too"
        );
        assert_eq!(Settings::default().longest(100), Ok(100));
    }
}
