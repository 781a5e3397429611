//! What all tasks of one listener share, and the server behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use super::Report;
use super::connection::{self, Arrival};
use super::crew::Crew;
use super::moment::{Era, Moment};
use super::permits::{self, Permits, Permitting};
use super::returns::Returns;
use super::shutdown::Shutdown;
use super::watchman::Watchman;
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::event::{CloseReason, Event, Observer};
use crate::handler::Sessions;
use crate::service::Service;
use crate::transport::Listener;

/// What all listeners of one server share.
pub(super) struct Hub {
    era: Era,
    pub(super) shutdown: Shutdown,
    pub(super) observer: Arc<dyn Observer>,
    /// The sessions that the whole server may hold; none where there is no limit.
    pub(super) sessions: Option<Arc<Semaphore>>,
    /// Told whenever a session ends: whoever waits for a descriptor tries again.
    pub(super) session_ended: Returns,
    workers: Vec<Worker>,
    next_worker: AtomicUsize,
    next_session: AtomicU64,
}

impl Hub {
    /// Sessions are spread over those runtimes; where there is none, the current one has them all.
    pub(super) fn new(observer: Arc<dyn Observer>, max_sessions: usize, runtimes: &[Handle]) -> Self {
        let era = Era::begin();
        let here = Handle::current();
        let own = Watchman::start(era, &here);
        let mut shutdown = Shutdown::new(own.clone());
        let mut workers: Vec<Worker> = Vec::new();
        for runtime in runtimes {
            let watchman = Watchman::start(era, runtime);
            shutdown.add(&watchman);
            workers.push(Worker::new(runtime, watchman));
        }
        if workers.is_empty() {
            workers.push(Worker::new(&here, own));
        }
        Hub {
            era,
            shutdown,
            observer,
            sessions: (max_sessions <= Semaphore::MAX_PERMITS).then(|| Arc::new(Semaphore::new(max_sessions))),
            session_ended: Returns::default(),
            workers,
            next_worker: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
        }
    }

    /// Gives a session to the worker whose turn it is. It stays where it began.
    pub(super) fn begin(&self, arrival: Arrival) {
        let worker = match &*self.workers {
            [only] => only,
            many => &many[self.next_worker.fetch_add(1, Ordering::Relaxed) % many.len()],
        };
        match worker {
            Worker::Crew(crew) => crew.begin(arrival),
            Worker::Tasks(runtime, watchman) => {
                runtime.spawn(connection::run(arrival, watchman.watch()));
            }
        }
    }

    /// The moment that it is.
    pub(super) fn now(&self) -> Moment {
        self.era.now()
    }

    pub(super) fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

/// A runtime that runs sessions. On one of one thread they are run all in one task; on any other each is a task, which can
/// move to whichever thread is free.
enum Worker {
    Crew(Crew),
    Tasks(Handle, Arc<Watchman>),
}

impl Worker {
    fn new(runtime: &Handle, watchman: Arc<Watchman>) -> Self {
        match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => Worker::Crew(Crew::start(runtime, watchman, connection::run)),
            _ => Worker::Tasks(runtime.clone(), watchman),
        }
    }
}

/// The right to a session of a listener.
pub(super) type Permit = permits::Permit<Listening>;

/// What all tasks of one listener share.
pub(super) struct Listening {
    pub(super) service: Service,
    pub(super) local: Address,
    /// The endpoint with the address that the kernel gave: its name in events.
    pub(super) name: String,
    permits: Permits,
    /// Sessions that ended by themselves and that were cut, from the drain's beginning on.
    finished: AtomicUsize,
    cut: AtomicUsize,
    pub(super) hub: Arc<Hub>,
}

impl Listening {
    pub(super) fn new(service: Service, listener: &Listener, hub: Arc<Hub>) -> Self {
        let limits = &service.limits;
        let local = listener.local();
        let (server, per_source) = (hub.sessions.clone(), limits.max_sessions_per_ip);
        let permits = match (listener, service.handler.sessions()) {
            (Listener::Connections(_), _) => Permits::new(server, limits.max_sessions, per_source),
            // They are bounded by the size of their table already.
            (Listener::Datagrams(_), Sessions::PerPeer) => Permits::new(server, usize::MAX, per_source),
            // The one that answers all peers is there in any case.
            (Listener::Datagrams(_), Sessions::Shared) => Permits::new(None, usize::MAX, None),
        };
        Listening {
            name: format!("{}://{local}", service.route.scheme),
            permits,
            finished: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            service,
            local,
            hub,
        }
    }

    /// The endpoint with the address that was given: where the listener is bound again.
    pub(super) fn bound_endpoint(&self) -> Endpoint {
        let mut endpoint = self.service.endpoint.clone();
        if let (Some(_), Some(address)) = (endpoint.authority.port(), self.local.ip()) {
            endpoint.authority = address.into();
        }
        endpoint
    }

    /// Waits until all sessions are over.
    pub(super) async fn all_over(&self) {
        self.permits.all_back().await;
    }

    /// Counts a session that ended, from the drain's beginning on.
    pub(super) fn count(&self, reason: CloseReason) {
        if reason == CloseReason::Cut {
            self.cut.fetch_add(1, Ordering::Relaxed);
        } else if self.hub.shutdown.is_draining() {
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the sessions, once all are over.
    pub(super) fn report(&self, failed: bool) -> Report {
        Report { finished: self.finished.load(Ordering::Relaxed), cut: self.cut.load(Ordering::Relaxed), failed }
    }

    pub(super) fn observe(&self, event: &Event<'_>) {
        self.hub.observer.observe(event);
    }
}

impl Permitting for Listening {
    fn permits(&self) -> &Permits {
        &self.permits
    }

    /// A session is over, and its socket is closed: whoever waits may need the descriptor.
    fn note_return(&self) {
        self.hub.session_ended.tell();
    }
}
