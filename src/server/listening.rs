//! What all tasks of one listener share, and the server behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, Semaphore};

use super::Report;
use super::connection::{self, Arrival};
use super::crew::Crew;
use super::moment::{Era, Moment};
use super::permits::{Permit, Permits};
use super::shutdown::Shutdown;
use super::watchman::Watchman;
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::event::{CloseReason, Event, Observer};
use crate::service::Service;
use crate::transport::{Incoming, Listener};

/// What all listeners of one server share.
pub(super) struct Hub {
    era: Era,
    pub(super) shutdown: Shutdown,
    pub(super) observer: Arc<dyn Observer>,
    /// The sessions that the whole server may hold; none where there is no limit.
    pub(super) sessions: Option<Arc<Semaphore>>,
    /// Told whenever a session ends: whoever waits for a descriptor tries again.
    pub(super) session_ended: Notify,
    workers: Vec<Worker>,
    next_worker: AtomicUsize,
    next_session: AtomicU64,
}

impl Hub {
    /// Sessions are spread over those runtimes; where there is none, the current one has them all.
    pub(super) fn new(observer: Arc<dyn Observer>, max_sessions: usize, runtimes: &[Handle]) -> Self {
        let era = Era::begin();
        let here = Handle::current();
        let mut shutdown = Shutdown::new(Watchman::start(era, &here));
        let mut workers: Vec<Worker> =
            runtimes.iter().map(|runtime| Worker::new(runtime, shutdown.add(Watchman::start(era, runtime)))).collect();
        if workers.is_empty() {
            workers.push(Worker::new(&here, Shutdown::OWN));
        }
        Hub {
            era,
            shutdown,
            observer,
            sessions: (max_sessions <= Semaphore::MAX_PERMITS).then(|| Arc::new(Semaphore::new(max_sessions))),
            session_ended: Notify::new(),
            workers,
            next_worker: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
        }
    }

    /// Gives a session to the worker whose turn it is. It stays where it began.
    pub(super) fn begin(&self, listening: Arc<Listening>, incoming: Box<dyn Incoming>, permit: Permit) {
        let turn = self.next_worker.fetch_add(1, Ordering::Relaxed);
        let worker = &self.workers[turn % self.workers.len()];
        let arrival = Arrival { listening, incoming, permit, watchman: worker.watchman };
        match &worker.runs {
            Runs::Crew(crew) => crew.begin(arrival),
            Runs::Tasks(runtime) => {
                runtime.spawn(connection::run(arrival));
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

/// A runtime that runs sessions.
struct Worker {
    watchman: u32,
    runs: Runs,
}

/// Sessions on a runtime of one thread are run all in one task; on any other each is a task, which can move to whichever
/// thread is free.
enum Runs {
    Crew(Crew),
    Tasks(Handle),
}

impl Worker {
    fn new(runtime: &Handle, watchman: u32) -> Self {
        let runs = match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => Runs::Crew(Crew::start(runtime, connection::run)),
            _ => Runs::Tasks(runtime.clone()),
        };
        Worker { watchman, runs }
    }
}

/// What all tasks of one listener share.
pub(super) struct Listening {
    pub(super) service: Service,
    pub(super) local: Address,
    /// The endpoint with the address that the kernel gave: its name in events.
    pub(super) name: String,
    pub(super) permits: Arc<Permits>,
    /// Sessions that ended by themselves and that were cut, from the drain's beginning on.
    finished: AtomicUsize,
    cut: AtomicUsize,
    pub(super) hub: Arc<Hub>,
}

impl Listening {
    pub(super) fn new(service: Service, listener: &Listener, hub: Arc<Hub>) -> Self {
        let limits = &service.limits;
        let local = listener.local();
        // The peers of a datagram socket are bounded by the size of their table already.
        let max_sessions = match listener {
            Listener::Connections(_) => limits.max_sessions,
            Listener::Datagrams(_) => usize::MAX,
        };
        Listening {
            name: format!("{}://{local}", service.route.scheme),
            permits: Permits::new(hub.sessions.clone(), max_sessions, limits.max_sessions_per_ip),
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

    /// A session is over, and its socket is closed: whoever waits may need the descriptor. Before it tells of it, its permit is
    /// given back.
    pub(super) fn give_back(&self, permit: Permit) {
        drop(permit);
        self.hub.session_ended.notify_one();
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
