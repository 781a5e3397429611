//! TCP: a stream of bytes between two addresses; RFC 9293, tcp(7).
//!
//! An accepted connection costs one system call for the accept and one to be watched; its options are inherited
//! from the listening socket, and its own address is asked for only where the listener has several.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::io::Errno;
use socket2::{SockRef, Socket, Type};

use super::socket::{self, Bound, FailedStep, SocketAcceptor, SocketOptions, links, names};
use crate::endpoint::Endpoint;
use crate::link::Capabilities;
use crate::options::OptionDoc;
use crate::transport::{Attempt, BindError, ConnectError, Dialled, Listener, Transport};

/// The options that it takes.
pub const OPTIONS: &[OptionDoc] = socket::STREAM_OPTIONS;

/// The transport `tcp`.
#[derive(Debug, Clone, Default)]
pub struct Tcp {
    options: SocketOptions,
}

impl Tcp {
    /// TCP with these socket options.
    pub fn new(options: SocketOptions) -> Self {
        Tcp { options }
    }
}

#[async_trait]
impl Transport for Tcp {
    fn capabilities(&self) -> Capabilities {
        Capabilities::BYTES
    }

    fn closing_tells(&self) -> bool {
        true
    }

    fn tells_of_more(&self) -> bool {
        true
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let bound = self.options.bind(at, Type::STREAM).await?;
        let acceptor = self.listen(bound).map_err(|step| step.on_bind(at))?;
        Ok(Listener::Connections(Box::new(acceptor)))
    }

    /// Tries each address that the endpoint stands for, in order, until one answers.
    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let mut attempts = Vec::new();
        for remote in self.options.remotes(to).await? {
            match self.dial(remote).await {
                Ok(dialled) => return Ok(dialled),
                Err(FailedStep { call, source }) => attempts.push(Attempt { call, error: source }),
            }
        }
        Err(ConnectError { endpoint: to.brief(), attempts })
    }
}

impl Tcp {
    fn nodelay(&self) -> bool {
        self.options.nodelay.unwrap_or(true)
    }

    fn listen(&self, bound: Bound) -> Result<SocketAcceptor, FailedStep> {
        let Bound { socket, inherited } = bound;
        if !inherited {
            self.set_nodelay(&socket)?;
            socket::listen(&socket, self.options.backlog)?;
        }
        let set_nodelay = self.nodelay_of_accepted(&socket)?;
        let bound_to = names::local(&socket).map_err(|error| FailedStep::new("getsockname", error))?;
        // What another process made may be open to more than it says (IP_TRANSPARENT; ip(7)).
        let is_specific = !inherited && bound_to.canonical_ip().is_some_and(|ip| !ip.is_unspecified());
        let known_local = is_specific.then(|| Arc::new(bound_to));
        let last_local = names::LastLocal::default();
        let open = move |socket: OwnedFd, remote| {
            if let Some(nodelay) = set_nodelay {
                SockRef::from(&socket).set_tcp_nodelay(nodelay)?;
            }
            let local = known_local.clone().map_or_else(|| last_local.of(&socket), Ok)?;
            Ok(Dialled::new(links::bytes(socket)?, local, remote))
        };
        SocketAcceptor::new(socket, open)
    }

    /// What must be set on each accepted socket. It has the options of the one that listens, which are not ours to set
    /// where that one was inherited.
    fn nodelay_of_accepted(&self, listening: &Socket) -> Result<Option<bool>, FailedStep> {
        let there = listening.tcp_nodelay().map_err(|error| FailedStep::new("getsockopt(TCP_NODELAY)", error))?;
        Ok(Some(self.nodelay()).filter(|wanted| *wanted != there))
    }

    async fn dial(&self, remote: SocketAddr) -> Result<Dialled, FailedStep> {
        let socket = self.options.unconnected(remote, Type::STREAM)?;
        self.set_nodelay(&socket)?;
        let called = async {
            let dialled = links::call(socket.into(), remote).await?;
            if *dialled.local == dialled.remote {
                // With nobody listening, the kernel may choose the very port that is called for the caller, and the
                // connection meets itself (simultaneous open; RFC 9293, 3.5).
                return Err(Errno::CONNREFUSED.into());
            }
            Ok(dialled)
        };
        called.await.map_err(|error: io::Error| FailedStep::new(format!("connect({remote})"), error))
    }

    fn set_nodelay(&self, socket: &Socket) -> Result<(), FailedStep> {
        socket.set_tcp_nodelay(self.nodelay()).map_err(|error| FailedStep::new("setsockopt(TCP_NODELAY)", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use crate::transport::Acceptor;
    use crate::transports::socket::DEFAULT_BACKLOG;
    use crate::verdict::Verdict;
    use std::future::poll_fn;
    use std::os::fd::AsRawFd;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn tcp(endpoint: &str) -> (Tcp, Endpoint) {
        let mut endpoint: Endpoint = endpoint.parse().unwrap();
        let options = std::mem::take(&mut endpoint.options);
        (Tcp::new(options.read().unwrap()), endpoint)
    }

    async fn listen(endpoint: &str) -> SocketAcceptor {
        let (tcp, endpoint) = tcp(endpoint);
        let bound = tcp.options.bind(&endpoint, Type::STREAM).await.unwrap();
        tcp.listen(bound).unwrap()
    }

    async fn accept(acceptor: &mut impl Acceptor) -> Dialled {
        poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap().unwrap().open().await.unwrap()
    }

    fn port(acceptor: &impl Acceptor) -> u16 {
        acceptor.local().ip().unwrap().port()
    }

    async fn call(endpoint: String) -> Dialled {
        let (tcp, endpoint) = tcp(&endpoint);
        tcp.connect(&endpoint).await.unwrap()
    }

    #[tokio::test]
    async fn both_ends_carry_bytes_and_see_each_other_s_address() {
        let mut acceptor = listen("tcp://127.0.0.1:0").await;
        let called = call(format!("tcp://127.0.0.1:{}", port(&acceptor))).await;
        let accepted = accept(&mut acceptor).await;
        assert_eq!((&*called.local, &called.remote), (&accepted.remote, &*accepted.local));
        let (Link::Bytes(mut client), Link::Bytes(mut server)) = (called.link, accepted.link) else { panic!() };
        server.write_all(b"welcome").await.unwrap();
        server.shutdown().await.unwrap();
        let mut greeting = Vec::new();
        client.read_to_end(&mut greeting).await.unwrap();
        assert_eq!(greeting, b"welcome");
        // The other direction is still open.
        client.write_all(b"bye").await.unwrap();
        let mut answer = [0; 3];
        server.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"bye");
    }

    #[tokio::test]
    async fn a_bare_port_answers_both_families_and_tells_the_address_that_was_called() {
        let mut acceptor = listen("tcp://0").await;
        for (ip, seen) in [("[::1]", "[::1]"), ("127.0.0.1", "[::ffff:127.0.0.1]")] {
            let port = port(&acceptor);
            let _client = call(format!("tcp://{ip}:{port}")).await;
            assert_eq!(accept(&mut acceptor).await.local.to_string(), format!("{seen}:{port}"));
        }
    }

    #[tokio::test]
    async fn every_ipv4_address_of_an_ipv6_socket_is_told_as_well() {
        let mut acceptor = listen("tcp://[::ffff:0.0.0.0]:0").await;
        let port = port(&acceptor);
        let _client = call(format!("tcp://127.0.0.2:{port}")).await;
        assert_eq!(accept(&mut acceptor).await.local.to_string(), format!("[::ffff:127.0.0.2]:{port}"));
    }

    #[tokio::test]
    async fn v6_only_leaves_ipv4_out() {
        let acceptor = listen("tcp://[::]:0?v6-only").await;
        let (client, endpoint) = tcp(&format!("tcp://127.0.0.1:{}", port(&acceptor)));
        let error = client.connect(&endpoint).await.err().unwrap();
        assert_eq!(Verdict::of_connect(error.decisive().unwrap()), Verdict::Refused);
    }

    #[tokio::test]
    async fn a_call_names_every_address_that_it_tried() {
        // Bound and not listening: calls are refused, and nobody else gets the port.
        let (tcp_only, anywhere) = tcp("tcp://0");
        let reserved = tcp_only.options.bind(&anywhere, Type::STREAM).await.unwrap().socket;
        let free = reserved.local_addr().unwrap().as_socket().unwrap().port();
        let (client, endpoint) = tcp(&format!("tcp://{free}"));
        let error = client.connect(&endpoint).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to connect to tcp://:{free}: connect([::1]:{free}): Connection refused (ECONNREFUSED); \
                 connect(127.0.0.1:{free}): Connection refused (ECONNREFUSED)"
            )
        );
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_in_use() {
        let acceptor = listen("tcp://127.0.0.1:0").await;
        let (second, endpoint) = tcp(&format!("tcp://{}", acceptor.local()));
        let error = second.bind(&endpoint).await.err().unwrap();
        assert_eq!(Verdict::of_bind(&error.source), Verdict::InUse);
        assert_eq!(error.call, format!("bind({})", acceptor.local()));
    }

    #[tokio::test]
    async fn accepted_sockets_inherit_nodelay_from_the_one_that_listens() {
        for (endpoint, expected) in [("tcp://127.0.0.1:0", true), ("tcp://127.0.0.1:0?nodelay=no", false)] {
            let (tcp, endpoint) = tcp(endpoint);
            let bound = tcp.options.bind(&endpoint, Type::STREAM).await.unwrap();
            let listening = bound.socket.try_clone().unwrap();
            let acceptor = tcp.listen(bound).unwrap();
            let _client = std::net::TcpStream::connect(acceptor.local().ip().unwrap()).unwrap();
            listening.set_nonblocking(false).unwrap();
            let (accepted, _) = listening.accept().unwrap();
            assert_eq!(accepted.tcp_nodelay().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn connections_of_an_inherited_socket_have_nodelay_set_and_the_socket_has_not() {
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (tcp, endpoint) = tcp(&format!("tcp://fd:{}", inherited.as_raw_fd()));
        let bound = tcp.options.bind(&endpoint, Type::STREAM).await.unwrap();
        assert_eq!(tcp.nodelay_of_accepted(&bound.socket).unwrap(), Some(true));
        let mut acceptor = tcp.listen(bound).unwrap();
        let client = std::net::TcpStream::connect(inherited.local_addr().unwrap()).unwrap();
        let accepted = accept(&mut acceptor).await;
        assert_eq!(accepted.remote, client.local_addr().unwrap().into());
        assert_eq!(*accepted.local, inherited.local_addr().unwrap().into());
        assert!(!SockRef::from(&inherited).tcp_nodelay().unwrap());
    }

    #[cfg(feature = "cli")]
    #[tokio::test]
    async fn the_backlog_is_what_was_asked_for() {
        use crate::machine::sockets::{Protocol, State, sockets};
        for (query, expected) in [("backlog=5", 5), ("backlog=0", 0), ("", DEFAULT_BACKLOG)] {
            let acceptor = listen(&format!("tcp://127.0.0.1:0?{query}")).await;
            let rows = sockets(Protocol::Tcp, port(&acceptor)).unwrap();
            let row = rows.iter().find(|row| row.state == State::Listening).unwrap();
            let clamped = expected.min(socket::somaxconn().unwrap());
            assert_eq!(row.backlog.unwrap().limit, clamped, "{query}");
        }
    }
}
