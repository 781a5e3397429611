//! Exact limits: a permit is taken before a connection is accepted and kept by its session until the end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::address::Address;

/// Who may begin a session: the whole server, one listener of it, one source.
#[derive(Debug, Clone)]
pub(super) struct Permits {
    server: Arc<Semaphore>,
    listener: Arc<Semaphore>,
    sources: Option<Sources>,
}

/// The right to one session.
#[derive(Debug)]
pub(super) struct Permit {
    _server: OwnedSemaphorePermit,
    _listener: Option<OwnedSemaphorePermit>,
    source: Option<SourcePermit>,
}

impl Permits {
    pub(super) fn new(server: Arc<Semaphore>, listener: usize, per_source: Option<usize>) -> Self {
        Permits {
            server,
            listener: Arc::new(Semaphore::new(listener.min(Semaphore::MAX_PERMITS))),
            sources: per_source.map(|most| Sources { most, held: Arc::default() }),
        }
    }

    /// A permit, if there is one now.
    pub(super) fn take(&self) -> Option<Permit> {
        let listener = self.listener.clone().try_acquire_owned().ok()?;
        let server = self.server.clone().try_acquire_owned().ok()?;
        Some(Permit { _server: server, _listener: Some(listener), source: None })
    }

    /// A permit of the server alone, for sessions that a table of fixed size bounds already.
    pub(super) fn take_of_server(&self) -> Option<Permit> {
        let server = self.server.clone().try_acquire_owned().ok()?;
        Some(Permit { _server: server, _listener: None, source: None })
    }

    /// A permit, as soon as there is one. Cancel-safe.
    pub(super) async fn wait(&self) -> Permit {
        let never_closed = "these semaphores are never closed";
        let listener = self.listener.clone().acquire_owned().await.expect(never_closed);
        let server = self.server.clone().acquire_owned().await.expect(never_closed);
        Permit { _server: server, _listener: Some(listener), source: None }
    }
}

impl Permits {
    /// Adds the source's own limit to a permit, or refuses. Sources without an IP address have none.
    pub(super) fn admit_source(&self, permit: &mut Permit, remote: &Address) -> bool {
        let (Some(sources), Some(ip)) = (&self.sources, remote.canonical_ip()) else { return true };
        permit.source = sources.take(prefix(ip));
        permit.source.is_some()
    }
}

/// How many sessions each source holds. It has an entry for each source with a session, so it is bounded by their
/// number.
#[derive(Debug, Clone)]
struct Sources {
    most: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

#[derive(Debug)]
struct SourcePermit {
    prefix: IpAddr,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Sources {
    fn take(&self, prefix: IpAddr) -> Option<SourcePermit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(prefix).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(SourcePermit { prefix, held: self.held.clone() })
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.prefix) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.prefix);
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

    fn permits(server: usize, listener: usize, per_source: Option<usize>) -> Permits {
        Permits::new(Arc::new(Semaphore::new(server)), listener, per_source)
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
        let server = Arc::new(Semaphore::new(1));
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
        assert!(permits.admit_source(&mut first, &from("[2001:db8::1]:1")));
        assert!(!permits.admit_source(&mut permits.take().unwrap(), &from("[2001:db8::2]:1")));
        assert!(permits.admit_source(&mut permits.take().unwrap(), &from("[2001:db8:0:1::2]:1")));
        assert!(permits.admit_source(&mut permits.take().unwrap(), &Address::Unnamed));
        drop(first);
        assert!(permits.sources.as_ref().unwrap().held.lock().unwrap().is_empty());
    }
}
