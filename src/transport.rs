//! A [`Transport`] moves messages: it binds a [`Listener`] or connects a [`Link`].
//!
//! # Life cycle
//! 1. The registry makes a transport from an endpoint's options; nothing is opened yet.
//! 2. [`Transport::bind`] opens the listening socket with every option set before it, [`Transport::connect`] dials.
//! 3. A listener yields conversations ([`Acceptor`]) or datagrams ([`DatagramSocket`]) until it is dropped.
//!
//! # Two steps to a connection
//! [`Acceptor::poll_accept`] never waits for the peer: it yields an [`Incoming`], which the engine finishes with
//! [`Incoming::open`] in the session's own turns, under its clock and holding its permit. A slow handshake therefore
//! delays nobody else.
//!
//! # Writing one
//! `examples/transport.rs` is a complete one; [`testing::transport_conforms`](crate::testing::transport_conforms)
//! checks it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::named;
use crate::link::{Capabilities, Link};

/// A way to carry messages.
#[async_trait]
pub trait Transport: Send + Sync {
    /// What it can do; asked before anything is bound.
    fn capabilities(&self) -> Capabilities;

    /// Whether dropping an accepted link tells the peer that no more will come, so that a peer which has ended need not be
    /// told before. A socket that another process may hold as well does not do that, nor does a stream with a farewell of
    /// its own.
    fn closing_tells(&self) -> bool {
        false
    }

    /// Whether the streams of bytes that it accepts tell by themselves that there is more: a read that does not fill its buffer
    /// took all there was, and the task that called `poll_read` is woken whenever something comes afterwards, or the end, though it
    /// has not asked again. Then nobody asks in vain.
    fn tells_of_more(&self) -> bool {
        false
    }

    /// Opens the endpoint to be called.
    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError>;

    /// Calls the endpoint.
    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError>;
}

/// What a bind yields.
pub enum Listener {
    /// Conversations, each with a link of its own.
    Connections(Box<dyn Acceptor>),
    /// Datagrams from anybody on one socket.
    Datagrams(Box<dyn DatagramSocket>),
}

impl Listener {
    /// The address that the kernel gave: with the port that it chose where 0 was asked for.
    pub fn local(&self) -> Address {
        match self {
            Listener::Connections(acceptor) => acceptor.local(),
            Listener::Datagrams(socket) => socket.local(),
        }
    }
}

/// What a call yields: the link and its two ends.
pub struct Dialled {
    /// The link.
    pub link: Link,
    /// This end. Conversations that have it in common share it.
    pub local: Arc<Address>,
    /// The other end.
    pub remote: Address,
    /// What else the transport knows of the peer; becomes [`Peer::facts`](crate::Peer::facts).
    pub facts: Vec<(&'static str, String)>,
}

impl Dialled {
    /// A link of whose ends nothing but the addresses is known.
    pub fn new(link: Link, local: impl Into<Arc<Address>>, remote: Address) -> Self {
        Dialled { link, local: local.into(), remote, facts: Vec::new() }
    }
}

/// Yields the conversations that peers begin.
pub trait Acceptor: Send {
    /// The address that it listens on.
    fn local(&self) -> Address;

    /// The next conversation, `None` when no more can come (a single inherited connection, a closed memory listener).
    /// Cancel-safe, and never waits for a peer. An error is classified by its errno: see the server's accept loop.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>>;
}

/// A conversation that was accepted and is not yet open. Dropping it closes it.
pub trait Incoming: Send {
    /// Who calls, as far as it is known before opening: limits are held against it.
    fn remote(&self) -> &Address;

    /// Makes the link, in the session's own turns.
    fn open(self: Box<Self>) -> Opening;
}

/// How a conversation is opened.
pub enum Opening {
    /// At once, as most are: then nothing is made to be waited for.
    Done(io::Result<Dialled>),
    /// When its peer has done its part.
    Later(Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>),
}

impl From<io::Result<Dialled>> for Opening {
    fn from(opened: io::Result<Dialled>) -> Self {
        Opening::Done(opened)
    }
}

/// Waits for it, where there is something to be waited for.
impl IntoFuture for Opening {
    type Output = io::Result<Dialled>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        match self {
            Opening::Done(opened) => Box::pin(std::future::ready(opened)),
            Opening::Later(opening) => opening,
        }
    }
}

/// One or more datagrams of the same size from the same peer, which came in a row: whatever has to be found out about
/// a peer is found out once for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagrams {
    /// The datagrams, one after another.
    pub payload: Bytes,
    /// The size of each of them in bytes; the last may be shorter. Never 0: an empty payload is one empty datagram.
    pub segment: usize,
    /// Who sent them.
    pub remote: Address,
    /// To which address they were sent: a reply leaves from there.
    pub local: Address,
    /// Whether the end of each is missing. Such a datagram is counted and never handed to a handler.
    pub truncated: bool,
}

impl Datagrams {
    /// A single one, which is whole.
    pub fn one(payload: Bytes, remote: Address, local: Address) -> Self {
        let segment = payload.len().max(1);
        Datagrams { payload, segment, remote, local, truncated: false }
    }

    /// What each of them carries.
    pub fn payloads(&self) -> impl Iterator<Item = Bytes> {
        let (payload, segment) = (&self.payload, self.segment.max(1));
        let count = payload.len().div_ceil(segment).max(1);
        (0..count).map(move |number| payload.slice(number * segment..payload.len().min((number + 1) * segment)))
    }

    /// Takes the first of several away; none where it is one alone.
    pub fn split_first(&mut self) -> Option<Datagrams> {
        let segment = self.segment.max(1);
        (self.payload.len() > segment).then(|| Datagrams { payload: self.payload.split_to(segment), ..self.clone() })
    }
}

/// One or more datagrams of the same size to the same peer.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// To whom.
    pub remote: &'a Address,
    /// From which of our addresses: the one that was asked.
    pub local: &'a Address,
    /// The datagrams, one after another.
    pub payload: &'a [u8],
    /// The size of each of them in bytes; the last may be shorter. Never 0: an empty payload is one empty datagram.
    pub segment: usize,
}

/// A socket that datagrams come to and leave from, in batches.
pub trait DatagramSocket: Send {
    /// The address that it is bound to.
    fn local(&self) -> Address;

    /// How many datagrams of one size a [`Transmit`] may hold: 1 where the transport has no batches.
    fn max_segments(&self) -> usize {
        1
    }

    /// Appends what came, at least one datagram. An error never ends the socket's loop: it is counted.
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<Datagrams>) -> Poll<io::Result<()>>;

    /// Sends, and says how many bytes of the payload are gone: whole datagrams, at least one. An error is about the
    /// first datagram alone, which is lost. Waits only for room in this socket's own buffer; a peer that has no room
    /// is an error of kind `WouldBlock`.
    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>>;
}

/// Why an endpoint could not be bound: the system call that failed, and what it said.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind {endpoint}: {call}: {}", named(.source))]
pub struct BindError {
    /// The endpoint at fault, without its options.
    pub endpoint: String,
    /// The step that failed, for example `bind(127.0.0.1:8080)` or `setsockopt(SO_BINDTODEVICE)`.
    pub call: String,
    /// What it said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// A failure of a named step.
    pub fn new(at: &Endpoint, call: impl Into<String>, source: io::Error) -> Self {
        BindError { endpoint: at.brief(), call: call.into(), source }
    }

    /// An endpoint that this transport cannot take at all, in words.
    pub fn unsuitable(at: &Endpoint, reason: impl Into<String>) -> Self {
        BindError::new(at, "address", io::Error::new(io::ErrorKind::InvalidInput, reason.into()))
    }

    /// The IP address that the failed step names, as the `127.0.0.1:8080` of `bind(127.0.0.1:8080)`.
    pub fn ip(&self) -> Option<SocketAddr> {
        named_ip(&self.call)
    }
}

/// Why an endpoint could not be called: every address that was tried, and what each said.
#[derive(Debug, thiserror::Error)]
#[error("failed to connect to {endpoint}: {}", describe(.attempts))]
pub struct ConnectError {
    /// The endpoint at fault, without its options.
    pub endpoint: String,
    /// What was tried, in order; never empty.
    pub attempts: Vec<Attempt>,
}

/// One address that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// The step that failed, for example `connect([::1]:8080)` or `resolve(example.org)`.
    pub call: String,
    /// What it said.
    pub error: io::Error,
}

impl Attempt {
    /// The IP address that the failed step names, as the `[::1]:8080` of `connect([::1]:8080)`.
    pub fn ip(&self) -> Option<SocketAddr> {
        named_ip(&self.call)
    }
}

impl ConnectError {
    /// A failure of a single step.
    pub fn new(to: &Endpoint, call: impl Into<String>, error: io::Error) -> Self {
        ConnectError { endpoint: to.brief(), attempts: vec![Attempt { call: call.into(), error }] }
    }

    /// An endpoint that this transport cannot take at all, in words.
    pub fn unsuitable(to: &Endpoint, reason: impl Into<String>) -> Self {
        ConnectError::new(to, "address", io::Error::new(io::ErrorKind::InvalidInput, reason.into()))
    }

    /// The error that decides: the last one.
    pub fn decisive(&self) -> Option<&io::Error> {
        self.attempts.last().map(|attempt| &attempt.error)
    }
}

fn named_ip(call: &str) -> Option<SocketAddr> {
    let (_, argument) = call.strip_suffix(')')?.split_once('(')?;
    argument.parse().ok()
}

fn describe(attempts: &[Attempt]) -> String {
    let each: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.call, named(&attempt.error))).collect();
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_where_and_why() {
        let at: Endpoint = "tcp://localhost:80?backlog=5".parse().unwrap();
        let refused = io::Error::from_raw_os_error(nix::errno::Errno::EADDRINUSE as i32);
        let error = BindError::new(&at, "bind([::1]:80)", refused);
        assert_eq!(
            error.to_string(),
            "failed to bind tcp://localhost:80: bind([::1]:80): Address already in use (EADDRINUSE)"
        );
        assert_eq!(error.ip(), "[::1]:80".parse().ok());
    }

    #[test]
    fn datagrams_that_came_together_come_apart_one_by_one() {
        for (payload, segment, expected) in [
            ("", 1, vec![""]),
            ("ab", 2, vec!["ab"]),
            ("abcd", 2, vec!["ab", "cd"]),
            ("abcde", 2, vec!["ab", "cd", "e"]),
        ] {
            let mut datagrams =
                Datagrams { segment, ..Datagrams::one(payload.into(), Address::Unnamed, Address::Unnamed) };
            assert!(datagrams.payloads().eq(expected.iter()), "{payload} by {segment}");
            let mut apart = Vec::new();
            while let Some(first) = datagrams.split_first() {
                apart.push(first.payload);
            }
            apart.push(datagrams.payload);
            assert_eq!(apart, expected, "{payload} by {segment}");
        }
    }

    #[test]
    fn a_step_that_names_no_ip_address_has_none() {
        for call in ["address", "setsockopt(SO_BINDTODEVICE, lo)", "bind(/run/x.sock)", "resolve(x)", "bind("] {
            assert_eq!(named_ip(call), None, "{call}");
        }
    }
}
