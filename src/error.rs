//! What can go wrong in a conversation, as a handler sees it.
//!
//! Each operation has its own error type beside it ([`EndpointError`](crate::EndpointError),
//! [`ResolveError`](crate::ResolveError), [`BindError`](crate::BindError), [`ConnectError`](crate::ConnectError));
//! this is the one of a session. All messages are lowercase fragments that read after "failed to …:".

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::framing::FramingError;

/// The result of a step in a conversation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a conversation could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The link failed: reset by the peer, unreachable, broken.
    #[error("the link failed: {}", named(.0))]
    Link(#[from] io::Error),
    /// Bytes came that the framing does not allow, or a message was given that it cannot carry.
    #[error("{0}")]
    Framing(#[from] FramingError),
    /// A message is longer than the link or its limit allows. Sizes in bytes.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLong {
        /// The size of the message.
        size: usize,
        /// The most that may be sent or received.
        limit: usize,
    },
    /// The session is over: nothing can be sent any more.
    #[error("the session is closed")]
    Closed,
    /// A layer could not open: a handshake failed or broke its protocol.
    #[error("the {layer} handshake failed: {reason}")]
    Handshake {
        /// The layer's name.
        layer: &'static str,
        /// What it met.
        reason: String,
    },
    /// The handler gave up, in its own words.
    #[error("{0}")]
    Handler(String),
}

impl Error {
    /// An error of the handler's own.
    pub fn handler(reason: impl Into<String>) -> Self {
        Error::Handler(reason.into())
    }

    /// Whether the peer merely went away, which is no fault of anybody's.
    pub fn is_disconnect(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        match self {
            Error::Link(error) => {
                matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected | UnexpectedEof)
            }
            Error::Closed => true,
            _ => false,
        }
    }
}

/// An error of the operating system with the name of its number: `Address already in use (EADDRINUSE)`. Other errors
/// are shown as they are.
pub fn named(error: &io::Error) -> impl fmt::Display + '_ {
    struct Named<'a>(&'a io::Error);
    impl fmt::Display for Named<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0.raw_os_error().map(Errno::from_raw) {
                None | Some(Errno::UnknownErrno) => self.0.fmt(f),
                Some(number) => write!(f, "{} ({number:?})", number.desc()),
            }
        }
    }
    Named(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_named_and_any_other_shown_as_it_is() {
        let system = io::Error::from_raw_os_error(Errno::EADDRINUSE as i32);
        assert_eq!(named(&system).to_string(), "Address already in use (EADDRINUSE)");
        assert_eq!(named(&io::Error::other("no such room")).to_string(), "no such room");
        assert_eq!(
            Error::from(io::Error::from_raw_os_error(Errno::ECONNRESET as i32)).to_string(),
            "the link failed: Connection reset by peer (ECONNRESET)"
        );
    }
}
