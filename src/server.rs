//! The engine: serves any number of services until it is told to stop.
//!
//! # Life cycle
//! 1. [`Server::serve`] adds services, which the [registry](crate::Registry) has checked; nothing is opened.
//! 2. [`Server::bind`] opens every listener, all or none, and yields [`Bound`], which knows the addresses.
//! 3. [`Bound::start`] begins to accept, on the caller's runtime, and yields [`Running`].
//! 4. [`Running::drain`] stops accepting, lets idle sessions end at once and busy ones finish, cuts the rest at the
//!    deadline, and yields [`Drained`] with both numbers.
//!
//! Addresses, shutdown, clock and runtime come from the caller; the engine has no global, takes no signal and never
//! exits the process. Dropping [`Running`] cuts everything.
//!
//! ```
//! # use std::time::Duration;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = greetd::Registry::builtin();
//! let service = registry.service(&"memory://greeting".parse()?, "hello")?;
//! let running = greetd::Server::new().serve(service).bind().await?.start();
//!
//! let mut session = registry.dialler(&"memory://greeting".parse()?)?.dial().await?;
//! assert_eq!(session.recv().await?.unwrap(), "welcome");
//! session.send(b"Genji").await?;
//! assert_eq!(session.recv().await?.unwrap(), "Hello Genji");
//!
//! let drained = running.drain(Duration::from_secs(1)).await;
//! assert_eq!(drained.cut, 0);
//! # Ok(()) }
//! ```

mod accept;
mod busy;
mod connection;
mod conversation;
mod crew;
mod datagrams;
mod errno;
mod guard;
mod listening;
mod moment;
mod outbox;
mod peers;
mod permits;
mod port;
mod returns;
mod round;
mod shutdown;
#[cfg(test)]
mod tests;
mod watchman;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

pub use busy::busy_poll;

use crate::address::Address;
use crate::event::{Counters, Event, Log, Observer};
use crate::service::Service;
use crate::transport::{BindError, Listener};
use guard::OwnListeners;
use listening::{Hub, Listening};

/// Services that are to be served together.
pub struct Server {
    services: Vec<Service>,
    max_sessions: usize,
    workers: Vec<Handle>,
    counters: Arc<Counters>,
    observer: Option<Arc<dyn Observer>>,
}

impl Default for Server {
    fn default() -> Self {
        Server::new()
    }
}

impl Server {
    /// A server without services, which logs its events and counts them.
    pub fn new() -> Self {
        Server {
            services: Vec::new(),
            max_sessions: usize::MAX,
            workers: Vec::new(),
            counters: Arc::default(),
            observer: None,
        }
    }

    /// Adds a service.
    #[must_use]
    pub fn serve(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// The most sessions at once over all listeners; each listener has its own limit beside it.
    #[must_use]
    pub fn max_sessions(mut self, most: usize) -> Self {
        self.max_sessions = most;
        self
    }

    /// Runtimes to spread connections over, in turn; without them the one that the server starts on has all. A
    /// connection stays where it began: on a runtime of one thread all share one task, which costs the least and crosses
    /// no thread; on any other each has its own, which may move to a thread that is free. A datagram socket stays with the
    /// runtime that bound it.
    #[must_use]
    pub fn workers(mut self, workers: Vec<Handle>) -> Self {
        self.workers = workers;
        self
    }

    /// Who else is told of every event, besides the log and the counters.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Opens every listener, or none: on an error those that were opened are closed again.
    pub async fn bind(self) -> Result<Bound, BindError> {
        let counters = self.counters.clone();
        let standard = (self.counters, Log::default());
        let observer: Arc<dyn Observer> = match self.observer {
            Some(observer) => Arc::new((standard, observer)),
            None => Arc::new(standard),
        };
        let mut listeners = Vec::new();
        for service in self.services {
            let listener = service.transport.bind(&service.endpoint).await?;
            listeners.push((service, listener));
        }
        Ok(Bound { listeners, max_sessions: self.max_sessions, workers: self.workers, observer, counters })
    }
}

/// Open listeners that do not accept yet.
pub struct Bound {
    listeners: Vec<(Service, Listener)>,
    max_sessions: usize,
    workers: Vec<Handle>,
    observer: Arc<dyn Observer>,
    counters: Arc<Counters>,
}

/// A listener that is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundListener {
    /// Layers and transport.
    pub scheme: String,
    /// The address that the kernel gave.
    pub address: Address,
    /// The handler's name.
    pub handler: String,
}

/// As `listening` lines show it: `udp://127.0.0.1:40123`.
impl std::fmt::Display for BoundListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address)
    }
}

impl Bound {
    /// The listeners, in the order in which their services were added.
    pub fn listeners(&self) -> Vec<BoundListener> {
        let described = |(service, listener): &(Service, Listener)| BoundListener {
            scheme: service.route.scheme.clone(),
            address: listener.local(),
            handler: service.handler_name.clone(),
        };
        self.listeners.iter().map(described).collect()
    }

    /// Begins to accept, in tasks of the current runtime and of the workers.
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime.
    pub fn start(self) -> Running {
        let hub = Arc::new(Hub::new(self.observer, self.max_sessions, &self.workers));
        let own = Arc::new(OwnListeners::default());
        // Only those that datagrams come from: a port of a listener for connections may well be a client's.
        let responders = self.listeners.iter().filter(|(_, listener)| matches!(listener, Listener::Datagrams(_)));
        own.replace(responders.map(|(_, listener)| listener.local()));
        let mut tasks = JoinSet::new();
        for (service, listener) in self.listeners {
            let listening = Arc::new(Listening::new(service, &listener, hub.clone()));
            listening
                .observe(&Event::Listening { listener: &listening.name, handler: &listening.service.handler_name });
            match listener {
                Listener::Connections(acceptor) => {
                    tasks.spawn(accept::run(listening, acceptor));
                }
                Listener::Datagrams(socket) => {
                    tasks.spawn(datagrams::run(listening, socket, own.clone()));
                }
            }
        }
        Running { hub, tasks, counters: self.counters, report: Report::default() }
    }
}

/// A server at work. Dropping it cuts every session.
pub struct Running {
    hub: Arc<Hub>,
    tasks: JoinSet<Report>,
    counters: Arc<Counters>,
    report: Report,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hub.shutdown.cut();
    }
}

impl Running {
    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Who is told of this server's events, the log and the counters among them: for what is there beside the server
    /// and does not end with it, as [plugins](crate::hosts::Plugin::observe) are.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.hub.observer.clone()
    }

    /// Waits until every listener has ended by itself: a single inherited connection is over, or all were given up.
    /// Cancel-safe.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.report.add(&ended);
        }
    }

    /// Stops accepting and waits for the sessions, to the deadline.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.drain_until(deadline, std::future::pending()).await
    }

    /// The same, to the deadline or until `enough` is over, whichever comes first: whoever drains may lose patience.
    pub async fn drain_until(mut self, deadline: Duration, enough: impl Future<Output = ()>) -> Drained {
        self.hub.observer.observe(&Event::DrainStarted { deadline });
        self.hub.shutdown.drain();
        let in_time = tokio::select! {
            biased;
            () = self.ended() => true,
            () = tokio::time::sleep(deadline) => false,
            () = enough => false,
        };
        if !in_time {
            self.hub.shutdown.cut();
            self.ended().await;
        }
        let drained = Drained { finished: self.report.finished, cut: self.report.cut, failed: self.report.failed };
        self.hub.observer.observe(&Event::DrainFinished { finished: drained.finished, cut: drained.cut });
        drained
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that ended by themselves after the drain began.
    pub finished: usize,
    /// Sessions that were cut at the deadline.
    pub cut: usize,
    /// Whether a listener had been given up.
    pub failed: bool,
}

/// What became of one listener's sessions.
#[derive(Debug, Default, Clone, Copy)]
struct Report {
    finished: usize,
    cut: usize,
    failed: bool,
}

impl Report {
    fn add(&mut self, ended: &Result<Report, JoinError>) {
        match ended {
            Ok(report) => {
                self.finished += report.finished;
                self.cut += report.cut;
                self.failed |= report.failed;
            }
            // A listener's own task panicked: a bug, and it is no more.
            Err(_) => self.failed = true,
        }
    }
}
