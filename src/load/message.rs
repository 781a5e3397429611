//! What is sent, and whether what comes back is what it should be.

use std::fmt;

use bytes::Bytes;
use memchr::memmem;

use crate::escape::Escaped;

use super::pattern::{DIGITS, Pattern};

/// What stands for the number in a template, and for the message in an expectation.
const NUMBER: &[u8] = b"{n}";
const MESSAGE: &str = "{message}";
/// How much of a message or an expectation is shown where settings are.
const EXCERPT: usize = 64;

/// Where messages come from. Each has a number, which it says where it can, so that its reply can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Of that size in bytes: the number with zeros before it and, beyond twenty digits, dots behind it.
    Numbered(usize),
    /// The same bytes each time.
    Fixed(Bytes),
    /// Bytes with the number in them, in twenty digits.
    Template {
        /// What stands before the number.
        before: Bytes,
        /// What stands behind it.
        after: Bytes,
    },
}

impl Source {
    /// A template: where it holds `{n}`, that is replaced by the message's number.
    pub fn template(template: &[u8]) -> Self {
        match memmem::find(template, NUMBER) {
            Some(at) => Source::Template {
                before: Bytes::copy_from_slice(&template[..at]),
                after: Bytes::copy_from_slice(&template[at + NUMBER.len()..]),
            },
            None => Source::Fixed(Bytes::copy_from_slice(template)),
        }
    }

    pub(super) fn pattern(&self) -> Pattern {
        match self {
            Source::Fixed(bytes) => Pattern::constant(bytes.to_vec()),
            Source::Numbered(size) => {
                let width = (*size).min(DIGITS);
                Pattern::numbered(b"", width, &vec![b'.'; size - width])
            }
            Source::Template { before, after } => Pattern::numbered(before, DIGITS, after),
        }
    }
}

/// In a few words, for people.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.pattern().size();
        match self {
            Source::Numbered(_) => write!(f, "{size} bytes, its number in them"),
            Source::Fixed(bytes) => write!(f, "{size} bytes: {}", excerpt(bytes)),
            Source::Template { before, after } => {
                write!(f, "{size} bytes: {}{{n}}{}", excerpt(before), excerpt(after))
            }
        }
    }
}

/// The beginning, safe to print.
fn excerpt(bytes: &[u8]) -> String {
    let shown = Escaped::new(&bytes[..bytes.len().min(EXCERPT)]).to_string();
    if bytes.len() > EXCERPT { format!("{shown}…") } else { shown }
}

/// What a reply must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Anything at all.
    Anything,
    /// It holds the message that it answers, as an echo and a greeting do.
    Holds,
    /// This text, with the message in it.
    Exactly {
        /// What stands before the message.
        before: String,
        /// What stands behind it; nothing of the message where this is none.
        after: Option<String>,
    },
}

/// In a few words, for people.
impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expectation::Anything => f.write_str("anything"),
            Expectation::Holds => f.write_str("it holds the message"),
            Expectation::Exactly { before, after: None } => f.write_str(&excerpt(before.as_bytes())),
            Expectation::Exactly { before, after: Some(after) } => {
                write!(f, "{}{MESSAGE}{}", excerpt(before.as_bytes()), excerpt(after.as_bytes()))
            }
        }
    }
}

impl Expectation {
    /// A text; where it holds `{message}`, that is replaced by the message.
    pub fn text(text: &str) -> Self {
        match text.split_once(MESSAGE) {
            Some((before, after)) => Expectation::Exactly { before: before.to_owned(), after: Some(after.to_owned()) },
            None => Expectation::Exactly { before: text.to_owned(), after: None },
        }
    }

    /// Whether a right reply holds the message that it answers.
    pub fn holds_message(&self) -> bool {
        match self {
            Expectation::Holds | Expectation::Exactly { after: Some(_), .. } => true,
            Expectation::Anything | Expectation::Exactly { after: None, .. } => false,
        }
    }

    /// Whether this is the reply to that message.
    pub fn is_met(&self, reply: &[u8], message: &[u8]) -> bool {
        match self {
            Expectation::Anything => true,
            // Nearly always it stands at the end.
            Expectation::Holds => reply.ends_with(message) || memmem::find(reply, message).is_some(),
            Expectation::Exactly { before, after: None } => reply == before.as_bytes(),
            Expectation::Exactly { before, after: Some(after) } => {
                let rest = reply.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(after.as_bytes()));
                rest == Some(message)
            }
        }
    }

    /// Whether more bytes could make this the reply to that message: a stream without framing cuts replies anywhere.
    pub fn may_follow(&self, reply: &[u8], message: &[u8]) -> bool {
        let longest = match self {
            Expectation::Anything => 0,
            Expectation::Holds => 2 * message.len() + 1024,
            Expectation::Exactly { before, after } => {
                before.len() + after.as_ref().map_or(0, |after| after.len() + message.len())
            }
        };
        reply.len() < longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(source: &Source, number: u64) -> String {
        String::from_utf8(source.pattern().at(number).to_vec()).unwrap()
    }

    #[test]
    fn a_message_has_the_size_that_was_asked_for_and_says_its_number() {
        assert_eq!(written(&Source::Numbered(4), 7), "0007");
        assert_eq!(written(&Source::Numbered(2), 123), "23");
        assert_eq!(written(&Source::Numbered(0), 7), "");
        assert_eq!(written(&Source::Numbered(23), 7), "00000000000000000007...");
        assert_eq!(written(&Source::template(b"a{n}b"), 7), "a00000000000000000007b");
        assert_eq!(written(&Source::template(b"ping"), 7), "ping");
    }

    #[test]
    fn settings_show_the_beginning_of_a_message_and_no_control_characters() {
        assert_eq!(Source::Numbered(16).to_string(), "16 bytes, its number in them");
        assert_eq!(Source::template(b"GET /{n}\r\n").to_string(), "27 bytes: GET /{n}\\r\\n");
        assert!(Source::Fixed(vec![b'x'; 1000].into()).to_string().ends_with("xx…"));
        assert_eq!(Expectation::text("Hello {message}!").to_string(), "Hello {message}!");
    }

    #[test]
    fn a_reply_is_held_against_what_was_expected() {
        let greeting = Expectation::text("Hello {message}!");
        assert!(greeting.is_met(b"Hello 0007!", b"0007"));
        assert!(!greeting.is_met(b"Hello 0008!", b"0007"));
        assert!(greeting.may_follow(b"Hello 00", b"0007"));
        assert!(!greeting.may_follow(b"Hello 0008!", b"0007"));
        assert!(Expectation::Holds.is_met(b"Hello 0007, you", b"0007"));
        assert!(!Expectation::Holds.is_met(b"Hello", b"0007"));
        assert!(Expectation::text("pong").is_met(b"pong", b"ping"));
        assert!(Expectation::Anything.is_met(b"", b"ping"));
    }
}
