//! Exact limits: a permit is taken before a connection is accepted and kept by its session until the end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::returns::Returns;
use crate::address::Address;

/// Who may begin a session: the whole server, one listener of it, one source.
#[derive(Debug)]
pub(super) struct Permits {
    /// None where the server as a whole has no limit. Listeners that wait for it are served in turn.
    server: Option<Arc<Semaphore>>,
    /// How many the listener may give, and how many are held.
    most: usize,
    held: AtomicUsize,
    sources: Option<Sources>,
    /// Those of this listener that come back.
    returns: Returns,
}

/// Whoever permits sessions.
pub(super) trait Permitting {
    fn permits(&self) -> &Permits;

    /// A permit has come back.
    fn note_return(&self) {}
}

/// The right to one session; given back when it is dropped. It leads to whoever gave it, and is small, since each session
/// holds one.
#[derive(Debug)]
pub(super) struct Permit<P: Permitting> {
    of: Arc<P>,
    source: Option<Box<IpAddr>>,
}

impl Permits {
    pub(super) fn new(server: Option<Arc<Semaphore>>, listener: usize, per_source: Option<usize>) -> Self {
        Permits {
            server,
            most: listener,
            held: AtomicUsize::new(0),
            sources: per_source.map(|most| Sources { most, held: Mutex::default() }),
            returns: Returns::default(),
        }
    }

    /// Waits until no permit is held.
    pub(super) async fn all_back(&self) {
        self.returns.until(|| (self.held.load(Ordering::SeqCst) == 0).then_some(())).await;
    }

    fn has_room(&self) -> bool {
        self.held.load(Ordering::SeqCst) < self.most
    }

    fn take_of_listener(&self) -> Option<()> {
        let one_more = |held| (held < self.most).then_some(held + 1);
        self.held.fetch_update(Ordering::SeqCst, Ordering::Relaxed, one_more).ok().map(drop)
    }

    fn give_back_to_listener(&self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
        self.returns.tell();
    }
}

impl<P: Permitting> Permit<P> {
    /// A permit, if there is one now.
    pub(super) fn take(of: &Arc<P>) -> Option<Self> {
        let permits = of.permits();
        permits.take_of_listener()?;
        if let Some(server) = &permits.server {
            let Ok(taken) = server.try_acquire() else {
                permits.give_back_to_listener();
                return None;
            };
            taken.forget();
        }
        Some(Permit { of: of.clone(), source: None })
    }

    /// A permit, as soon as there is one. Cancel-safe.
    pub(super) async fn wait(of: &Arc<P>) -> Self {
        let permits = of.permits();
        loop {
            permits.returns.until(|| permits.has_room().then_some(())).await;
            let Some(server) = &permits.server else {
                if let Some(permit) = Permit::take(of) {
                    return permit;
                }
                continue;
            };
            let taken = server.acquire().await.expect("this semaphore is never closed");
            if permits.take_of_listener().is_some() {
                taken.forget();
                return Permit { of: of.clone(), source: None };
            }
        }
    }

    /// Adds the source's own limit, or says that it is reached. Sources without an IP address have none.
    pub(super) fn admit_source(&mut self, remote: &Address) -> bool {
        let Some(sources) = &self.of.permits().sources else { return true };
        let Some(ip) = remote.canonical_ip() else { return true };
        let prefix = prefix(ip);
        let admitted = sources.take(prefix);
        self.source = admitted.then(|| Box::new(prefix));
        admitted
    }
}

impl<P: Permitting> Deref for Permit<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.of
    }
}

impl<P: Permitting> Drop for Permit<P> {
    fn drop(&mut self) {
        let permits = self.of.permits();
        if let (Some(prefix), Some(sources)) = (self.source.take(), &permits.sources) {
            sources.give_back(*prefix);
        }
        if let Some(server) = &permits.server {
            server.add_permits(1);
        }
        permits.give_back_to_listener();
        self.of.note_return();
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
    use futures_util::FutureExt;

    impl Permitting for Permits {
        fn permits(&self) -> &Permits {
            self
        }
    }

    fn permits(server: usize, listener: usize, per_source: Option<usize>) -> Arc<Permits> {
        Arc::new(Permits::new(Some(Arc::new(Semaphore::new(server))), listener, per_source))
    }

    #[test]
    fn a_limit_is_exact_and_a_permit_comes_back_with_its_session() {
        let permits = permits(10, 2, None);
        let first = Permit::take(&permits).unwrap();
        let _second = Permit::take(&permits).unwrap();
        assert!(Permit::take(&permits).is_none());
        drop(first);
        assert!(Permit::take(&permits).is_some());
    }

    #[test]
    fn the_server_s_limit_holds_over_all_listeners() {
        let server = Some(Arc::new(Semaphore::new(1)));
        let [a, b] = [server.clone(), server].map(|server| Arc::new(Permits::new(server, 5, None)));
        let held = Permit::take(&a).unwrap();
        assert!(Permit::take(&b).is_none());
        drop(held);
        assert!(Permit::take(&b).is_some());
    }

    #[test]
    fn whoever_waits_has_the_next_permit_and_holds_none_before() {
        for (server, listener) in [(10, 1), (1, 10)] {
            let permits = permits(server, listener, None);
            let held = Permit::take(&permits).unwrap();
            let mut given_up = Box::pin(Permit::wait(&permits));
            let mut waiting = Box::pin(Permit::wait(&permits));
            assert!((&mut given_up).now_or_never().is_none() && (&mut waiting).now_or_never().is_none());
            drop((given_up, held));
            let next = waiting.now_or_never().unwrap();
            assert!(Permit::take(&permits).is_none());
            drop(next);
            assert!(permits.all_back().now_or_never().is_some());
        }
    }

    #[test]
    fn whoever_waits_for_all_of_them_waits_for_the_last() {
        let permits = permits(10, 10, None);
        let [first, last] = [(); 2].map(|()| Permit::take(&permits).unwrap());
        let mut waiting = Box::pin(permits.all_back());
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().is_none());
        drop(last);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn sources_in_one_ipv6_network_share_a_limit_and_leave_nothing_behind() {
        let permits = permits(10, 10, Some(1));
        let from = |text: &str| Address::Ip(text.parse().unwrap());
        let take = || Permit::take(&permits).unwrap();
        let mut first = take();
        assert!(first.admit_source(&from("[2001:db8::1]:1")));
        assert!(!take().admit_source(&from("[2001:db8::2]:1")));
        assert!(take().admit_source(&from("[2001:db8:0:1::2]:1")));
        assert!(take().admit_source(&Address::Unnamed));
        drop(first);
        assert!(permits.sources.as_ref().unwrap().held.lock().unwrap().is_empty());
    }
}
