//! A transport whose connections, datagrams and errors come from the test.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::event::Counters;
use crate::framings::lines::Lines;
use crate::handler::Handler;
use crate::layer::Layer;
use crate::limits::Limits;
use crate::link::{Capabilities, Link, Opened, Route};
use crate::options::Options;
use crate::server::{Running, Server};
use crate::service::Service;
use crate::transport::{
    Acceptor, BindError, ConnectError, DatagramSocket, Datagrams, Dialled, Incoming, Listener, Opening, Transmit,
    Transport,
};

/// What a test lets `accept` return.
pub(super) enum Accept {
    Connection(Address, DuplexStream),
    Error(i32),
}

/// A server under test, and its other side.
pub(super) struct Bench {
    pub(super) running: Running,
    ends: Ends,
    second: Option<Ends>,
}

/// The test's side of one scripted listener.
struct Ends {
    accepts: UnboundedSender<Accept>,
    datagrams: UnboundedSender<io::Result<Datagrams>>,
    sent: Arc<Mutex<Vec<(Address, Bytes)>>>,
}

impl Ends {
    fn connect(&self, from: Address) -> Client {
        let (near, far) = duplex(64 * 1024);
        self.accepts.send(Accept::Connection(from, near)).unwrap();
        Client(far)
    }
}

pub(super) struct Setup {
    handler: Arc<dyn Handler>,
    options: &'static str,
    layer: Option<Arc<dyn Layer>>,
    capabilities: Capabilities,
    binds: usize,
}

/// A server with that handler over a scripted stream, in lines.
pub(super) fn connections(handler: impl Handler + 'static) -> Setup {
    Setup { handler: Arc::new(handler), options: "", layer: None, capabilities: Capabilities::BYTES, binds: usize::MAX }
}

/// A server with that handler over a scripted datagram socket.
pub(super) fn datagrams(handler: impl Handler + 'static) -> Setup {
    Setup { capabilities: Capabilities::DATAGRAMS, ..connections(handler) }
}

impl Setup {
    pub(super) fn limits(mut self, options: &'static str) -> Self {
        self.options = options;
        self
    }

    pub(super) fn layer(mut self, layer: impl Layer + 'static) -> Self {
        self.layer = Some(Arc::new(layer));
        self
    }

    /// How many times it can be bound.
    pub(super) fn binds(mut self, times: usize) -> Self {
        self.binds = times;
        self
    }

    pub(super) async fn start(self) -> Bench {
        Bench::serve(Server::new(), self).await
    }

    fn build(self) -> (Service, Ends) {
        let (accepts, accepted) = unbounded_channel();
        let (datagrams, received) = unbounded_channel();
        let sent = Arc::default();
        let limits = Limits::read(&Options::parse(self.options).unwrap()).unwrap();
        let transport = Scripted {
            capabilities: self.capabilities,
            accepted: Arc::new(Mutex::new(accepted)),
            received: Mutex::new(Some(received)),
            sent: Arc::clone(&sent),
            binds: Mutex::new(self.binds),
        };
        let service = Service {
            endpoint: "scripted://here".parse().unwrap(),
            transport: Arc::new(transport),
            layers: self.layer.into_iter().collect(),
            framing: Some(Arc::new(Lines { longest: limits.max_message })),
            handler: self.handler,
            handler_name: "handler".into(),
            limits,
            route: Arc::new(Route {
                scheme: "scripted".into(),
                framing: None,
                capabilities: self.capabilities,
                keeps_messages: true,
            }),
        };
        (service, Ends { accepts, datagrams, sent })
    }
}

impl Bench {
    /// Serves it by a server of the test's own making.
    pub(super) async fn serve(server: Server, setup: Setup) -> Self {
        let (service, ends) = setup.build();
        let running = server.serve(service).bind().await.unwrap().start();
        Bench { running, ends, second: None }
    }

    /// Two listeners of one server.
    pub(super) async fn serve_two(server: Server, first: Setup, second: Setup) -> Self {
        let ((first, ends), (second, second_ends)) = (first.build(), second.build());
        let running = server.serve(first).serve(second).bind().await.unwrap().start();
        Bench { running, ends, second: Some(second_ends) }
    }

    /// A connection to the second listener.
    pub(super) fn connect_to_second(&self) -> Client {
        self.second.as_ref().unwrap().connect(Address::named("client"))
    }

    pub(super) fn connect(&self) -> Client {
        self.connect_from("client")
    }

    pub(super) fn connect_from(&self, name: &str) -> Client {
        self.ends.connect(name.parse().map_or_else(|_| Address::named(name), Address::Ip))
    }

    pub(super) fn accept_fails(&self, errno: nix::errno::Errno) {
        self.ends.accepts.send(Accept::Error(errno as i32)).unwrap();
    }

    pub(super) fn receive(&self, from: &str, payload: &'static [u8]) {
        self.receive_bytes(Address::Ip(from.parse().unwrap()), Bytes::from_static(payload));
    }

    pub(super) fn receive_bytes(&self, remote: Address, payload: Bytes) {
        let local = Address::Ip("192.0.2.1:9000".parse().unwrap());
        self.ends.datagrams.send(Ok(Datagrams::one(payload, remote, local))).unwrap();
    }

    /// Datagrams of that size that come together, but for the last, which may be shorter.
    pub(super) fn receive_together(&self, from: &str, segment: usize, payload: &'static [u8]) {
        let (remote, local) = (Address::Ip(from.parse().unwrap()), Address::Ip("192.0.2.1:9000".parse().unwrap()));
        let together = Datagrams { segment, ..Datagrams::one(Bytes::from_static(payload), remote, local) };
        self.ends.datagrams.send(Ok(together)).unwrap();
    }

    pub(super) fn receive_truncated(&self, from: &str) {
        let remote = Address::Ip(from.parse().unwrap());
        let payload = Bytes::from_static(b"cut");
        let cut = Datagrams { truncated: true, ..Datagrams::one(payload, remote.clone(), remote) };
        self.ends.datagrams.send(Ok(cut)).unwrap();
    }

    pub(super) fn receive_fails(&self, errno: nix::errno::Errno) {
        self.ends.datagrams.send(Err(io::Error::from_raw_os_error(errno as i32))).unwrap();
    }

    /// What was sent to that address since this was last asked, once everything has settled.
    pub(super) async fn answers(&self, to: &str) -> Vec<String> {
        settle().await;
        let to = Address::Ip(to.parse().unwrap());
        let mut sent = self.ends.sent.lock().unwrap();
        let (mine, others) = std::mem::take(&mut *sent).into_iter().partition(|(remote, _)| *remote == to);
        *sent = others;
        let text = |(_, payload): (Address, Bytes)| String::from_utf8_lossy(&payload).into_owned();
        Vec::into_iter(mine).map(text).collect()
    }

    /// All that was sent, to whomever.
    pub(super) fn sent(&self) -> Arc<Mutex<Vec<(Address, Bytes)>>> {
        self.ends.sent.clone()
    }

    pub(super) fn counters(&self) -> &Counters {
        self.running.counters()
    }
}

/// Lets every task run until all of them wait. The clock is paused, so this advances it by next to nothing.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The peer of a connection.
pub(super) struct Client(pub(super) DuplexStream);

impl Client {
    pub(super) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next line.
    pub(super) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            match self.0.read_u8().await {
                Ok(b'\n') => return String::from_utf8(line).unwrap(),
                Ok(byte) => line.push(byte),
                Err(_) => return format!("{}<end>", String::from_utf8_lossy(&line)),
            }
        }
    }

    /// All that comes until the server closes.
    pub(super) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}

struct Scripted {
    capabilities: Capabilities,
    accepted: Arc<Mutex<UnboundedReceiver<Accept>>>,
    received: Mutex<Option<UnboundedReceiver<io::Result<Datagrams>>>>,
    sent: Arc<Mutex<Vec<(Address, Bytes)>>>,
    binds: Mutex<usize>,
}

#[async_trait]
impl Transport for Scripted {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let mut binds = self.binds.lock().unwrap();
        let Some(left) = binds.checked_sub(1) else {
            return Err(BindError::new(at, "bind", io::Error::from(io::ErrorKind::AddrInUse)));
        };
        *binds = left;
        if self.capabilities.connected {
            return Ok(Listener::Connections(Box::new(ScriptedAcceptor(self.accepted.clone()))));
        }
        let received = self.received.lock().unwrap().take().unwrap();
        Ok(Listener::Datagrams(Box::new(ScriptedSocket { received, failed: None, sent: self.sent.clone() })))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        Err(ConnectError::unsuitable(to, "it only listens"))
    }
}

struct ScriptedAcceptor(Arc<Mutex<UnboundedReceiver<Accept>>>);

impl Acceptor for ScriptedAcceptor {
    fn local(&self) -> Address {
        Address::named("here")
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        self.0.lock().unwrap().poll_recv(cx).map(|accept| match accept {
            None => Ok(None),
            Some(Accept::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Accept::Connection(remote, stream)) => Ok(Some(Box::new(ScriptedIncoming { remote, stream }) as _)),
        })
    }
}

struct ScriptedIncoming {
    remote: Address,
    stream: DuplexStream,
}

impl Incoming for ScriptedIncoming {
    fn remote(&self) -> &Address {
        &self.remote
    }

    fn open(self: Box<Self>) -> Opening {
        Ok(Dialled::new(Link::Bytes(Box::new(self.stream)), Address::named("here"), self.remote)).into()
    }
}

struct ScriptedSocket {
    received: UnboundedReceiver<io::Result<Datagrams>>,
    failed: Option<io::Error>,
    sent: Arc<Mutex<Vec<(Address, Bytes)>>>,
}

impl DatagramSocket for ScriptedSocket {
    fn local(&self) -> Address {
        Address::Ip("192.0.2.1:9000".parse().unwrap())
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<Datagrams>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let Some(first) = ready!(self.received.poll_recv(cx)) else { return Poll::Pending };
        into.push_back(first?);
        // What else waits comes in the same batch, up to an error, which is told by the next call.
        while let Ok(received) = self.received.try_recv() {
            match received {
                Ok(datagram) => into.push_back(datagram),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let payload = Bytes::copy_from_slice(transmit.payload);
        self.sent.lock().unwrap().push((transmit.remote.clone(), payload));
        Poll::Ready(Ok(transmit.payload.len()))
    }
}

/// A layer that opens only when the peer has sent a first byte.
pub(super) struct Knock;

#[async_trait]
impl Layer for Knock {
    fn over(&self, inner: Capabilities) -> Result<Capabilities, String> {
        Ok(inner)
    }

    async fn accept(&self, mut inner: Opened) -> crate::error::Result<Opened> {
        if let Link::Bytes(link) = &mut inner.link {
            let mut knock = [0; 4];
            tokio::io::AsyncReadExt::read_exact(link, &mut knock).await?;
        }
        Ok(inner)
    }

    async fn connect(&self, inner: Opened, _: &Endpoint) -> crate::error::Result<Opened> {
        Ok(inner)
    }
}
