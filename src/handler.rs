//! A [`Handler`] holds the logic: one asynchronous function that reads as the conversation runs.
//!
//! # Life cycle
//! 1. A conversation opens; the engine makes a [`Session`] and calls [`Handler::serve`].
//! 2. The handler receives and sends until [`Session::recv`] gives `None`: the peer will send no more, the idle clock
//!    ran out, or the server drains. It may still send, then returns.
//! 3. What it sent is flushed and the conversation closed. An error or a panic ends this session alone.
//!
//! A session may also be cut (a clock, the drain's deadline, an eviction): the future is then dropped where it waits,
//! so what must happen at the end belongs into a `Drop`.

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;

use crate::error::Result;
use crate::session::Session;

/// The logic behind a service. One handler serves many sessions at once.
#[async_trait]
pub trait Handler: Send + Sync {
    /// One conversation, from its first message to its last.
    async fn serve(&self, session: &mut Session) -> Result<()>;

    /// Whether each peer has a session of its own, or one session answers them all (datagrams only).
    fn sessions(&self) -> Sessions {
        Sessions::PerPeer
    }

    /// What it needs of a transport; checked before anything is bound.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// How peers map to sessions on a datagram socket. Connections always have a session each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sessions {
    /// One session for each peer: a handler that keeps state. The table is bounded, and idle peers expire.
    #[default]
    PerPeer,
    /// One session for the socket: `recv` gives each datagram in turn, `send` answers whoever spoke last. No table,
    /// nothing to exhaust. A session that returns or panics is begun anew.
    Shared,
}

/// What a handler needs of a transport, and what the engine must know of its manners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent properties, each documented")]
pub struct Needs {
    /// It works on connections only.
    pub connected: bool,
    /// It cannot bear a lost message.
    pub reliable: bool,
    /// It cannot bear messages out of order.
    pub ordered: bool,
    /// It needs messages as they were sent, which a transport of bytes gives only under a framing other than `raw`.
    pub boundaries: bool,
    /// It answers whoever asks. On datagrams such a service can be turned against others by forged sources, so the
    /// rules for responders hold: no answers to suspicious sources, a rate limit, no amplification.
    pub responder: bool,
}

/// What an endpoint offers, for [`Needs::missing`].
impl Needs {
    /// The first need that the capabilities do not meet, in words.
    pub fn missing(&self, offered: crate::link::Capabilities, framed: bool) -> Option<&'static str> {
        [
            (self.connected && !offered.connected, "a connection"),
            (self.reliable && !offered.reliable, "a transport that loses nothing"),
            (self.ordered && !offered.ordered, "a transport that keeps the order"),
            (self.boundaries && !offered.boundaries && !framed, "message boundaries"),
        ]
        .into_iter()
        .find_map(|(missing, what)| missing.then_some(what))
    }
}

/// The future of one conversation, as [`handler_fn`] closures return it.
pub type Conversation<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A handler from a closure that answers one message with one message.
///
/// ```
/// let shout = greetd::reply_fn(|message| message.to_ascii_uppercase());
/// # fn takes(_: impl greetd::Handler) {}
/// # takes(shout);
/// ```
pub fn reply_fn<F, R>(reply: F) -> impl Handler
where
    F: Fn(&[u8]) -> R + Send + Sync,
    R: AsRef<[u8]> + Send,
{
    ReplyFn(reply)
}

/// A handler from a closure that leads the whole conversation.
///
/// ```
/// let twice = greetd::handler_fn(|session| Box::pin(async move {
///     while let Some(message) = session.recv().await? {
///         session.send_parts(&[&message, &message]).await?;
///     }
///     Ok(())
/// }));
/// # fn takes(_: impl greetd::Handler) {}
/// # takes(twice);
/// ```
pub fn handler_fn<F>(serve: F) -> impl Handler
where
    F: for<'a> Fn(&'a mut Session) -> Conversation<'a> + Send + Sync,
{
    HandlerFn(serve)
}

struct ReplyFn<F>(F);

#[async_trait]
impl<F, R> Handler for ReplyFn<F>
where
    F: Fn(&[u8]) -> R + Send + Sync,
    R: AsRef<[u8]> + Send,
{
    async fn serve(&self, session: &mut Session) -> Result<()> {
        session.answer(|exchange| exchange.reply(&[(self.0)(exchange.message()).as_ref()])).await
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

struct HandlerFn<F>(F);

impl<F> Handler for HandlerFn<F>
where
    F: for<'a> Fn(&'a mut Session) -> Conversation<'a> + Send + Sync,
{
    // Written out: what the closure returns is boxed already, and is the conversation as it is.
    fn serve<'handler, 'session, 'conversation>(
        &'handler self,
        session: &'session mut Session,
    ) -> Conversation<'conversation>
    where
        'handler: 'conversation,
        'session: 'conversation,
        Self: 'conversation,
    {
        (self.0)(session)
    }
}
