//! How a try ended, predicted or seen.

use std::fmt;

use nix::errno::Errno;
use serde::{Serialize, Serializer};

/// How a try ended. Two are compared by value: a lost reply is something else than a lost question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The call succeeded.
    Ok,
    /// A TCP connection came about.
    Connected,
    /// A UDP reply came.
    Reply,
    /// A UDP datagram arrived, and the client never got the reply; to the client this is a timeout.
    ReplyLost,
    /// Nothing came within the time.
    Timeout,
    /// The call, or the socket later, failed.
    Errno(Errno),
    /// How many, where the experiment counts.
    Count(u64),
    /// Anything else that can be told in a word or two: which socket, which address.
    Is(String),
}

impl Outcome {
    /// One character that says it without colour: `#` reached, `x` refused, `.` timed out, `!` arrived and the reply
    /// was lost.
    pub fn glyph(&self) -> char {
        match self {
            Outcome::Ok | Outcome::Connected | Outcome::Reply | Outcome::Count(_) | Outcome::Is(_) => '#',
            Outcome::ReplyLost => '!',
            Outcome::Timeout => '.',
            Outcome::Errno(_) => 'x',
        }
    }

    /// The outcome of a call that gives nothing back.
    pub fn of_call<T>(result: &std::io::Result<T>) -> Self {
        match result {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Errno(super::isolation::errno_of(error)),
        }
    }
}

impl From<Result<(), Errno>> for Outcome {
    fn from(result: Result<(), Errno>) -> Self {
        match result {
            Ok(()) => Outcome::Ok,
            Err(errno) => Outcome::Errno(errno),
        }
    }
}

/// In the words of the JSON output: what a client sees, hence `timeout` for a lost reply.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok => f.pad("ok"),
            Outcome::Connected => f.pad("connected"),
            Outcome::Reply => f.pad("reply"),
            Outcome::ReplyLost | Outcome::Timeout => f.pad("timeout"),
            Outcome::Errno(errno) => f.pad(&format!("{errno:?}")),
            Outcome::Count(number) => f.pad(&number.to_string()),
            Outcome::Is(text) => f.pad(text),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Outcome::Count(number) => serializer.serialize_u64(*number),
            other => serializer.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_told_by_its_name_and_a_lost_reply_is_a_timeout_to_the_client() {
        assert_eq!(Outcome::Errno(Errno::EADDRINUSE).to_string(), "EADDRINUSE");
        assert_eq!(Outcome::ReplyLost.to_string(), Outcome::Timeout.to_string());
        assert_ne!(Outcome::ReplyLost, Outcome::Timeout);
        assert_eq!(serde_json::to_string(&Outcome::Count(3)).unwrap(), "3");
    }
}
