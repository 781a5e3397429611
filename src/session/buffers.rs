//! Buffers that belong to the thread, lent to whichever session is running, so that an idle one holds none.
//!
//! Reading: what a read brings is copied out of one large scratch buffer into a small one, which the session has until it
//! is through with all of it. Writing: a small one, until all is written. In the steady state nothing is allocated for a
//! message.

use std::cell::RefCell;

use super::input::Reading;
use super::output::Unwritten;

/// The most that one read brings.
const READ_SIZE: usize = 64 * 1024;
/// A buffer that grew beyond this is freed rather than kept.
pub(super) const KEPT_CAPACITY: usize = 64 * 1024;
const KEPT_BUFFERS: usize = 64;
pub(super) const FIRST_CAPACITY: usize = 1024;

/// The boxes themselves are lent: an idle session has the place for a pointer and no more.
type Spare<T> = Vec<Box<T>>;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SPARE_READINGS: RefCell<Spare<Reading>> = const { RefCell::new(Vec::new()) };
    static SPARE_OUTPUTS: RefCell<Spare<Unwritten>> = const { RefCell::new(Vec::new()) };
}

/// Runs `read` with room for as much as one read is to bring.
#[inline]
pub(super) fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| {
        let (mut lent, mut own);
        let scratch = if let Ok(scratch) = scratch.try_borrow_mut() {
            lent = scratch;
            &mut *lent
        } else {
            // A link may itself be made of sessions, and read from within a read.
            own = Vec::new();
            &mut own
        };
        if scratch.is_empty() {
            // Not `resize`, which would write to every page.
            *scratch = vec![0; READ_SIZE];
        }
        read(scratch)
    })
}

/// A place for what was read, with nothing in it.
#[expect(clippy::unnecessary_box_returns, reason = "it is the box that is lent")]
pub(super) fn take_reading() -> Box<Reading> {
    SPARE_READINGS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives one back with which its session is through. Messages that were taken out of it, and are still held, keep its
/// memory.
pub(super) fn give_reading(reading: Box<Reading>) {
    if reading.capacity() <= KEPT_CAPACITY {
        SPARE_READINGS.with_borrow_mut(|spare| {
            if spare.len() < KEPT_BUFFERS {
                spare.push(reading);
            }
        });
    }
}

/// An empty buffer to write into.
#[expect(clippy::unnecessary_box_returns, reason = "it is the box that is lent")]
pub(super) fn take_output() -> Box<Unwritten> {
    SPARE_OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Box::new(Unwritten(Vec::with_capacity(FIRST_CAPACITY))))
}

/// Gives one back.
pub(super) fn give_output(mut buffer: Box<Unwritten>) {
    buffer.0.clear();
    if (1..=KEPT_CAPACITY).contains(&buffer.0.capacity()) {
        SPARE_OUTPUTS.with_borrow_mut(|spare| {
            if spare.len() < KEPT_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}
