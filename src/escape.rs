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
        write_safely(shown, f, |c| match c {
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            '\\' => Some("\\\\"),
            _ => None,
        })?;
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

/// Shows text on a terminal or in a log line: what would act rather than show becomes an escape, all else stays as it
/// is, backslashes included. What may be long, and whose own lines are welcome, is shown with [`Printable::lines`].
///
/// ```
/// use greetd::escape::Printable;
/// assert_eq!(Printable::line(b"C:\\n\n\x1b[2J").to_string(), "C:\\n\\n\\x1b[2J");
/// assert_eq!(Printable::lines(b"a\r\nb\x07").to_string(), "a\nb\\x07");
/// ```
#[derive(Clone, Copy)]
pub struct Printable<'a> {
    bytes: &'a [u8],
    lines: bool,
}

impl<'a> Printable<'a> {
    /// On one line: line feeds and tabs are escaped too.
    pub fn line(bytes: &'a [u8]) -> Self {
        Printable { bytes, lines: false }
    }

    /// On the lines that it brings: line feeds and tabs stay, and a carriage return before a line feed is left out.
    pub fn lines(bytes: &'a [u8]) -> Self {
        Printable { bytes, lines: true }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.lines {
            return write_safely(self.bytes, f, |c| match c {
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                '\t' => Some("\\t"),
                _ => None,
            });
        }
        for line in self.bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, end) = match line {
                [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] => (text, "\n"),
                text => (text, ""),
            };
            write_safely(text, f, |c| match c {
                '\r' => Some("\\r"),
                '\t' => Some("\t"),
                _ => None,
            })?;
            f.write_str(end)?;
        }
        Ok(())
    }
}

/// Writes each character as `shown` has it; of the others those that act on a terminal as escapes, the rest as they
/// are.
fn write_safely(bytes: &[u8], f: &mut fmt::Formatter<'_>, shown: fn(char) -> Option<&'static str>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match (shown(character), character) {
                (Some(text), _) => f.write_str(text)?,
                (None, c) if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32)?,
                // Also the C1 controls, and the characters that reorder or hide text on a terminal.
                (None, c) if c.is_control() || is_invisible(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                (None, c) => f.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
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

        #[test]
        fn nothing_printable_acts_on_a_terminal_but_the_lines_that_were_asked_for(text in any::<String>()) {
            prop_assert!(!Printable::line(text.as_bytes()).to_string().chars().any(char::is_control));
            let lines = Printable::lines(text.as_bytes()).to_string();
            prop_assert!(!lines.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
            prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
        }
    }
}
