//! What every [`Handler`] must bear, whatever carries its messages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::conversation::{PATIENCE, STILL, within};
use super::{Failure, Outcome, check, in_short, step};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::event::{CloseReason, Event, Observer};
use crate::handler::Handler;
use crate::random::Random;
use crate::registry::{Registry, ResolveError};
use crate::server::{Running, Server};
use crate::service::{Dialler, Service};
use crate::session::Session;

/// The ways on which a handler is tried; those that it says it cannot bear are left out.
const WAYS: [&str; 5] = [
    "memory://handler?framing=raw",
    "memory://handler?framing=lines",
    "memory://handler?framing=length32",
    "memory://handler?kind=messages",
    "memory://handler?kind=datagrams",
];

/// How much a handler is sent that does not read, or whose answers nobody reads.
const FLOOD: usize = 8 << 20;

/// How long a peer may leave unread what it was sent, here.
const WRITE_CLOCK: &str = "1s";

/// Serves the handler over streams of bytes, messages and datagrams in memory, and is every sort of peer to it: one
/// that leaves at once, that sends anything at all, that never reads, that is there when the server drains.
///
/// It must end when its peer does, survive everything without a panic, and wait for whoever does not read. What it
/// answers is its own affair. Needs a tokio runtime with its clock; takes some seconds, and none where the clock is paused.
pub async fn handler_conforms(handler: Arc<dyn Handler>) -> Outcome {
    let mut refusals = Vec::new();
    let registry = Registry::builtin();
    for way in WAYS {
        let at = with_write_clock(way.parse().map_err(|error| Failure::new(format!("{error}")))?);
        match registry.service_of(&at, "handler", handler.clone()) {
            Ok(service) => step(way, serve_and_try(&registry, service, &at).await)?,
            Err(ResolveError::Mismatch { reason }) => refusals.push(reason),
            Err(other) => return Err(Failure::new(other.to_string())),
        }
    }
    check(refusals.len() < WAYS.len(), || format!("there is nothing that it works over: {}", refusals.join("; ")))
}

/// The same at one endpoint, whatever its transport, its layers and its framing: `tcp://127.0.0.1:0?framing=lines`,
/// `unix:///run/x.sock`. For handlers that work with what is outside of this process, where the clock cannot be paused,
/// and for transports of one's own.
pub async fn handler_conforms_at(registry: &Registry, handler: Arc<dyn Handler>, at: &Endpoint) -> Outcome {
    let at = with_write_clock(at.clone());
    let service = registry.service_of(&at, "handler", handler);
    let service = service.map_err(|error| Failure::new(error.to_string()))?;
    step(&at.brief(), serve_and_try(registry, service, &at).await)
}

fn with_write_clock(mut at: Endpoint) -> Endpoint {
    at.options.set("write-timeout", WRITE_CLOCK);
    at
}

async fn serve_and_try(registry: &Registry, service: Service, at: &Endpoint) -> Outcome {
    let watch = Arc::new(Watch::default());
    let bound = Server::new().observer(watch.clone()).serve(service).bind().await;
    let bound = bound.map_err(|error| Failure::new(error.to_string()))?;
    // With the port that the kernel chose.
    let there = bound.listeners().first().map(ToString::to_string).unwrap_or_default();
    let mut there: Endpoint = there.parse().map_err(|error| Failure::new(format!("{there}: {error}")))?;
    there.options = at.options.clone();
    let running = bound.start();
    let dialler = registry.dialler(&there).map_err(|error| Failure::new(error.to_string()))?;
    let outcome = Tried { dialler, watch: watch.clone() }.by_every_peer(running).await;
    // A panic explains whatever else went wrong.
    watch.panics().and(outcome)
}

/// Looks at how sessions end.
#[derive(Default)]
struct Watch {
    /// How many sessions the kit began.
    begun: AtomicUsize,
    closed: AtomicUsize,
    closing: Notify,
    panic: Mutex<Option<String>>,
}

impl Observer for Watch {
    fn observe(&self, event: &Event<'_>) {
        let Event::SessionClosed { reason, error, .. } = event else { return };
        if *reason == CloseReason::Panicked {
            let text = error.map_or_else(String::new, ToString::to_string);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.closing.notify_one();
    }
}

impl Watch {
    fn panics(&self) -> Outcome {
        match &*self.panic.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(text) => Err(Failure::new(format!("it panics: {text}"))),
            None => Ok(()),
        }
    }

    async fn all_closed(&self) {
        while self.closed.load(Ordering::Relaxed) < self.begun.load(Ordering::Relaxed) {
            self.closing.notified().await;
        }
    }
}

struct Tried {
    dialler: Dialler,
    watch: Arc<Watch>,
}

impl Tried {
    async fn by_every_peer(&self, running: Running) -> Outcome {
        if self.dialler.route().capabilities.connected {
            step("a peer that leaves at once", self.leaves().await)?;
            let samples = samples();
            for sample in &samples {
                let what = format!("a peer that sends {}", in_short(sample));
                step(&what, self.speaks(std::slice::from_ref(sample)).await)?;
            }
            step("a peer that sends one thing after another", self.speaks(&samples).await)?;
            step("a peer that breaks off", self.breaks_off().await)?;
            step("a peer that does not read", self.never_reads().await)?;
        } else {
            step("peers that send anything", self.datagrams().await)?;
        }
        step("a server that drains", self.drains(running).await)
    }

    async fn dial(&self) -> Result<Session, Failure> {
        self.watch.begun.fetch_add(1, Ordering::Relaxed);
        let dialled = within("a call", self.dialler.dial()).await?;
        dialled.map_err(|error| Failure::new(error.to_string()))
    }

    async fn leaves(&self) -> Outcome {
        let mut session = self.dial().await?;
        // It may have ended already, of its own accord.
        let _ = session.finish().await;
        heard_out(&mut session).await
    }

    /// Sends all of it, reading what is answered, then ends and hears the handler out.
    async fn speaks(&self, messages: &[Vec<u8>]) -> Outcome {
        let mut session = self.dial().await?;
        let (mut ears, mut mouth) = session.split();
        let speaking = async {
            for message in messages {
                match within("sending", mouth.send(message)).await? {
                    // What the framing cannot carry is not sent.
                    Ok(()) | Err(Error::Framing(_) | Error::TooLong { .. }) => {}
                    // The handler may end whenever it likes.
                    Err(_) => return Ok(()),
                }
                let _ = within("sending", mouth.flush()).await?;
            }
            let _ = within("ending", mouth.finish()).await?;
            Ok(())
        };
        let hearing = async {
            let listening = async { while let Ok(Some(_)) = ears.recv().await {} };
            timeout(2 * PATIENCE, listening).await.map_err(|_| Failure::new("it does not end when its peer does"))
        };
        tokio::try_join!(speaking, hearing)?;
        Ok(())
    }

    /// A connection that is lost ends the handler, whatever it was doing.
    async fn breaks_off(&self) -> Outcome {
        let mut session = self.dial().await?;
        let _ = session.send(b"half a").await;
        let _ = session.flush().await;
        drop(session);
        within("ending with a connection that was lost", self.watch.all_closed()).await
    }

    /// Whoever does not read makes the handler wait, and is cut by the write clock; or the handler takes all and says
    /// nothing.
    async fn never_reads(&self) -> Outcome {
        let mut session = self.dial().await?;
        let message = [b'z'; 4000];
        for _ in 0..FLOOD / message.len() {
            let flooding = async {
                session.send(&message).await?;
                session.flush().await
            };
            match timeout(STILL, flooding).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => break,
                Err(_) => return within("being cut by the write clock", self.watch.all_closed()).await,
            }
        }
        drop(session);
        within("ending", self.watch.all_closed()).await
    }

    async fn datagrams(&self) -> Outcome {
        let mut peers = Vec::new();
        for _ in 0..3 {
            peers.push(self.dial().await?);
        }
        for sample in samples() {
            for peer in &mut peers {
                match peer.send(&sample).await {
                    Ok(()) | Err(Error::TooLong { .. }) => {}
                    Err(error) => return Err(Failure::new(format!("sending fails: {error}"))),
                }
                // At the handler's own speed: what overflows tells nothing.
                let _ = timeout(Duration::from_millis(1), peer.recv()).await;
            }
            self.watch.panics()?;
        }
        Ok(())
    }

    /// Whoever waits in `recv` is told to end, and does.
    async fn drains(&self, running: Running) -> Outcome {
        let connected = self.dialler.route().capabilities.connected;
        let mut session = self.dial().await?;
        let _ = session.send(b"still here").await;
        let _ = session.flush().await;
        let listening = async { while let Ok(Some(_)) = session.recv().await {} };
        let draining = running.drain(PATIENCE);
        tokio::pin!(draining);
        // Those who send without end are read, so that they can end.
        let drained = tokio::select! {
            biased;
            drained = &mut draining => drained,
            () = listening, if connected => draining.await,
        };
        check(drained.cut == 0, || format!("{} sessions go on when they are told to end, and are cut", drained.cut))
    }
}

/// Reads until the handler has ended too.
async fn heard_out(session: &mut Session) -> Outcome {
    let listening = async { while let Ok(Some(_)) = session.recv().await {} };
    timeout(PATIENCE, listening).await.map_err(|_| Failure::new("it does not end when its peer does"))
}

/// Messages of every sort: nothing, words, halves of a character, controls, long ones, and chance.
fn samples() -> Vec<Vec<u8>> {
    let (first, second) = "h\u{e9}".as_bytes().split_at(2);
    let telling: [&[u8]; 15] = [
        b"",
        b"hello",
        first,
        second,
        b"\xff\xfe\0\x80",
        b"\x1b[31m\x07",
        b"\r\n",
        b"a\nb\n",
        b" ",
        b"%n%s%d",
        b"{}",
        b"-1",
        b"99999999999999999999",
        b"../../etc/passwd",
        b"exit",
    ];
    let mut random = Random::new(0);
    let by_chance = (0..30).map(|_| {
        let length = random.below(300);
        random.bytes(length)
    });
    let mut samples: Vec<Vec<u8>> = by_chance.collect();
    samples.extend([vec![b'y'; 8000], vec![0; 60_000]]);
    // Last, since some of them are what a handler ends at.
    samples.extend(telling.iter().map(|message| message.to_vec()));
    samples
}
