//! Wakes connections when their requests are due, more finely than the runtime's timers, which tick once a millisecond.
//!
//! One timer of the kernel serves all of them (timerfd_create(2)); it wakes a moment early, and the rest is waited for by
//! asking the clock, between which everything else has its turn. Where the clock is paused, or the kernel has no such
//! timer, the runtime's timers do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::clock::{Clock, Moment};

/// How early the kernel's timer wakes: about what it takes to wake a processor that sleeps.
const EARLY: Moment = 60_000;

/// What the connections wait for.
#[derive(Default)]
pub(super) struct Alarm {
    waiting: Mutex<Waiting>,
    sooner: Notify,
}

#[derive(Default)]
struct Waiting {
    times: BinaryHeap<Reverse<(Moment, usize)>>,
    /// For each connection: whom to wake and when, while it waits.
    wakers: Vec<Option<(Moment, Waker)>>,
}

impl Alarm {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the connection at that time. Asked again for the same time it does nothing more.
    pub(super) fn set(&self, connection: usize, due: Moment, cx: &Context<'_>) {
        let mut waiting = self.waiting();
        if waiting.wakers.len() <= connection {
            waiting.wakers.resize_with(connection + 1, || None);
        }
        if waiting.wakers[connection].as_ref().is_some_and(|(at, _)| *at == due) {
            return;
        }
        waiting.wakers[connection] = Some((due, cx.waker().clone()));
        let is_first = waiting.times.peek().is_none_or(|Reverse((first, _))| due < *first);
        waiting.times.push(Reverse((due, connection)));
        drop(waiting);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// Wakes whoever is due, and tells when the next one is.
    fn ring(&self, now: Moment) -> Option<Moment> {
        let mut waiting = self.waiting();
        while let Some(Reverse((due, connection))) = waiting.times.peek().copied() {
            if due > now {
                return Some(due);
            }
            waiting.times.pop();
            // Another time may have been set since.
            if let Some((_, waker)) = waiting.wakers[connection].take_if(|(at, _)| *at == due) {
                waker.wake();
            }
        }
        None
    }

    /// Rings for as long as this is run; `precise` is for a clock that runs by itself.
    pub(super) async fn run(&self, clock: Clock, precise: bool) {
        let timer = if precise { Timer::new().ok() } else { None };
        loop {
            let now = clock.now();
            match (self.ring(now), &timer) {
                (None, _) => self.sooner.notified().await,
                (Some(due), None) => tokio::select! {
                    () = sleep_until(clock.instant(due)) => {}
                    () = self.sooner.notified() => {}
                },
                (Some(due), Some(timer)) if due - now > EARLY => tokio::select! {
                    // A timer that fails has fired: the clock is asked all the same.
                    _ = timer.wait(Duration::from_nanos(due - now - EARLY)) => {}
                    () = self.sooner.notified() => {}
                },
                (Some(_), Some(_)) => tokio::task::yield_now().await,
            }
        }
    }
}

/// A timer of the kernel.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "its successor is newer than the oldest tokio that is supported")]
        Ok(Timer(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    async fn wait(&self, time: Duration) -> io::Result<()> {
        let value = Timespec::try_from(time).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        // What it counted before is forgotten by that.
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            if ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?)).is_ok() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Poll;

    /// Waits for those times, one after another.
    async fn waits(alarm: &Alarm, clock: Clock, connection: usize, times: &[Moment]) -> Vec<Moment> {
        let mut woken = Vec::new();
        for due in times {
            poll_fn(|cx| {
                if clock.now() >= *due {
                    return Poll::Ready(());
                }
                alarm.set(connection, *due, cx);
                Poll::Pending
            })
            .await;
            woken.push(clock.now());
        }
        woken
    }

    fn ringing(clock: Clock, precise: bool) -> Arc<Alarm> {
        let alarm = Arc::new(Alarm::default());
        let running = alarm.clone();
        tokio::spawn(async move { running.run(clock, precise).await });
        alarm
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_woken_at_its_own_times_and_a_sooner_one_is_not_kept_waiting() {
        let clock = Clock::start();
        let alarm = ringing(clock, false);
        let millis = |millis: &[u64]| millis.iter().map(|time| time * 1_000_000).collect::<Vec<Moment>>();
        let (first, second) = (millis(&[10, 30, 31]), millis(&[5, 30, 90]));
        let (one, two) = tokio::join!(waits(&alarm, clock, 0, &first), waits(&alarm, clock, 1, &second));
        assert_eq!((one, two), (first, second));
    }

    #[tokio::test]
    async fn nobody_is_woken_early_by_the_kernel_s_timer() {
        let clock = Clock::start();
        let alarm = ringing(clock, true);
        let times: Vec<Moment> = (1..=20).map(|number| number * 300_000).collect();
        let woken = waits(&alarm, clock, 3, &times).await;
        assert!(woken.iter().zip(&times).all(|(woken, due)| woken >= due), "{woken:?}");
    }
}
