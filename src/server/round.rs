//! What sessions of a crew do one after the other: first all their handlers run, then what they sent is written.
//!
//! The processor's caches then hold one way through the kernel, and after it the other, rather than each of them anew for
//! each message: 3 to 4 % of what a message costs, the kernel's part included.

use std::cell::Cell;

use super::moment::Moment;

/// How many handlers run before what the first of them sent is written: as long as that can a slow one hold it up.
pub(super) const TOGETHER: usize = 16;

thread_local! {
    static STEP: Cell<Step> = const { Cell::new(Step::Alone) };
    static SETTLES_LATER: Cell<bool> = const { Cell::new(false) };
    static NOW: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// What a session is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It runs by itself, and settles at once.
    Alone,
    /// It runs, and may settle later.
    Running,
    /// It settles: writes what it sent, and looks at its clocks.
    Settling,
}

/// Runs a session. Whether it is to be run once more, to settle.
#[inline]
pub(super) fn run(step: Step, session: impl FnOnce()) -> bool {
    STEP.set(step);
    session();
    STEP.set(Step::Alone);
    SETTLES_LATER.replace(false)
}

/// What the session that runs is run for.
#[inline]
pub(super) fn step() -> Step {
    STEP.get()
}

/// The session that runs settles later.
#[inline]
pub(super) fn settle_later() {
    SETTLES_LATER.set(true);
}

/// Some sessions begin to settle.
#[inline]
pub(super) fn begin_to_settle() {
    NOW.set(None);
}

/// The moment that it is, for which those that settle one after the other look at the clock once.
#[inline]
pub(super) fn now(look: impl FnOnce() -> Moment) -> Moment {
    if step() != Step::Settling {
        return look();
    }
    NOW.get().unwrap_or_else(|| {
        let now = look();
        NOW.set(Some(now));
        now
    })
}
