//! A conformance kit: what every transport, layer, framing and handler must do, as functions to be called in a test.
//!
//! Each returns a [`Failure`] with a sentence about what is wrong, so that a test is a few lines and a failure says
//! what to mend. The same functions judge what ships with greetd, in its tests and its fuzz targets.
//!
//! | function | meets it with |
//! |---|---|
//! | [`transport_conforms`] | calls from one and from many, all that it claims to carry, slow readers, ends of every sort |
//! | [`layer_conforms`] | the same over links in memory; peers that are silent, leave, or talk nonsense |
//! | [`framing_conforms`] | messages and damaged bytes, cut everywhere; [`framing::Trial`] holds each rule by itself |
//! | [`handler_conforms`] | peers that send anything, leave, break off, never read; a server that drains; over every kind of link |
//! | [`handler_conforms_at`] | the same peers at one endpoint: sockets, layers, transports of one's own |
//!
//! [`ScriptedAcceptor`] is a listener that does as a test says, for what is hard to bring about otherwise.
//!
//! ```
//! use std::sync::Arc;
//! use greetd::testing::{Outcome, framing_conforms, handler_conforms};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Outcome { tokio::time::pause(); all_conform().await }
//! # async fn all_conform() -> Outcome {
//! framing_conforms(&greetd::framings::netstring::Netstring { largest: 1000 }, 1000)?;
//! handler_conforms(Arc::new(greetd::reply_fn(|message| message.to_ascii_uppercase()))).await
//! # }
//! ```

mod conversation;
pub mod framing;
mod handler;
mod layer;
mod scripted;
#[cfg(test)]
mod tests;
pub mod text;
mod transport;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

pub use framing::framing_conforms;
pub use handler::{handler_conforms, handler_conforms_at};
pub use layer::layer_conforms;
pub use scripted::{ScriptedAcceptor, ScriptedTransport};
pub use transport::transport_conforms;

/// How a check ended.
pub type Outcome = Result<(), Failure>;

/// What does not conform, as a sentence.
///
/// Its `Debug` is the sentence too: that is what a test shows that returns an [`Outcome`].
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// That sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Failure(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Fails with the sentence unless the condition holds.
fn check(holds: bool, sentence: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure(sentence())) }
}

/// Names the step at which it failed.
fn step(name: &str, outcome: Outcome) -> Outcome {
    outcome.map_err(|failure| Failure(format!("{name}: {failure}")))
}

/// A panic is a failure like any other.
async fn guarded<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|_| Failure::new("it panics"))
}

/// Bytes as a failure shows them.
fn in_short(bytes: &[u8]) -> String {
    format!("{:?}", crate::escape::Escaped::new(bytes))
}
