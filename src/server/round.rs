//! What sessions of a crew do one after the other: first all their handlers run, then what they sent is written. (What has come
//! for them over a socket was read before, by its selector.)
//!
//! The processor's caches then hold one way through the kernel, after it the handlers, and then the other way, rather than each
//! of them anew for each message. To write later saves 3 to 4 % of what a message costs, the kernel's part included.

use std::cell::Cell;
use std::task::Context;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use super::moment::Moment;
use crate::session::WireRef;
use crate::session::turn::Sent;

/// How many run before what the first of them sent is written: as long as that can a slow one hold it up.
pub(super) const TOGETHER: usize = 16;

thread_local! {
    static STEP: Cell<Step> = const { Cell::new(Step::Alone) };
    static UNWRITTEN: Cell<Option<Unwritten>> = const { Cell::new(None) };
    static NOW: Cell<Option<(Option<TimeSpec>, Moment)>> = const { Cell::new(None) };
}

/// What a session is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It runs by itself, and writes what it sent at once.
    Alone,
    /// It runs, and what it sent may be written later.
    Running,
    /// It writes what it sent, which was not done at once, and looks at its clocks.
    Settling,
}

/// What a session sent that is to be written later, and where to.
pub(super) struct Unwritten {
    sent: Sent,
    wire: WireRef,
}

impl Unwritten {
    /// Writes it; whether that was all. If not, what is left is the session's.
    pub(super) fn write(self, cx: &mut Context<'_>) -> bool {
        self.sent.write(&self.wire, cx)
    }
}

/// Runs a session; gives what it sent that is to be written later, if there is any.
#[inline]
pub(super) fn run(step: Step, session: impl FnOnce()) -> Option<Unwritten> {
    STEP.set(step);
    session();
    STEP.set(Step::Alone);
    UNWRITTEN.take()
}

/// What the session that runs is run for.
#[inline]
pub(super) fn step() -> Step {
    STEP.get()
}

/// What the session that runs has sent is written later.
#[inline]
pub(super) fn write_later(sent: Sent, wire: &WireRef) {
    UNWRITTEN.set(Some(Unwritten { sent, wire: wire.clone() }));
}

/// The moment that it is, for which those that write later look at the clock once: it costs as much as a good part of what they
/// do.
#[inline]
pub(super) fn now(look: impl FnOnce() -> Moment) -> Moment {
    let (_, now) = NOW.get().unwrap_or_else(|| {
        let looked = (tick(), look());
        NOW.set(Some(looked));
        looked
    });
    now
}

/// The moment that it is, or was within the same tick of the kernel's clock: for who only tells of it.
pub(super) fn about_now(look: impl FnOnce() -> Moment) -> Moment {
    match (STEP.get(), NOW.get()) {
        (Step::Running, Some((looked, now))) if looked == tick() => now,
        (Step::Running, None) => now(look),
        _ => look(),
    }
}

/// Others begin to run, some time later: who asks next looks at the clock anew.
pub(super) fn begin() {
    NOW.set(None);
}

/// Whether what they saw on the clock may stand. If not, they have to settle with a look of their own, and who asks next looks
/// anew.
pub(super) fn was_short() -> bool {
    let short = NOW.get().is_none_or(|(looked, _)| looked == tick());
    if !short {
        NOW.set(None);
    }
    short
}

/// The tick of the kernel's clock, one of some milliseconds, which costs next to nothing to ask for; clock_gettime(2).
fn tick() -> Option<TimeSpec> {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_run_together_look_at_the_clock_once_unless_one_of_them_takes_long() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            Moment::PAST
        };
        begin();
        let looked_in_vain = loop {
            let before = looks.get();
            for _ in 0..2 {
                assert_eq!(now(look), Moment::PAST);
            }
            if was_short() {
                break before;
            }
        };
        assert_eq!(looks.get(), looked_in_vain + 1);
        let began = tick();
        while tick() == began {}
        assert!(!was_short());
        assert_eq!((now(look), looks.get()), (Moment::PAST, looked_in_vain + 2));
        begin();
        assert_eq!((now(look), looks.get()), (Moment::PAST, looked_in_vain + 3));
    }

    #[test]
    fn who_only_tells_of_the_moment_shares_the_look_of_those_that_it_runs_with_within_a_tick() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            Moment::PAST
        };
        about_now(look);
        assert_eq!((looks.get(), NOW.get()), (1, None), "it is run by itself");
        let running = Step::Running;
        loop {
            begin();
            looks.set(0);
            run(running, || {
                about_now(look);
                about_now(look);
            });
            if was_short() {
                break;
            }
        }
        assert_eq!(looks.get(), 1);
        let began = tick();
        while tick() == began {}
        run(running, || {
            about_now(look);
        });
        assert_eq!(looks.get(), 2);
        assert!(!was_short(), "those that looked before have yet to be told");
    }
}
