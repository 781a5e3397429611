//! The first line that a plugin says: `greetd-plugin 1 NAME…`.

use bytes::BytesMut;

use crate::escape::Escaped;
use crate::hosts::frame::VERSION;

/// The longest first line, in bytes, its end included.
pub(in crate::hosts) const LONGEST: usize = 512;
pub(in crate::hosts) const LONGEST_NAME: usize = 64;

/// What a plugin says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::hosts) struct Greeting {
    /// The names of its handlers: one at least.
    pub(in crate::hosts) names: Vec<String>,
}

/// A first line that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::hosts) enum GreetingError {
    #[error("first line was '{0}', expected 'greetd-plugin 1 NAME'. stdout is the protocol; print to stderr.")]
    Other(String),
    #[error("made for plugin protocol {0}; this greetd speaks {VERSION}")]
    Version(String),
    #[error("the first line names no handler; expected 'greetd-plugin 1 NAME'")]
    Nameless,
    #[error("`{0}` is no name for a handler: write up to 64 of a-z, 0-9, - and _")]
    Name(String),
    #[error("the first line names `{0}` twice")]
    Twice(String),
}

impl GreetingError {
    /// Of bytes that are no line.
    pub(in crate::hosts) fn of(bytes: &[u8]) -> Self {
        GreetingError::Other(Escaped::new(bytes).to_string())
    }
}

impl Greeting {
    /// Takes the first line off the front; `None` asks for more.
    pub(in crate::hosts) fn take(input: &mut BytesMut) -> Result<Option<Self>, GreetingError> {
        let end = memchr::memchr(b'\n', &input[..input.len().min(LONGEST)]);
        let Some(end) = end else {
            return if input.len() < LONGEST { Ok(None) } else { Err(GreetingError::of(&input[..LONGEST])) };
        };
        let line = input.split_to(end + 1);
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        Greeting::parse(line).map(Some)
    }

    fn parse(line: &[u8]) -> Result<Self, GreetingError> {
        let other = || GreetingError::of(line);
        let mut words = std::str::from_utf8(line).map_err(|_| other())?.split_ascii_whitespace();
        if words.next() != Some("greetd-plugin") {
            return Err(other());
        }
        match words.next() {
            Some(VERSION) => {}
            Some(version) if version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                return Err(GreetingError::Version(version.to_owned()));
            }
            _ => return Err(other()),
        }
        let mut names: Vec<String> = Vec::new();
        for name in words {
            if !is_name(name) {
                return Err(GreetingError::Name(Escaped::new(name.as_bytes()).to_string()));
            }
            if names.iter().any(|known| known == name) {
                return Err(GreetingError::Twice(name.to_owned()));
            }
            names.push(name.to_owned());
        }
        if names.is_empty() { Err(GreetingError::Nameless) } else { Ok(Greeting { names }) }
    }
}

/// What can be typed behind `--handler` and means nothing else there.
pub(in crate::hosts) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Vec<String>, String> {
        let mut input = BytesMut::from(line);
        let greeting = Greeting::take(&mut input).map_err(|error| error.to_string())?;
        Ok(greeting.expect("there is a line").names)
    }

    #[test]
    fn a_first_line_names_the_handlers_and_leaves_the_frames_behind_it() {
        let mut input = BytesMut::from("greetd-plugin 1 hello bye\n\x01\x02");
        let greeting = Greeting::take(&mut input).unwrap().unwrap();
        assert_eq!((greeting.names, &input[..]), (vec!["hello".to_owned(), "bye".to_owned()], &b"\x01\x02"[..]));
        assert_eq!(Greeting::take(&mut BytesMut::from("greetd-plu")), Ok(None));
    }

    #[test]
    fn a_wrong_first_line_is_told_in_words() {
        for (line, words) in [
            (
                "Hello\n",
                "first line was 'Hello', expected 'greetd-plugin 1 NAME'. stdout is the protocol; print to stderr.",
            ),
            ("greetd-plugin 2 x\n", "made for plugin protocol 2; this greetd speaks 1"),
            ("greetd-plugin 1\n", "the first line names no handler; expected 'greetd-plugin 1 NAME'"),
            ("greetd-plugin 1 a/b\n", "`a/b` is no name for a handler: write up to 64 of a-z, 0-9, - and _"),
            ("greetd-plugin 1 a a\n", "the first line names `a` twice"),
        ] {
            assert_eq!(read(line).unwrap_err(), words);
        }
        assert!(read("greetd-plugin x y\n").is_err() && read("\u{1b}[2J\n").unwrap_err().contains("\\x1b[2J"));
    }
}
