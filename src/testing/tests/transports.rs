//! Transports that claim what they are not, or behave otherwise.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::link::{ByteStream, Capabilities, Link};
use crate::testing::transport_conforms;
use crate::transport::{BindError, ConnectError, Dialled, Listener, Transport};
use crate::transports::memory::{Memory, Network};

fn memory(endpoint: &str) -> (Memory, Endpoint) {
    let mut endpoint: Endpoint = endpoint.parse().unwrap();
    let options = std::mem::take(&mut endpoint.options);
    (Memory::new(Network::new(), options).unwrap(), endpoint)
}

/// The memory transport, changed in what it claims and in the links that it calls with.
struct Changed {
    sound: Memory,
    claims: fn(&mut Capabilities),
    called: fn(&mut Dialled),
}

#[async_trait]
impl Transport for Changed {
    fn capabilities(&self) -> Capabilities {
        let mut claimed = self.sound.capabilities();
        (self.claims)(&mut claimed);
        claimed
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        self.sound.bind(at).await
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let mut dialled = self.sound.connect(to).await?;
        (self.called)(&mut dialled);
        Ok(dialled)
    }
}

async fn failure_of(endpoint: &str, claims: fn(&mut Capabilities), called: fn(&mut Dialled)) -> String {
    let (sound, endpoint) = memory(endpoint);
    let failure = transport_conforms(&Changed { sound, claims, called }, &endpoint).await;
    failure.expect_err("the fault is not seen").to_string()
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_the_memory_transport_conforms() {
    for kind in ["stream", "messages", "datagrams", "stream&split=0.5&coalesce=0.5&jitter=9ms", "datagrams&drop=0.3"] {
        let (memory, endpoint) = memory(&format!("memory://?kind={kind}"));
        assert_eq!(transport_conforms(&memory, &endpoint).await, Ok(()), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_claims_what_it_is_not_is_found_out() {
    for (kind, claims, expected) in [
        (
            "stream",
            (|claimed| claimed.connected = false) as fn(&mut Capabilities),
            "it claims no connections, and binds to an acceptor of them",
        ),
        ("datagrams", |claimed| claimed.connected = true, "it claims connections, and binds to datagrams"),
        ("stream", |claimed| claimed.boundaries = true, "its link carries bytes"),
        ("messages", |claimed| claimed.boundaries = false, "its link carries messages"),
        ("messages&drop=0.1", |claimed| claimed.reliable = true, "nothing happens in 10s"),
        ("messages&duplicate=0.1", |claimed| claimed.reliable = true, "arrives as"),
        ("messages&reorder=0.1", |claimed| claimed.ordered = true, "many messages: "),
        ("messages", |claimed| claimed.largest = Some(1000), "a message of 1001 bytes, one over the largest"),
        ("datagrams", |claimed| claimed.largest = Some(70_000), "the largest datagram: sending fails"),
    ] {
        let failure = failure_of(&format!("memory://?kind={kind}"), claims, |_| {}).await;
        assert!(failure.contains(expected), "{kind}: {failure}");
    }
}

/// A stream that cannot say that it ends.
struct Endless(Box<dyn ByteStream>);

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Endless {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_behaves_otherwise_is_found_out() {
    let cannot_end: fn(&mut Dialled) = |called| {
        let Link::Bytes(sound) = std::mem::replace(&mut called.link, Link::Bytes(Box::new(tokio::io::empty()))) else {
            return;
        };
        called.link = Link::Bytes(Box::new(Endless(sound)));
    };
    for (endpoint, called, expected) in [
        ("memory://", cannot_end, "half-close by the caller: the end of the link: nothing happens in 10s"),
        ("memory://", |called| called.local = Address::Unnamed.into(), "to the accepted, the caller is said to be"),
        ("memory://", |called| called.remote = Address::Unnamed, "to the caller, the listener is said to be"),
        ("memory://?buffer=1GiB", |_| {}, "bytes that nobody reads, and goes on taking"),
        ("memory://?kind=datagrams&drop=1", |_| {}, "of 20 requests of 10 bytes 0 arrive"),
    ] {
        let failure = failure_of(endpoint, |_| {}, called).await;
        assert!(failure.contains(expected), "{endpoint}: {failure}");
    }
}
