//! Exact limits: a permit is taken before a connection is accepted and kept by its session until the end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

use crate::address::Address;

/// Who may begin a session: the whole server, one listener of it, one source.
#[derive(Debug)]
pub(super) struct Permits {
    /// None where the server as a whole has no limit.
    server: Option<Arc<Semaphore>>,
    listener: Semaphore,
    sources: Option<Sources>,
    /// How many are held, and who waits until none is.
    held: AtomicUsize,
    all_back: Notify,
}

/// The right to one session; given back when it is dropped. It is small, since each session holds one.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    source: Option<Box<IpAddr>>,
}

impl Permits {
    pub(super) fn new(server: Option<Arc<Semaphore>>, listener: usize, per_source: Option<usize>) -> Arc<Self> {
        Arc::new(Permits {
            server,
            listener: Semaphore::new(listener.min(Semaphore::MAX_PERMITS)),
            sources: per_source.map(|most| Sources { most, held: Mutex::default() }),
            held: AtomicUsize::new(0),
            all_back: Notify::new(),
        })
    }

    /// A permit, if there is one now.
    pub(super) fn take(self: &Arc<Self>) -> Option<Permit> {
        let listener = self.listener.try_acquire().ok()?;
        if let Some(server) = &self.server {
            server.try_acquire().ok()?.forget();
        }
        listener.forget();
        Some(self.permit())
    }

    /// A permit, as soon as there is one. Cancel-safe.
    pub(super) async fn wait(self: &Arc<Self>) -> Permit {
        let never_closed = "these semaphores are never closed";
        let listener = self.listener.acquire().await.expect(never_closed);
        if let Some(server) = &self.server {
            server.acquire().await.expect(never_closed).forget();
        }
        listener.forget();
        self.permit()
    }

    /// Waits until no permit is held.
    pub(super) async fn all_back(&self) {
        // The last one leaves word, also where nobody waits yet.
        while self.held.load(Ordering::SeqCst) > 0 {
            self.all_back.notified().await;
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        self.held.fetch_add(1, Ordering::SeqCst);
        Permit { permits: self.clone(), source: None }
    }
}

impl Permit {
    /// Adds the source's own limit, or says that it is reached. Sources without an IP address have none.
    pub(super) fn admit_source(&mut self, remote: &Address) -> bool {
        let (Some(sources), Some(ip)) = (&self.permits.sources, remote.canonical_ip()) else { return true };
        let prefix = prefix(ip);
        let admitted = sources.take(prefix);
        self.source = admitted.then(|| Box::new(prefix));
        admitted
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let (Some(prefix), Some(sources)) = (&self.source, &self.permits.sources) {
            sources.give_back(**prefix);
        }
        self.permits.listener.add_permits(1);
        if let Some(server) = &self.permits.server {
            server.add_permits(1);
        }
        if self.permits.held.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.permits.all_back.notify_one();
        }
    }
}

/// How many sessions each source holds. It has an entry for each source with a session, so it is bounded by their
/// number.
#[derive(Debug)]
struct Sources {
    most: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

impl Sources {
    fn take(&self, prefix: IpAddr) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(prefix).or_default();
        let free = *count < self.most;
        *count += usize::from(free);
        free
    }

    fn give_back(&self, prefix: IpAddr) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                held.remove(&prefix);
            }
        }
    }
}

/// One IPv4 address, or one IPv6 /64: what a single customer is given (RFC 6177).
fn prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            IpAddr::from([segments[0], segments[1], segments[2], segments[3], 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(server: usize, listener: usize, per_source: Option<usize>) -> Arc<Permits> {
        Permits::new(Some(Arc::new(Semaphore::new(server))), listener, per_source)
    }

    #[test]
    fn a_limit_is_exact_and_a_permit_comes_back_with_its_session() {
        let permits = permits(10, 2, None);
        let first = permits.take().unwrap();
        let _second = permits.take().unwrap();
        assert!(permits.take().is_none());
        drop(first);
        assert!(permits.take().is_some());
    }

    #[test]
    fn the_server_s_limit_holds_over_all_listeners() {
        let server = Some(Arc::new(Semaphore::new(1)));
        let (a, b) = (Permits::new(server.clone(), 5, None), Permits::new(server, 5, None));
        let held = a.take().unwrap();
        assert!(b.take().is_none());
        drop(held);
        assert!(b.take().is_some());
    }

    #[test]
    fn sources_in_one_ipv6_network_share_a_limit_and_leave_nothing_behind() {
        let permits = permits(10, 10, Some(1));
        let from = |text: &str| Address::Ip(text.parse().unwrap());
        let mut first = permits.take().unwrap();
        assert!(first.admit_source(&from("[2001:db8::1]:1")));
        assert!(!permits.take().unwrap().admit_source(&from("[2001:db8::2]:1")));
        assert!(permits.take().unwrap().admit_source(&from("[2001:db8:0:1::2]:1")));
        assert!(permits.take().unwrap().admit_source(&Address::Unnamed));
        drop(first);
        assert!(permits.sources.as_ref().unwrap().held.lock().unwrap().is_empty());
    }
}
