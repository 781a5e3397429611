//! What is sent, and whether what comes back is what it should be.

use bytes::Bytes;
use memchr::memmem;

/// How long a number is written at most: any 64-bit one fits.
const DIGITS: usize = 20;
/// What stands for the number in a template, and for the message in an expectation.
const NUMBER: &str = "{n}";
const MESSAGE: &str = "{message}";

/// Where messages come from. Each has a number, which it says where it can, so that its reply can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Of that size in bytes: the number with zeros before it and, beyond twenty digits, dots behind it.
    Numbered(usize),
    /// The same text each time.
    Fixed(Bytes),
    /// A text with the number in it.
    Template {
        /// What stands before the number.
        before: String,
        /// What stands behind it.
        after: String,
    },
}

impl Source {
    /// A text; where it holds `{n}`, that is replaced by the message's number.
    pub fn text(text: &str) -> Self {
        match text.split_once(NUMBER) {
            Some((before, after)) => Source::Template { before: before.to_owned(), after: after.to_owned() },
            None => Source::Fixed(Bytes::copy_from_slice(text.as_bytes())),
        }
    }

    /// Writes the message with that number over whatever is in `into`.
    pub fn write(&self, number: u64, into: &mut Vec<u8>) {
        into.clear();
        match self {
            Source::Fixed(text) => into.extend_from_slice(text),
            Source::Numbered(size) => {
                let width = (*size).min(DIGITS);
                into.resize(width, b'0');
                write_digits(number, into);
                into.resize(*size, b'.');
            }
            Source::Template { before, after } => {
                into.extend_from_slice(before.as_bytes());
                let start = into.len();
                into.resize(start + DIGITS, b'0');
                write_digits(number, &mut into[start..]);
                into.extend_from_slice(after.as_bytes());
            }
        }
    }

    /// How many different messages there are: numbers beyond begin at 0 again.
    pub fn distinct(&self) -> u64 {
        match self {
            Source::Fixed(_) => 1,
            Source::Numbered(size) if *size < DIGITS => 10_u64.pow(*size as u32),
            Source::Numbered(_) | Source::Template { .. } => u64::MAX,
        }
    }

    /// The number that a reply says.
    pub fn number_in(&self, reply: &[u8]) -> Option<u64> {
        let width = match self {
            Source::Fixed(_) | Source::Numbered(0) => return None,
            Source::Numbered(size) => (*size).min(DIGITS),
            Source::Template { .. } => DIGITS,
        };
        let digits = reply.windows(width).rev().find(|window| window.iter().all(u8::is_ascii_digit))?;
        digits.iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
    }
}

/// From the back, cut off where there is no room.
fn write_digits(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
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

impl Expectation {
    /// A text; where it holds `{message}`, that is replaced by the message.
    pub fn text(text: &str) -> Self {
        match text.split_once(MESSAGE) {
            Some((before, after)) => Expectation::Exactly { before: before.to_owned(), after: Some(after.to_owned()) },
            None => Expectation::Exactly { before: text.to_owned(), after: None },
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
        let mut message = b"what was there before".to_vec();
        source.write(number, &mut message);
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn a_message_has_the_size_that_was_asked_for_and_says_its_number() {
        assert_eq!(written(&Source::Numbered(4), 7), "0007");
        assert_eq!(written(&Source::Numbered(2), 123), "23");
        assert_eq!(written(&Source::Numbered(0), 7), "");
        assert_eq!(written(&Source::Numbered(23), 7), "00000000000000000007...");
        assert_eq!(written(&Source::text("a{n}b"), 7), "a00000000000000000007b");
        assert_eq!(written(&Source::text("ping"), 7), "ping");
    }

    #[test]
    fn the_number_is_found_in_whatever_the_reply_puts_around_it() {
        for source in [Source::Numbered(16), Source::Numbered(30), Source::text("GET /{n} please")] {
            for number in [0, 1, 999_999_999] {
                let reply = format!("Hello 42, {}!", written(&source, number));
                assert_eq!(source.number_in(reply.as_bytes()), Some(number), "{reply}");
            }
        }
        assert_eq!(Source::text("ping").number_in(b"0001"), None);
        assert_eq!(Source::Numbered(4).number_in(b"123"), None);
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
