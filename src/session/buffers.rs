//! Buffers that belong to the thread, lent to whichever session is running, so that an idle one holds none.
//!
//! Reading: one large scratch buffer. What a read brings is split off it without a copy, and once all messages cut
//! from it are gone its memory is used again: in the steady state nothing is allocated per message.
//! Writing: a few small buffers, taken when a session has something to send and given back when it is written.

use std::cell::RefCell;

use bytes::BytesMut;

/// The most that one read brings.
pub(super) const READ_SIZE: usize = 64 * 1024;
/// Two reads fit, so that the memory is gone round less often than it is read into.
const SCRATCH_SIZE: usize = 2 * READ_SIZE;
/// A buffer that grew beyond this is freed rather than kept.
const KEPT_CAPACITY: usize = 64 * 1024;
const KEPT_BUFFERS: usize = 32;
const FIRST_CAPACITY: usize = 1024;

thread_local! {
    static SCRATCH: RefCell<BytesMut> = RefCell::default();
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `read` with an empty buffer that has room for [`READ_SIZE`] bytes. What it leaves in the buffer is dropped, so
/// it splits off what it keeps.
#[inline]
pub(super) fn with_scratch<T>(read: impl FnOnce(&mut BytesMut) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => with_room(&mut scratch, read),
        // A link may itself be made of sessions, and read from within a read.
        Err(_) => with_room(&mut BytesMut::new(), read),
    })
}

#[inline]
fn with_room<T>(scratch: &mut BytesMut, read: impl FnOnce(&mut BytesMut) -> T) -> T {
    if scratch.capacity() < READ_SIZE {
        scratch.reserve(SCRATCH_SIZE);
    }
    let result = read(scratch);
    scratch.clear();
    result
}

/// An empty buffer to write into.
pub(super) fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(FIRST_CAPACITY))
}

/// Gives a buffer back.
pub(super) fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=KEPT_CAPACITY).contains(&buffer.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}
