//! What the registry makes of an endpoint: a [`Service`] to be served, a [`Dialler`] to call with.

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::handler::Handler;
use crate::layer::Layer;
use crate::limits::Limits;
use crate::link::{Opened, Peer, Route};
use crate::session::Session;
use crate::transport::{ConnectError, Dialled, Transport};

/// An endpoint with all that answers there; checked, and not yet bound.
#[derive(Clone)]
pub struct Service {
    /// Where.
    pub endpoint: Endpoint,
    /// What carries the messages.
    pub transport: Arc<dyn Transport>,
    /// What wraps each link, the innermost first.
    pub layers: Vec<Arc<dyn Layer>>,
    /// What cuts bytes into messages; none where the transport carries messages.
    pub framing: Option<Arc<dyn Framing>>,
    /// What answers.
    pub handler: Arc<dyn Handler>,
    /// Its name, for the events and the `listening` line.
    pub handler_name: String,
    /// What it may use.
    pub limits: Limits,
    /// What its sessions say of the way they came.
    pub route: Arc<Route>,
}

/// An endpoint with all that is needed to call it.
#[derive(Clone)]
pub struct Dialler {
    pub(crate) endpoint: Endpoint,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) layers: Vec<Arc<dyn Layer>>,
    pub(crate) framing: Option<Arc<dyn Framing>>,
    pub(crate) limits: Limits,
    pub(crate) route: Arc<Route>,
}

/// Why a call did not come to a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The transport did not connect.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It connected, and a layer did not open.
    #[error("failed to open {endpoint}: {source}")]
    Open {
        /// The endpoint that was called.
        endpoint: String,
        /// What failed.
        #[source]
        source: Error,
    },
    /// A layer's handshake took longer than the handshake clock allows.
    #[error("failed to open {endpoint}: the handshake took longer than {limit:?}")]
    Slow {
        /// The endpoint that was called.
        endpoint: String,
        /// The limit.
        limit: std::time::Duration,
    },
}

impl Dialler {
    /// The endpoint that is called.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the session with it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the way there can do.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// What cuts bytes into messages; none where the transport carries messages.
    pub fn framing(&self) -> Option<&Arc<dyn Framing>> {
        self.framing.as_ref()
    }

    /// Calls, opens each layer, and puts the framing in front.
    pub async fn dial(&self) -> Result<Session, DialError> {
        let opened = self.open().await?;
        Session::new(opened, self.framing.clone()).map_err(|source| self.failed(source))
    }

    /// Calls, and opens each layer: for who does the framing.
    pub async fn open(&self) -> Result<Opened, DialError> {
        let dialled = self.transport.connect(&self.endpoint).await?;
        let opening = async {
            let mut opened = opened(dialled, &self.route);
            for layer in &self.layers {
                opened = layer.connect(opened, &self.endpoint).await?;
            }
            Ok(opened)
        };
        let limit = self.limits.handshake_timeout;
        let opened = tokio::time::timeout(limit, opening).await;
        let opened = opened.map_err(|_| DialError::Slow { endpoint: self.endpoint.brief(), limit })?;
        opened.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: Error) -> DialError {
        DialError::Open { endpoint: self.endpoint.brief(), source }
    }
}

impl Service {
    /// A session over an accepted link, where there are no layers to open.
    pub(crate) fn bare(&self, dialled: Dialled) -> Result<Session> {
        let mut session = Session::new(opened(dialled, &self.route), self.framing.clone())?;
        if self.transport.tells_of_more() {
            session.let_be_told();
        }
        Ok(session)
    }

    /// Opens each layer over an accepted link, the innermost first.
    pub(crate) async fn open(&self, dialled: Dialled) -> Result<Session> {
        let mut opened = opened(dialled, &self.route);
        for layer in &self.layers {
            opened = layer.accept(opened).await?;
        }
        Session::new(opened, self.framing.clone())
    }
}

fn opened(dialled: Dialled, route: &Arc<Route>) -> Opened {
    let mut peer = Peer::new(dialled.local, dialled.remote, route.clone());
    for (name, value) in dialled.facts {
        peer.add_fact(name, value);
    }
    Opened { link: dialled.link, peer }
}
