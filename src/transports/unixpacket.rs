//! Unix sequenced-packet sockets: messages in order between two processes of one machine; unix(7).
//!
//! The endpoint is a path or an abstract name, as for [`unix`](super::unix). No framing is needed: what is sent arrives
//! as one message.

use async_trait::async_trait;
use socket2::Type;

use super::socket::unix::{self, UnixOptions};
use super::socket::{LARGEST_PACKET, links};
use crate::endpoint::Endpoint;
use crate::link::Capabilities;
use crate::options::OptionDoc;
use crate::transport::{BindError, ConnectError, Dialled, Listener, Transport};

/// The options that it takes.
pub const OPTIONS: &[OptionDoc] = unix::UNIX_OPTIONS;

/// The transport `unixpacket`.
#[derive(Debug, Clone, Default)]
pub struct UnixPacket {
    options: UnixOptions,
}

impl UnixPacket {
    /// Unix sequenced packets with these options.
    pub fn new(options: UnixOptions) -> Self {
        UnixPacket { options }
    }
}

#[async_trait]
impl Transport for UnixPacket {
    fn capabilities(&self) -> Capabilities {
        Capabilities { boundaries: true, largest: Some(LARGEST_PACKET), ..Capabilities::BYTES }
    }

    fn closing_tells(&self) -> bool {
        true
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        self.options.accept(at, Type::SEQPACKET, links::packets).await
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        self.options.call(to, Type::SEQPACKET, links::packets).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use std::future::poll_fn;

    #[tokio::test]
    async fn messages_cross_an_abstract_name() {
        let name = format!("unixpacket://@greetd-test-{}-packets", std::process::id());
        let endpoint: Endpoint = name.parse().unwrap();
        let Ok(Listener::Connections(mut acceptor)) = UnixPacket::default().bind(&endpoint).await else { panic!() };
        assert_eq!(acceptor.local().to_string(), endpoint.authority.to_string());
        let called = UnixPacket::default().connect(&endpoint).await.unwrap();
        let accepted = poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap().unwrap().open().await.unwrap();
        let (Link::Messages(mut client), Link::Messages(mut server)) = (called.link, accepted.link) else { panic!() };
        for message in [&b"one"[..], b"", b"two"] {
            client.start_send(&[message]).unwrap();
        }
        poll_fn(|cx| client.poll_finish(cx)).await.unwrap();
        for expected in [Some("one"), Some(""), Some("two"), None] {
            let received = poll_fn(|cx| server.poll_recv(cx)).await.unwrap();
            assert_eq!(received.as_deref(), expected.map(str::as_bytes));
        }
    }

    #[tokio::test]
    async fn a_socket_of_another_type_is_not_called() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let _stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let endpoint: Endpoint = format!("unixpacket://{}", path.display()).parse().unwrap();
        let error = UnixPacket::default().connect(&endpoint).await.err().unwrap().to_string();
        assert!(error.ends_with("Protocol wrong type for socket (EPROTOTYPE)"), "{error}");
    }
}
