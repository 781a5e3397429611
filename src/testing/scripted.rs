//! A listener that does what a test tells it: yields these connections and fails with those errors, in that order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::link::{Capabilities, Link};
use crate::transport::{Acceptor, BindError, ConnectError, Dialled, Incoming, Listener, Opening, Transport};

/// Accepts what its script says, and then nothing more.
///
/// ```
/// use greetd::testing::ScriptedAcceptor;
/// let (near, far) = greetd::transports::memory::bytes_pair();
/// // Out of descriptors once; then somebody calls.
/// let acceptor = ScriptedAcceptor::new().fails(24).accepts(far);
/// # drop((near, acceptor));
/// ```
#[derive(Default)]
pub struct ScriptedAcceptor {
    script: VecDeque<io::Result<ScriptedIncoming>>,
    ends: bool,
}

impl ScriptedAcceptor {
    /// One with an empty script: it waits for ever.
    pub fn new() -> Self {
        ScriptedAcceptor::default()
    }

    /// Next, `accept` fails with that error number; see errno(3).
    #[must_use]
    pub fn fails(mut self, errno: i32) -> Self {
        self.script.push_back(Err(io::Error::from_raw_os_error(errno)));
        self
    }

    /// Next, a connection comes whose peer is named `caller`.
    #[must_use]
    pub fn accepts(self, link: Link) -> Self {
        self.accepts_from(Address::named("caller"), link)
    }

    /// Next, a connection comes from that peer.
    #[must_use]
    pub fn accepts_from(mut self, remote: Address, link: Link) -> Self {
        self.script.push_back(Ok(ScriptedIncoming { remote, opens: Ok(link) }));
        self
    }

    /// Next, a connection comes that cannot be opened: it fails with that error number.
    #[must_use]
    pub fn accepts_what_fails(mut self, errno: i32) -> Self {
        let remote = Address::named("caller");
        self.script.push_back(Ok(ScriptedIncoming { remote, opens: Err(io::Error::from_raw_os_error(errno)) }));
        self
    }

    /// At the end of the script no more can come, in place of waiting for ever.
    #[must_use]
    pub fn ends(mut self) -> Self {
        self.ends = true;
        self
    }
}

impl Acceptor for ScriptedAcceptor {
    fn local(&self) -> Address {
        Address::named("scripted")
    }

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        match self.script.pop_front() {
            Some(accepted) => Poll::Ready(accepted.map(|incoming| Some(Box::new(incoming) as Box<dyn Incoming>))),
            None if self.ends => Poll::Ready(Ok(None)),
            None => Poll::Pending,
        }
    }
}

struct ScriptedIncoming {
    remote: Address,
    opens: io::Result<Link>,
}

impl Incoming for ScriptedIncoming {
    fn remote(&self) -> &Address {
        &self.remote
    }

    fn open(self: Box<Self>) -> Opening {
        let ScriptedIncoming { remote, opens } = *self;
        opens.map(|link| Dialled::new(link, Address::named("scripted"), remote)).into()
    }
}

/// A transport whose binds yield scripted acceptors, one after another; when none is left, its address is in use.
pub struct ScriptedTransport {
    capabilities: Capabilities,
    acceptors: Mutex<VecDeque<ScriptedAcceptor>>,
}

impl ScriptedTransport {
    /// A transport of those acceptors, whose links can do that.
    pub fn new(capabilities: Capabilities, acceptors: impl IntoIterator<Item = ScriptedAcceptor>) -> Self {
        ScriptedTransport { capabilities, acceptors: Mutex::new(acceptors.into_iter().collect()) }
    }
}

#[async_trait]
impl Transport for ScriptedTransport {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let next = self.acceptors.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.map(|acceptor| Listener::Connections(Box::new(acceptor)))
            .ok_or_else(|| BindError::new(at, "bind(scripted)", io::ErrorKind::AddrInUse.into()))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        Err(ConnectError::new(to, "connect(scripted)", io::ErrorKind::ConnectionRefused.into()))
    }
}
