//! Standard input and output: one conversation with whoever started this process, or whatever inetd(8) left there.
//!
//! - Pipes, a terminal, files: one conversation.
//! - A connected socket (inetd's `nowait`): one conversation, with its real addresses.
//! - A listening socket, or one for datagrams (inetd's `wait`): served by the transport that such sockets belong to.
//!
//! A conversation takes the descriptors for itself and leaves /dev/null in their place: nothing else that this process
//! prints can come in between, its children do not inherit it, and the peer sees its end when it ends. Where standard
//! error is that same socket, as inetd has it, it goes to /dev/null as well.

mod ends;
mod standard;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use socket2::{Domain, SockRef, Type};

use self::standard::{Pair, Standard};
use super::socket::{LARGEST_PACKET, Nature, Wanted, links, names, unix};
use crate::address::Address;
use crate::endpoint::{Authority, Endpoint};
use crate::link::{Capabilities, Link};
use crate::transport::{Acceptor, BindError, ConnectError, Dialled, Incoming, Listener, Opening, Transport};

/// The transport `stdio`.
pub struct Stdio {
    descriptors: Standard,
    owners: Vec<Owner>,
}

/// A transport that serves a kind of sockets, given to it as `fd:N`.
struct Owner {
    sockets: Wanted,
    scheme: &'static str,
    transport: Arc<dyn Transport>,
}

impl Default for Stdio {
    fn default() -> Self {
        Stdio::new()
    }
}

impl Stdio {
    /// The standard input and output of this process.
    pub fn new() -> Self {
        Stdio { descriptors: Standard::OfThisProcess, owners: Vec::new() }
    }

    /// Two other descriptors in their place.
    pub fn over(input: impl Into<OwnedFd>, output: impl Into<OwnedFd>) -> Self {
        let pair = Pair { input: input.into(), output: output.into() };
        Stdio { descriptors: Standard::Given(Some(pair).into()), owners: Vec::new() }
    }

    /// The same, with the transport that serves listening or datagram sockets of a kind, and its name.
    #[must_use]
    pub fn with(mut self, sockets: Wanted, scheme: &'static str, transport: Arc<dyn Transport>) -> Self {
        self.owners.push(Owner { sockets, scheme, transport });
        self
    }

    /// What kind of socket the input is, if it is one.
    fn nature(&self) -> Option<Nature> {
        self.descriptors.with_input(|input, _| Nature::of(&input).ok())?
    }

    fn owner(&self, nature: Nature) -> Option<&Owner> {
        self.owners.iter().find(|owner| nature.is(owner.sockets))
    }

    /// The one conversation that there is.
    fn conversation(&self) -> io::Result<Conversation> {
        let nature = self.nature();
        if let Some(nature) = nature.filter(|nature| nature.listening || nature.kind == Type::DGRAM) {
            return Err(unsuitable(format!("standard input is {nature}, over which nobody can converse here")));
        }
        let pair = self.descriptors.take()?;
        let pair = pair.ok_or_else(|| unsuitable("standard input belongs to another conversation already"))?;
        match nature {
            Some(nature) if pair.is_one()? => {
                let (local, remote) = (names::local(&pair.input)?, names::remote(&pair.input)?);
                Ok(Conversation { pair, socket: Some(nature), local, remote })
            }
            _ => Ok(Conversation { pair, socket: None, local: Address::named(""), remote: Address::Unnamed }),
        }
    }
}

fn unsuitable(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.into())
}

/// What is wrong with an address, if there is one.
fn misplaced(endpoint: &Endpoint) -> Option<String> {
    let transport = endpoint.transport();
    (endpoint.authority != Authority::Empty).then(|| format!("`{transport}` takes no address; write {transport}://"))
}

#[async_trait]
impl Transport for Stdio {
    /// Those of the socket that standard input is, if it is one.
    fn capabilities(&self) -> Capabilities {
        let Some(nature) = self.nature() else { return Capabilities::BYTES };
        match self.owner(nature) {
            Some(owner) => owner.transport.capabilities(),
            None if nature.kind == Type::SEQPACKET => {
                Capabilities { boundaries: true, largest: Some(LARGEST_PACKET), ..Capabilities::BYTES }
            }
            None => Capabilities::BYTES,
        }
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        if let Some(reason) = misplaced(at) {
            return Err(BindError::unsuitable(at, reason));
        }
        let failed = |error| BindError::new(at, "stdin", error);
        if let Some(owner) = self.nature().and_then(|nature| self.owner(nature)) {
            self.descriptors.silence().map_err(failed)?;
            let number = self.descriptors.with_input(|_, number| number).unwrap_or_default();
            let inherited = Endpoint::new(owner.scheme, Authority::Fd(number.to_string()))
                .map_err(|error| BindError::unsuitable(at, error.to_string()))?;
            let bound = owner.transport.bind(&inherited).await;
            return bound.map_err(|error| BindError { endpoint: at.brief(), ..error });
        }
        let conversation = self.conversation().map_err(failed)?;
        Ok(Listener::Connections(Box::new(Single { local: conversation.local.clone(), next: Some(conversation) })))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        if let Some(reason) = misplaced(to) {
            return Err(ConnectError::unsuitable(to, reason));
        }
        let opened = self.conversation().and_then(Conversation::into_dialled);
        opened.map_err(|error| ConnectError::new(to, "stdin", error))
    }
}

/// Gives one conversation, and then no more.
struct Single {
    local: Address,
    next: Option<Conversation>,
}

impl Acceptor for Single {
    fn local(&self) -> Address {
        self.local.clone()
    }

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        Poll::Ready(Ok(self.next.take().map(|conversation| Box::new(conversation) as Box<dyn Incoming>)))
    }
}

struct Conversation {
    pair: Pair,
    /// Set where both descriptors are one connected socket.
    socket: Option<Nature>,
    local: Address,
    remote: Address,
}

impl Conversation {
    fn into_dialled(self) -> io::Result<Dialled> {
        let Conversation { pair, socket, local, remote } = self;
        let Some(nature) = socket else {
            let stream = ends::stream(pair.input, pair.output)?;
            return Ok(Dialled::new(Link::Bytes(stream), local, remote));
        };
        SockRef::from(&pair.input).set_nonblocking(true)?;
        match (nature.domain, nature.kind) {
            (Domain::IPV4 | Domain::IPV6, Type::STREAM) => Ok(Dialled::new(links::bytes(pair.input)?, local, remote)),
            (_, Type::SEQPACKET) => unix::conversation(pair.input, links::packets, local, remote),
            _ => unix::conversation(pair.input, links::unix, local, remote),
        }
    }
}

impl Incoming for Conversation {
    fn remote(&self) -> &Address {
        &self.remote
    }

    fn open(self: Box<Self>) -> Opening {
        self.into_dialled().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transports::tcp::Tcp;
    use crate::transports::udp::Udp;
    use crate::verdict::Verdict;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn here() -> Endpoint {
        "stdio://".parse().unwrap()
    }

    fn over_socket(socket: impl Into<OwnedFd>) -> Stdio {
        let socket = socket.into();
        Stdio::over(socket.try_clone().unwrap(), socket)
            .with(Wanted::ip(Type::STREAM), "tcp", Arc::new(Tcp::default()))
            .with(Wanted::ip(Type::DGRAM), "udp", Arc::new(Udp::default()))
    }

    async fn bind(stdio: &Stdio) -> Box<dyn Acceptor> {
        match stdio.bind(&here()).await.unwrap() {
            Listener::Connections(acceptor) => acceptor,
            Listener::Datagrams(_) => panic!("datagrams"),
        }
    }

    async fn accept(acceptor: &mut dyn Acceptor) -> Option<Dialled> {
        match poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap() {
            Some(incoming) => Some(incoming.open().await.unwrap()),
            None => None,
        }
    }

    async fn greet(dialled: Dialled) {
        let Link::Bytes(mut stream) = dialled.link else { panic!("bytes are expected") };
        let mut name = String::new();
        stream.read_to_string(&mut name).await.unwrap();
        stream.write_all(format!("Hello {name}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn pipes_are_one_conversation_and_then_there_is_none() {
        let (input, mut to_server) = io::pipe().unwrap();
        let (mut from_server, output) = io::pipe().unwrap();
        let stdio = Stdio::over(input, output);
        assert_eq!(stdio.capabilities(), Capabilities::BYTES);
        let mut acceptor = bind(&stdio).await;
        assert_eq!(acceptor.local().to_string(), "");
        to_server.write_all(b"Genji").unwrap();
        drop(to_server);
        greet(accept(&mut *acceptor).await.unwrap()).await;
        let mut reply = String::new();
        from_server.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "Hello Genji");
        assert!(accept(&mut *acceptor).await.is_none());

        let error = stdio.bind(&here()).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "failed to bind stdio://: stdin: standard input belongs to another conversation already"
        );
    }

    #[tokio::test]
    async fn a_connected_socket_is_one_conversation_with_its_real_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stdio = over_socket(listener.accept().unwrap().0);
        let mut acceptor = bind(&stdio).await;
        let dialled = accept(&mut *acceptor).await.unwrap();
        assert_eq!(*dialled.local, listener.local_addr().unwrap().into());
        assert_eq!(dialled.remote, client.local_addr().unwrap().into());
        client.write_all(b"Genji").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        greet(dialled).await;
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "Hello Genji");
    }

    #[tokio::test]
    async fn a_listening_socket_is_accepted_from_again_and_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stdio = over_socket(listener);
        for _ in 0..2 {
            let mut acceptor = bind(&stdio).await;
            assert_eq!(acceptor.local(), address.into());
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(accept(&mut *acceptor).await.unwrap().remote, client.local_addr().unwrap().into());
        }
    }

    #[tokio::test]
    async fn a_datagram_socket_is_served_as_one() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let stdio = over_socket(socket);
        assert!(!stdio.capabilities().connected);
        let Listener::Datagrams(mut datagrams) = stdio.bind(&here()).await.unwrap() else { panic!("connections") };
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
        let mut came = std::collections::VecDeque::new();
        poll_fn(|cx| datagrams.poll_recv(cx, &mut came)).await.unwrap();
        assert_eq!(came[0].payload, "x");
    }

    #[tokio::test]
    async fn a_socket_that_keeps_boundaries_is_a_conversation_of_messages() {
        let (ours, theirs) = socket2::Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let stdio = over_socket(ours);
        assert!(stdio.capabilities().boundaries);
        let Link::Messages(mut messages) = stdio.connect(&here()).await.unwrap().link else { panic!("bytes") };
        theirs.send(b"one").unwrap();
        theirs.send(b"two").unwrap();
        for expected in ["one", "two"] {
            assert_eq!(poll_fn(|cx| messages.poll_recv(cx)).await.unwrap().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_conversed_over_is_refused_in_words() {
        let stdio = over_socket(UdpSocket::bind("127.0.0.1:0").unwrap());
        let error = stdio.connect(&here()).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "failed to connect to stdio://: stdin: standard input is an IPv4 datagram socket, over which nobody can \
             converse here"
        );
        let error = stdio.bind(&"stdio://127.0.0.1:80".parse().unwrap()).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "failed to bind stdio://127.0.0.1:80: address: `stdio` takes no address; write stdio://"
        );
        assert_eq!(Verdict::of_bind(&error.source), Verdict::Usage);
    }
}
