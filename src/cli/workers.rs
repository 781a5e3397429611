//! The threads that sessions are spread over.

use std::io;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::options::Period;

/// How many threads serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// As many as there are processors for this process.
    Auto,
    /// So many.
    Exactly(NonZeroUsize),
}

impl FromStr for Count {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Count::Auto),
            number => number.parse().map(Count::Exactly).map_err(|_| "write a number above 0, or auto"),
        }
    }
}

impl Count {
    fn get(self) -> usize {
        match self {
            Count::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Count::Exactly(count) => count.get(),
        }
    }
}

/// How long a thread looks for the next message before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BusyPoll(Duration);

impl BusyPoll {
    const LONGEST: Duration = Duration::from_secs(1);
}

impl FromStr for BusyPoll {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let limit = text.parse::<Period>().map_err(|error| error.to_string())?.duration();
        if limit > Self::LONGEST {
            return Err("write 1s or less: it occupies a processor for so long after each message".to_owned());
        }
        Ok(BusyPoll(limit))
    }
}

/// How many tasks run before the reactor has its turn where there is always another one; tokio's own number is 61.
/// Connections are looked at in between without it, so that this is for new ones and for timers, and under load each turn
/// is two system calls more.
const TASKS_A_TURN: u32 = 128;

/// A runtime of one thread: no message ever crosses to another.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().event_interval(TASKS_A_TURN).build()
}

/// The threads beside the main one. They are told to end when this is dropped; one that is stuck in a handler holds
/// nobody up.
pub(super) struct Workers {
    stops: Vec<oneshot::Sender<()>>,
    handles: Vec<Handle>,
}

impl Workers {
    /// Starts them; `main` is the runtime of the main thread, which takes its share of the sessions.
    pub(super) fn start(count: Count, busy_poll: Option<BusyPoll>, main: &Runtime) -> io::Result<Self> {
        let mut workers = Workers { stops: Vec::new(), handles: Vec::new() };
        let count = count.get();
        let keep_awake = |runtime: &Runtime| {
            if let Some(BusyPoll(limit)) = busy_poll {
                runtime.spawn(crate::server::busy_poll(limit));
            }
        };
        keep_awake(main);
        if count == 1 {
            return Ok(workers);
        }
        workers.handles.push(main.handle().clone());
        for number in 1..count {
            let runtime = runtime()?;
            keep_awake(&runtime);
            workers.handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel();
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // Told, or left alone: both mean the end.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })?;
            workers.stops.push(stop);
        }
        Ok(workers)
    }

    /// The runtimes to spread sessions over; none where the main thread serves alone.
    pub(super) fn handles(&self) -> Vec<Handle> {
        self.handles.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_number_above_0_or_auto() {
        assert_eq!("auto".parse(), Ok(Count::Auto));
        assert_eq!("3".parse::<Count>().map(Count::get), Ok(3));
        for wrong in ["0", "-1", "many", ""] {
            assert!(wrong.parse::<Count>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn busy_polling_is_bounded() {
        assert_eq!("200us".parse(), Ok(BusyPoll(Duration::from_micros(200))));
        assert_eq!("1s".parse(), Ok(BusyPoll(Duration::from_secs(1))));
        for wrong in ["2s", "", "soon"] {
            assert!(wrong.parse::<BusyPoll>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_worker_runs_what_it_is_given() {
        let main = runtime().unwrap();
        let workers = Workers::start("3".parse().unwrap(), None, &main).unwrap();
        assert_eq!(workers.handles().len(), 3);
        let on_worker = workers.handles()[2].spawn(async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(main.block_on(on_worker).unwrap().as_deref(), Some("worker-2"));
    }
}
