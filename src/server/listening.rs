//! What all tasks of one listener share, and the server behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::Report;
use super::permits::Permits;
use super::shutdown::Shutdown;
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::event::{CloseReason, Event, Observer};
use crate::service::Service;

/// What all listeners of one server share.
pub(super) struct Hub {
    pub(super) shutdown: Shutdown,
    pub(super) observer: Arc<dyn Observer>,
    /// The sessions that the whole server may hold.
    pub(super) sessions: Arc<Semaphore>,
    /// Told whenever a session ends: whoever waits for a descriptor tries again.
    pub(super) session_ended: Notify,
    workers: Vec<Handle>,
    next_worker: AtomicUsize,
    next_session: AtomicU64,
}

impl Hub {
    pub(super) fn new(observer: Arc<dyn Observer>, max_sessions: usize, workers: Vec<Handle>) -> Self {
        Hub {
            shutdown: Shutdown::default(),
            observer,
            sessions: Arc::new(Semaphore::new(max_sessions.min(Semaphore::MAX_PERMITS))),
            session_ended: Notify::new(),
            workers,
            next_worker: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
        }
    }

    /// The runtime that the next session is given to, in turn. A session stays where it began.
    pub(super) fn worker(&self) -> Option<&Handle> {
        match self.workers.len() {
            0 => None,
            count => self.workers.get(self.next_worker.fetch_add(1, Ordering::Relaxed) % count),
        }
    }

    pub(super) fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
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
    pub(super) fn new(service: Service, local: Address, hub: Arc<Hub>) -> Self {
        let limits = &service.limits;
        Listening {
            name: format!("{}://{local}", service.route.scheme),
            permits: Permits::new(hub.sessions.clone(), limits.max_sessions, limits.max_sessions_per_ip),
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
