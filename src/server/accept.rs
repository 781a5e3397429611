//! The accept loop of one listener: a connection, a permit, then a worker for it. Where those over the limit are to wait, the
//! permit comes first.
//!
//! Nothing a peer does makes it wait: handshakes are the session's own affair. No error ends it for good either:
//! 1. An error that concerns one connection is skipped.
//! 2. When descriptors or memory are exhausted it waits, 5 ms doubling to 1 s or until a session ends, and closes one
//!    connection a round with the help of a spare descriptor, so that peers see a close rather than silence.
//! 3. On any other error the listener is bound again, with back-off, at most [`REBINDS`] times in [`REBIND_WINDOW`].

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use super::connection::Arrival;
use super::errno;
use super::listening::{Listening, Permit};
use crate::event::{AcceptFault, Event, Refusal};
use crate::limits::WhenFull;
use crate::transport::{Acceptor, Incoming, Listener};

use super::Report;
use super::moment::Moment;
use super::watchman::{Phase, Watch};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const REBINDS: usize = 5;
const REBIND_WINDOW: Duration = Duration::from_secs(60);
const REBIND_PAUSE: Duration = Duration::from_millis(100);
/// How many waiting connections are still taken when the server drains, before the listener is closed.
const LAST_ACCEPTS: usize = 4096;

/// Accepts until the server drains, the listener ends or is given up; then waits for the sessions.
pub(super) async fn run(listening: Arc<Listening>, acceptor: Box<dyn Acceptor>) -> Report {
    let mut accepting =
        Accepting { failed: false, spare: Spare::new(), pause: FIRST_PAUSE, rebinds: VecDeque::new(), listening };
    let mut acceptor = Some(acceptor);
    while let Some(mut current) = acceptor.take() {
        match accepting.accept_all(&mut *current).await {
            Stop::Draining => {
                // The reactor has a turn first: whoever tells to drain may be quicker than the news of who has come.
                tokio::task::yield_now().await;
                accepting.take_backlog(&mut *current);
            }
            Stop::Ended => {}
            Stop::Broken(error) => {
                drop(current);
                acceptor = accepting.rebind(error).await;
            }
        }
    }
    accepting.finish().await
}

struct Accepting {
    listening: Arc<Listening>,
    /// Whether the listener was given up.
    failed: bool,
    spare: Spare,
    pause: Duration,
    /// When the listener was bound again, within the window.
    rebinds: VecDeque<Instant>,
}

/// Why accepting stopped.
enum Stop {
    Draining,
    /// The transport has no more connections to give.
    Ended,
    Broken(io::Error),
}

/// What interrupts accepting.
enum Interruption {
    Stop(Stop),
    /// There is no permit now, and one is to be waited for.
    Full,
    Failed(io::Error),
}

impl Accepting {
    async fn accept_all(&mut self, acceptor: &mut dyn Acceptor) -> Stop {
        let listening = self.listening.clone();
        let mut watch = listening.hub.shutdown.watch();
        let mut permit = None;
        loop {
            match poll_fn(|cx| self.poll_accept_all(acceptor, &mut watch, &mut permit, cx)).await {
                Interruption::Stop(stop) => return stop,
                Interruption::Full => {
                    permit = tokio::select! {
                        biased;
                        () = poll_fn(|cx| watch.poll_reached(cx, Phase::Draining)) => return Stop::Draining,
                        permit = Permit::wait(&listening) => Some(permit),
                    };
                }
                Interruption::Failed(error) => {
                    let class = errno::classify(&error);
                    let name = &listening.name;
                    listening.observe(&Event::AcceptFailed { listener: name, reason: class, error: &error });
                    match class {
                        AcceptFault::Transient => {}
                        AcceptFault::Exhausted => self.wait_for_resources(acceptor, &error).await,
                        AcceptFault::Fatal => return Stop::Broken(error),
                    }
                }
            }
        }
    }

    /// Begins a session for each that calls, until nobody does. Where those over the limit wait, none is taken out of the
    /// backlog without a `permit`; and it is only held while somebody calls, so that one which all listeners share is not
    /// kept from those that need it.
    fn poll_accept_all(
        &mut self,
        acceptor: &mut dyn Acceptor,
        watch: &mut Watch,
        permit: &mut Option<Permit>,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption> {
        let waits = self.listening.service.limits.when_full == WhenFull::Wait;
        // All that waited were there at this moment.
        let now = self.listening.hub.now();
        loop {
            if watch.poll_reached(cx, Phase::Draining).is_ready() {
                return Poll::Ready(Interruption::Stop(Stop::Draining));
            }
            if waits && permit.is_none() {
                *permit = Permit::take(&self.listening);
                if permit.is_none() {
                    return Poll::Ready(Interruption::Full);
                }
            }
            match acceptor.poll_accept(cx) {
                Poll::Ready(Ok(Some(incoming))) => self.admit(permit.take(), incoming, now),
                Poll::Ready(Ok(None)) => return Poll::Ready(Interruption::Stop(Stop::Ended)),
                Poll::Ready(Err(error)) => return Poll::Ready(Interruption::Failed(error)),
                Poll::Pending => {
                    *permit = None;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Begins the session, or closes the connection with a reason that is counted.
    fn admit(&mut self, permit: Option<Permit>, incoming: Box<dyn Incoming>, at: Moment) {
        self.pause = FIRST_PAUSE;
        let Some(mut permit) = permit.or_else(|| Permit::take(&self.listening)) else {
            return self.refuse(incoming, Refusal::MaxSessions);
        };
        if !permit.admit_source(incoming.remote()) {
            return self.refuse(incoming, Refusal::MaxSessionsPerIp);
        }
        self.listening.hub.begin(Arrival { permit, incoming, at });
    }

    #[expect(clippy::needless_pass_by_value, reason = "dropping it closes the connection")]
    fn refuse(&self, incoming: Box<dyn Incoming>, reason: Refusal) {
        let remote = incoming.remote();
        self.listening.observe(&Event::ConnectionRefused {
            listener: &self.listening.name,
            remote,
            reason,
            error: None,
        });
    }

    async fn wait_for_resources(&mut self, acceptor: &mut dyn Acceptor, error: &io::Error) {
        if errno::lacks_descriptor(error) && self.spare.give_up() {
            if let Some(Ok(Some(incoming))) = accept_now(acceptor) {
                self.refuse(incoming, Refusal::NoDescriptor);
            }
            self.spare.take_back();
        }
        let hub = self.listening.hub.clone();
        let pause = sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = pause => {}
            () = hub.session_ended.next() => {}
            () = hub.shutdown.draining() => {}
        }
        self.spare.take_back();
    }

    /// Takes what waits in the backlog already: closing the listener would reset it.
    fn take_backlog(&mut self, acceptor: &mut dyn Acceptor) {
        let now = self.listening.hub.now();
        for _ in 0..LAST_ACCEPTS {
            match accept_now(acceptor) {
                Some(Ok(Some(incoming))) => self.admit(None, incoming, now),
                Some(Err(error)) if errno::classify(&error) == AcceptFault::Transient => {}
                _ => return,
            }
        }
    }

    async fn rebind(&mut self, mut error: io::Error) -> Option<Box<dyn Acceptor>> {
        let listening = self.listening.clone();
        let mut pause = REBIND_PAUSE;
        loop {
            let now = Instant::now();
            self.rebinds.retain(|at| now - *at < REBIND_WINDOW);
            if self.rebinds.len() >= REBINDS {
                listening.observe(&Event::ListenerFailed { listener: &listening.name, error: &error });
                self.failed = true;
                return None;
            }
            self.rebinds.push_back(now);
            tokio::select! {
                () = listening.hub.shutdown.draining() => return None,
                () = sleep(pause) => {}
            }
            pause *= 2;
            match listening.service.transport.bind(&listening.bound_endpoint()).await {
                Ok(Listener::Connections(acceptor)) => {
                    listening.observe(&Event::ListenerRebound { listener: &listening.name });
                    return Some(acceptor);
                }
                Ok(Listener::Datagrams(_)) => error = io::Error::other("the transport now yields datagrams"),
                Err(failed) => error = failed.source,
            }
        }
    }

    /// Waits for the sessions.
    async fn finish(self) -> Report {
        // Each of them watches for the deadline itself.
        self.listening.all_over().await;
        self.listening.report(self.failed)
    }
}

/// The connection that waits already, if one does. The budget that tokio gives a task for one turn does not count here.
fn accept_now(acceptor: &mut dyn Acceptor) -> Option<io::Result<Option<Box<dyn Incoming>>>> {
    tokio::task::unconstrained(poll_fn(|cx| acceptor.poll_accept(cx))).now_or_never()
}

/// A descriptor held for the moment when there is no other.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        let mut spare = Spare(None);
        spare.take_back();
        spare
    }

    fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    fn take_back(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }
}
