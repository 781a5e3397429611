//! A transport from outside: `meet://NAME`, where the two sides of a conversation meet inside the process.
//!
//! It is complete. Once it is registered, every handler, framing and layer works over it, and so do the limits, the
//! clocks and the drain, since none of them is the transport's affair.
//!
//! ```sh
//! cargo run --example transport
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use greetd::registry::{Item, NoOptions};
use greetd::transport::{Dialled, Incoming, Opening};
use greetd::{
    Acceptor, Address, Authority, BindError, Capabilities, ConnectError, Endpoint, Link, Listener, Registry, Server,
    Transport, async_trait,
};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// How many may wait to be accepted, as the backlog of a socket.
const BACKLOG: usize = 16;
/// How many bytes may be on their way in each direction: a writer that is faster than its reader waits.
const PIPE: usize = 64 * 1024;

/// Who listens, by name.
#[derive(Default)]
struct Meet {
    listeners: Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>,
}

impl Meet {
    /// The name that the endpoint asks for. Any other form of address is refused here, in words.
    fn name(endpoint: &Endpoint) -> Result<String, String> {
        match &endpoint.authority {
            Authority::Name(name) => Ok(name.clone()),
            other => Err(format!("`{other}` is not a name; write for example meet://room")),
        }
    }
}

#[async_trait]
impl Transport for Meet {
    // A connected stream of bytes. What it lacks, boundaries, a framing adds.
    fn capabilities(&self) -> Capabilities {
        Capabilities::BYTES
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let name = Meet::name(at).map_err(|reason| BindError::unsuitable(at, reason))?;
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(&name).is_some_and(|listener| !listener.is_closed()) {
            // The kind of the error becomes the verdict, here `in-use`.
            return Err(BindError::new(at, "bind", io::ErrorKind::AddrInUse.into()));
        }
        let (arriving, arrivals) = mpsc::channel(BACKLOG);
        listeners.insert(name.clone(), arriving);
        Ok(Listener::Connections(Box::new(Meeting { name: Address::named(name), arrivals })))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let name = Meet::name(to).map_err(|reason| ConnectError::unsuitable(to, reason))?;
        let listener = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let refused = || ConnectError::new(to, "connect", io::ErrorKind::ConnectionRefused.into());
        let (ours, theirs) = tokio::io::duplex(PIPE);
        // Waits while the backlog is full; fails when nobody listens any more.
        listener.ok_or_else(refused)?.send(theirs).await.map_err(|_| refused())?;
        Ok(Dialled::new(Link::Bytes(Box::new(ours)), Address::Unnamed, Address::named(name)))
    }
}

/// One name that is listened at. Dropping it closes the channel: callers are refused from then on.
struct Meeting {
    name: Address,
    arrivals: mpsc::Receiver<DuplexStream>,
}

impl Acceptor for Meeting {
    fn local(&self) -> Address {
        self.name.clone()
    }

    // Never waits for a peer, so that a slow one delays nobody: what takes time belongs into `Incoming::open`, which
    // runs in the session's own task.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        self.arrivals.poll_recv(cx).map(|arrived| {
            Ok(arrived.map(|stream| {
                let arrival = Arrival { stream, local: self.name.clone(), remote: Address::Unnamed };
                Box::new(arrival) as Box<dyn Incoming>
            }))
        })
    }
}

/// Somebody who called and was not answered yet.
struct Arrival {
    stream: DuplexStream,
    local: Address,
    remote: Address,
}

impl Incoming for Arrival {
    fn remote(&self) -> &Address {
        &self.remote
    }

    fn open(self: Box<Self>) -> Opening {
        Ok(Dialled::new(Link::Bytes(Box::new(self.stream)), self.local, self.remote)).into()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The conformance kit binds it, calls it, and goes through what it claims. It belongs into a test.
    greetd::testing::transport_conforms(&Meet::default(), &"meet://kit".parse()?).await?;

    let meet: Arc<dyn Transport> = Arc::new(Meet::default());
    let mut registry = Registry::builtin();
    // The factory is asked once for each endpoint; all of them share who listens where.
    registry.add_transport(Item::new("meet", "inside this process, by name"), move |_: NoOptions| Ok(meet.clone()))?;

    // A handler and a framing that know nothing of it.
    let endpoint: Endpoint = "meet://room?framing=netstring".parse()?;
    let bound = Server::new().serve(registry.service(&endpoint, "upper")?).bind().await?;
    println!("listening {}", bound.listeners()[0]);
    let running = bound.start();

    let mut session = registry.dialler(&endpoint)?.dial().await?;
    session.send(b"nice to meet you").await?;
    assert_eq!(session.recv().await?.expect("it answers"), "NICE TO MEET YOU");

    // A name is taken once, and nobody is found where nobody listens.
    let again = Server::new().serve(registry.service(&endpoint, "echo")?).bind().await.err();
    println!("{}", again.expect("the name is taken"));
    let nobody = registry.dialler(&"meet://elsewhere".parse()?)?.dial().await.err();
    println!("{}", nobody.expect("nobody listens there"));

    let drained = running.drain(Duration::from_secs(5)).await;
    assert_eq!(drained.cut, 0);
    assert!(registry.dialler(&endpoint)?.dial().await.is_err(), "the listener is gone");
    Ok(())
}
