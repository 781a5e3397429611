//! What was read from a stream of bytes before its session runs: who runs sessions one after the other may first read for all
//! of them.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::input::Input;
use crate::link::ByteStream;

/// The most that is read: what comes after it the session reads by itself. Most of what is sent at once is less, and who sends
/// much is served best by large reads, of which there is one at a time.
const ROOM: usize = 4 * 1024;
/// How many buffers a thread keeps: as many as have something in them at a time, as a rule.
const SPARE: usize = 16;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<Came>>> = const { RefCell::new(Vec::new()) };
}

/// At most one read, until the session asks for it.
#[derive(Default)]
pub(super) struct Ahead(Option<Box<Came>>);

/// What one read brought.
struct Came {
    bytes: [u8; ROOM],
    count: usize,
    failure: Option<io::Error>,
    /// What the link panicked with: that is the session's affair.
    panic: Option<Box<dyn Any + Send>>,
    /// Its session has run without asking for it: of what came behind it nobody tells again.
    passed_over: bool,
}

impl Ahead {
    /// Reads, if there is something to be read.
    pub(super) fn read(&mut self, io: &mut dyn ByteStream, cx: &mut Context<'_>) {
        if self.0.is_some() {
            return;
        }
        let spare = BUFFERS.with_borrow_mut(Vec::pop);
        let mut came = spare.unwrap_or_else(|| {
            Box::new(Came { bytes: [0; ROOM], count: 0, failure: None, panic: None, passed_over: false })
        });
        came.passed_over = false;
        let mut buffer = ReadBuf::new(&mut came.bytes);
        match catch_unwind(AssertUnwindSafe(|| Pin::new(io).poll_read(cx, &mut buffer))) {
            Ok(Poll::Pending) => return give_back(came),
            Ok(Poll::Ready(Ok(()))) => came.count = buffer.filled().len(),
            Ok(Poll::Ready(Err(error))) => (came.count, came.failure) = (0, Some(error)),
            Err(panic) => (came.count, came.panic) = (0, Some(panic)),
        }
        self.0 = Some(came);
    }

    /// Gives what was read, the end or a failure, if any of it was.
    #[inline]
    pub(super) fn put_into(&mut self, input: &mut Input) -> io::Result<()> {
        let Some(mut came) = self.0.take() else { return Ok(()) };
        if let Some(panic) = came.panic.take() {
            resume_unwind(panic);
        }
        if let Some(error) = came.failure.take() {
            return Err(error);
        }
        input.put(&came.bytes[..came.count], came.count < ROOM && !came.passed_over);
        give_back(came);
        Ok(())
    }

    /// Its session has run without taking it: it may have been woken for what came behind it, and nobody is again.
    pub(super) fn pass_over(&mut self) {
        if let Some(came) = &mut self.0 {
            came.passed_over = true;
        }
    }

    /// Drops what was read; whether it was the end, or some bytes, where something was.
    pub(super) fn discard(&mut self) -> Option<Discarded> {
        let came = mem::take(self).0?;
        Some(if came.count == 0 { Discarded::End } else { Discarded::Bytes })
    }
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discarded {
    Bytes,
    /// Or a failure.
    End,
}

fn give_back(came: Box<Came>) {
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < SPARE {
            buffers.push(came);
        }
    });
}
