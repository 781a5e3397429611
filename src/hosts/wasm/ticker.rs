//! Time as guests feel it: a thread that advances the engine's epoch while a guest is at work, and sleeps otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest runs before it lets others have their turn.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// So many ticks without a guest at work let the thread sleep: waking it costs more than a message.
const IDLE_TICKS: u32 = 100;

/// Advances an engine's epoch as long as it is held.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    at_work: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
}

/// A guest is at work as long as this is held.
pub(super) struct AtWork<'a>(&'a Shared);

impl Ticker {
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (engine, seen) = (engine.weak(), shared.clone());
        let tick = move || {
            let mut idle = 0;
            while !seen.over.load(Ordering::SeqCst) {
                thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                idle = if seen.at_work.load(Ordering::SeqCst) > 0 { 0 } else { idle + 1 };
                if idle >= IDLE_TICKS {
                    seen.asleep.store(true, Ordering::SeqCst);
                    // Whoever began in between may not have seen it asleep; whoever begins later does.
                    while seen.at_work.load(Ordering::SeqCst) == 0 && !seen.over.load(Ordering::SeqCst) {
                        thread::park();
                    }
                    seen.asleep.store(false, Ordering::SeqCst);
                    idle = 0;
                }
            }
        };
        let thread = thread::Builder::new().name("greetd-wasm".to_owned()).spawn(tick)?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    pub(super) fn at_work(&self) -> AtWork<'_> {
        self.shared.at_work.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        AtWork(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
