//! Unix stream sockets: a stream of bytes between two processes of one machine; unix(7).
//!
//! The endpoint is a path or an abstract name. A path's file has mode 0600 from its birth, replaces a stale one and
//! goes with the listener; see [`SocketFile`](super::socket::SocketFile). Who called is known to the session as the
//! facts `unix.pid`, `unix.uid` and `unix.gid`.

use async_trait::async_trait;
use socket2::Type;

use super::socket::links;
use super::socket::unix::{self, UnixOptions};
use crate::endpoint::Endpoint;
use crate::link::Capabilities;
use crate::options::OptionDoc;
use crate::transport::{BindError, ConnectError, Dialled, Listener, Transport};

/// The options that it takes.
pub const OPTIONS: &[OptionDoc] = unix::UNIX_OPTIONS;

/// The transport `unix`.
#[derive(Debug, Clone, Default)]
pub struct Unix {
    options: UnixOptions,
}

impl Unix {
    /// Unix streams with these options.
    pub fn new(options: UnixOptions) -> Self {
        Unix { options }
    }
}

#[async_trait]
impl Transport for Unix {
    fn capabilities(&self) -> Capabilities {
        Capabilities::BYTES
    }

    fn closing_tells(&self) -> bool {
        true
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        self.options.accept(at, Type::STREAM, links::unix).await
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        self.options.call(to, Type::STREAM, links::unix).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use std::future::poll_fn;
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_ends_carry_bytes_and_know_each_other_s_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let endpoint: Endpoint = format!("unix://{}", path.display()).parse().unwrap();
        let Ok(Listener::Connections(mut acceptor)) = Unix::default().bind(&endpoint).await else { panic!() };
        assert_eq!(acceptor.local().to_string(), path.display().to_string());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let called = Unix::default().connect(&endpoint).await.unwrap();
        let accepted = poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap().unwrap().open().await.unwrap();
        assert_eq!(called.remote, acceptor.local());
        assert_eq!(*accepted.local, acceptor.local());
        let us = ("unix.pid", std::process::id().to_string());
        assert!(called.facts.contains(&us) && accepted.facts.contains(&us));

        let (Link::Bytes(mut client), Link::Bytes(mut server)) = (called.link, accepted.link) else { panic!() };
        client.write_all(b"Genji").await.unwrap();
        client.shutdown().await.unwrap();
        let mut name = String::new();
        server.read_to_string(&mut name).await.unwrap();
        server.write_all(format!("Hello {name}").as_bytes()).await.unwrap();
        drop(server);
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert_eq!(reply, "Hello Genji");

        drop(acceptor);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_send_buffer_of_an_accepted_connection_is_what_was_asked_for() {
        let name = format!("unix://@greetd-test-{}-send-buffer", std::process::id());
        let endpoint: Endpoint = name.parse().unwrap();
        let options = UnixOptions { send_buffer: Some("16KiB".parse().unwrap()), ..UnixOptions::default() };
        let Ok(Listener::Connections(mut acceptor)) = Unix::new(options).bind(&endpoint).await else { panic!() };
        let _unread = Unix::default().connect(&endpoint).await.unwrap();
        let accepted = poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap().unwrap().open().await.unwrap();
        let Link::Bytes(mut server) = accepted.link else { panic!() };
        let room = server.write(&vec![0; 1 << 20]).await.unwrap();
        assert!(room <= 32 << 10, "{room}");
    }
}
