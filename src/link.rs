//! A [`Link`] is one open conversation's way to carry bytes or messages, before any framing.
//!
//! Both kinds are poll-based trait objects, so that a message costs a virtual call and no allocation. A transport
//! hands one out, layers wrap it, and the session reads and writes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::address::Address;
use crate::error::Result;

/// A stream of bytes without boundaries, such as a TCP connection. `poll_shutdown` half-closes it.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A stream that keeps the boundaries of its messages, such as a WebSocket or a sequenced-packet socket.
///
/// Sending is in two steps, so that many messages leave in one write: [`start_send`](Self::start_send) takes a
/// message and waits for nothing, [`poll_flush`](Self::poll_flush) writes what was taken. Whoever sends looks at
/// [`buffered`](Self::buffered) first and flushes while it is above the watermark.
pub trait MessageStream: Send {
    /// The next message; `None` when the peer will send no more. Cancel-safe: nothing is lost when it is polled again
    /// later.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>>;

    /// Takes one message, given in parts, into the buffer. What is more than the link carries is an
    /// [`Error::TooLong`](crate::Error::TooLong); nothing is taken then, and the stream goes on.
    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()>;

    /// How many bytes were taken and are not yet written.
    fn buffered(&self) -> usize;

    /// Writes what was taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Writes what was taken, then tells the peer that no more will come, where the link can say that.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// How many bytes may be sent in answer to the last message, where its sender may be somebody else than it claims.
    /// What is longer is not sent.
    fn reply_limit(&self) -> Option<usize> {
        None
    }
}

/// What a transport or a layer hands on.
pub enum Link {
    /// Bytes, which need a framing to become messages.
    Bytes(Box<dyn ByteStream>),
    /// Messages as they are.
    Messages(Box<dyn MessageStream>),
}

/// A link with what is known of its other end.
pub struct Opened {
    /// The link.
    pub link: Link,
    /// Both ends.
    pub peer: Peer,
}

/// Who is at the other end, as this side saw it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Mostly the same for all sessions of a listener.
    local: Arc<Address>,
    /// The address on the other side.
    pub remote: Address,
    /// By what way the conversation came; shared by all sessions of a listener.
    pub route: Arc<Route>,
    facts: Option<Box<Facts>>,
}

type Facts = BTreeMap<&'static str, String>;

/// The way that a conversation takes: the same for all sessions of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Layers and transport, the outermost first, as in an endpoint: `ws+tls+tcp`.
    pub scheme: String,
    /// The framing's name, where bytes are framed.
    pub framing: Option<String>,
    /// What the transport with its layers can do.
    pub capabilities: Capabilities,
    /// Whether a message arrives as it was sent: the transport keeps boundaries, or the framing does.
    pub keeps_messages: bool,
}

impl Peer {
    /// A peer of whom nothing but the addresses is known.
    pub fn new(local: impl Into<Arc<Address>>, remote: Address, route: Arc<Route>) -> Self {
        Peer { local: local.into(), remote, route, facts: None }
    }

    /// The address on this side: for a datagram the one that it was sent to.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// As [`local`](Self::local), to be kept.
    pub(crate) fn shared_local(&self) -> &Arc<Address> {
        &self.local
    }

    /// Whoever sent the last datagram, and where to.
    pub(crate) fn set_ends(&mut self, local: Address, remote: Address) {
        self.remote = remote;
        if *self.local == local {
            return;
        }
        match Arc::get_mut(&mut self.local) {
            Some(place) => *place = local,
            None => self.local = local.into(),
        }
    }

    /// Whether there is a connection, with a beginning and an end, rather than single datagrams.
    pub fn connected(&self) -> bool {
        self.route.capabilities.connected
    }

    /// What the transport and the layers learned: the process of a Unix peer, the TLS version, the name asked for, the
    /// address that a proxy claims.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.facts.iter().flat_map(|facts| facts.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// Leaves a fact; for transports and layers.
    pub fn add_fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.get_or_insert_default().insert(name, value.into());
    }
}

/// What a transport, with the layers in front of it, can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent properties, each documented")]
pub struct Capabilities {
    /// A conversation has a beginning and an end that both sides see.
    pub connected: bool,
    /// What is sent arrives, or the sender hears of it.
    pub reliable: bool,
    /// What arrives, arrives in the order in which it was sent.
    pub ordered: bool,
    /// A message arrives as it was sent, neither split nor joined with its neighbours.
    pub boundaries: bool,
    /// One side can say that it will send no more and still receive.
    pub half_close: bool,
    /// The size in bytes of the largest message, where the transport has one.
    pub largest: Option<usize>,
}

impl Capabilities {
    /// A connected stream of bytes, such as TCP.
    pub const BYTES: Capabilities = Capabilities {
        connected: true,
        reliable: true,
        ordered: true,
        boundaries: false,
        half_close: true,
        largest: None,
    };

    /// Single datagrams, such as UDP.
    pub const DATAGRAMS: Capabilities = Capabilities {
        connected: false,
        reliable: false,
        ordered: false,
        boundaries: true,
        half_close: false,
        largest: Some(65_507),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_kept_by_name_and_cost_nothing_when_there_are_none() {
        let route =
            Route { scheme: "tcp".into(), framing: None, capabilities: Capabilities::BYTES, keeps_messages: false };
        let mut peer = Peer::new(Address::Unnamed, Address::Unnamed, Arc::new(route));
        assert_eq!(peer.facts().count(), 0);
        peer.add_fact("tls.version", "1.3");
        assert_eq!(peer.facts().collect::<Vec<_>>(), [("tls.version", "1.3")]);
    }
}
