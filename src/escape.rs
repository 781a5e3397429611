//! Bytes from a peer, made safe to print.
//!
//! A log line, a terminal and an error message are all read by people and by tools that trust them. Whatever a peer
//! sends reaches them only through [`Escaped`], so that a line feed, a carriage return or an escape sequence in it
//! forges nothing, and its length is capped.

use std::fmt::{self, Write as _};

/// How many bytes of a peer's text are shown before it is cut.
pub const SHOWN_BYTES: usize = 128;

/// Shows bytes on one line: printable characters as they are, all others as escapes, cut after [`SHOWN_BYTES`].
///
/// ```
/// use greetd::escape::Escaped;
/// assert_eq!(Escaped::new("caf\u{e9}\r\n\x1b[31m".as_bytes()).to_string(), "café\\r\\n\\x1b[31m");
/// ```
#[derive(Clone, Copy)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
}

impl<'a> Escaped<'a> {
    /// Wraps the bytes; nothing is copied.
    pub fn new(bytes: &'a [u8]) -> Self {
        Escaped { bytes }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(SHOWN_BYTES)];
        for chunk in shown.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    '\\' => f.write_str("\\\\")?,
                    // Also the C1 controls, and the characters that reorder or hide text on a terminal.
                    c if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32)?,
                    c if c.is_control() || is_invisible(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        match self.bytes.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, "…(+{more} bytes)"),
        }
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Line and paragraph separators, bidirectional overrides and zero-width characters.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let text = Escaped::new(&[b'a'; 200]).to_string();
        assert!(text.ends_with("a…(+72 bytes)"), "{text}");
    }

    proptest! {
        #[test]
        fn no_input_yields_a_control_character_or_a_long_line(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = Escaped::new(&bytes).to_string();
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.len() <= SHOWN_BYTES * 10);
        }
    }
}
