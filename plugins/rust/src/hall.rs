//! A transport: names within this process, as a hall where whoever is called by name is heard.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use greetd::link::{Capabilities, Link};
use greetd::transport::{Acceptor, BindError, ConnectError, Dialled, Incoming, Listener, Opening, Transport};
use greetd::{Address, Endpoint, async_trait};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// How many bytes are on their way in a connection, and how many connections wait to be accepted.
const PIPE: usize = 64 * 1024;
const BACKLOG: usize = 128;

/// Who listens, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hall(Arc<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>>);

impl Hall {
    fn listeners(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<DuplexStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Hall {
    fn capabilities(&self) -> Capabilities {
        Capabilities::BYTES
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let name = at.authority.to_string();
        let (calls, incoming) = mpsc::channel(BACKLOG);
        let mut listeners = self.listeners();
        if listeners.get(&name).is_some_and(|listener| !listener.is_closed()) {
            return Err(BindError::new(at, format!("bind({name})"), io::ErrorKind::AddrInUse.into()));
        }
        listeners.insert(name.clone(), calls);
        Ok(Listener::Connections(Box::new(Door { address: Address::named(name), incoming })))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let name = to.authority.to_string();
        let refused = || ConnectError::new(to, format!("connect({name})"), io::ErrorKind::ConnectionRefused.into());
        let listener = self.listeners().get(&name).cloned().ok_or_else(refused)?;
        let (ours, theirs) = tokio::io::duplex(PIPE);
        listener.try_send(theirs).map_err(|_| refused())?;
        Ok(Dialled::new(Link::Bytes(Box::new(ours)), Address::Unnamed, Address::named(&name)))
    }
}

struct Door {
    address: Address,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl Acceptor for Door {
    fn local(&self) -> Address {
        self.address.clone()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        let local = self.address.clone();
        self.incoming.poll_recv(cx).map(|caller| {
            Ok(caller.map(|stream| Box::new(Caller { stream, local, remote: Address::Unnamed }) as Box<dyn Incoming>))
        })
    }
}

struct Caller {
    stream: DuplexStream,
    local: Address,
    remote: Address,
}

impl Incoming for Caller {
    fn remote(&self) -> &Address {
        &self.remote
    }

    fn open(self: Box<Self>) -> Opening {
        Ok(Dialled::new(Link::Bytes(Box::new(self.stream)), self.local, self.remote)).into()
    }
}
