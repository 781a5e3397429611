//! What the sessions of one child share: the bytes on their way to it, and an inbox for each session.
//!
//! A message to the child is one copy into a common buffer. It is written by the session itself when nothing else is on
//! its way (no other thread need wake up), and by the [driver](super::driver) otherwise, which then writes many at
//! once. An answer is a piece of what the driver read, laid into its session's inbox: neither copied nor allocated.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::hosts::child::register;
use crate::hosts::frame::{self, Frame, Type};

/// How many bytes may wait to be written to the child before sessions wait with their next message.
const WATERMARK: usize = 256 * 1024;
/// How many bytes may wait for one session whose peer does not take them. What is more costs that session its life:
/// the child cannot be made to wait, since it speaks for all.
const INBOX: usize = 4 << 20;

/// What a child says in one session.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Bytes),
    Silent,
    Push(Bytes),
    Close(Bytes),
    Failed(String),
}

pub(super) struct Link {
    stdin: AsyncFd<OwnedFd>,
    driver: AtomicWaker,
    state: Mutex<State>,
}

struct State {
    /// Written to the child as far as it takes it.
    outbox: BytesMut,
    /// Those who wait until there is room in it.
    room: Vec<Waker>,
    talks: HashMap<u32, Entry>,
    /// The number of the last session.
    number: u32,
    /// Messages that are not answered, of all sessions.
    in_flight: usize,
    /// When the child last said anything.
    heard: Instant,
    /// Why there will be no more sessions.
    over: Option<Arc<str>>,
    /// Why the child must go.
    condemned: Option<String>,
}

struct Entry {
    inbox: Arc<Inbox>,
    in_flight: usize,
}

impl Link {
    pub(super) fn new(stdin: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&stdin, true)?;
        Ok(Link {
            stdin: register(stdin, Interest::WRITABLE)?,
            driver: AtomicWaker::new(),
            state: Mutex::new(State {
                outbox: BytesMut::new(),
                room: Vec::new(),
                talks: HashMap::new(),
                number: 0,
                in_flight: 0,
                heard: Instant::now(),
                over: None,
                condemned: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session: `open` is the frame's payload, and the first thing to be answered.
    pub(super) fn open(self: &Arc<Self>, open: &[u8]) -> Result<Talk> {
        let inbox = Arc::<Inbox>::default();
        let mut state = self.lock();
        if let Some(reason) = &state.over {
            return Err(Error::handler(&**reason));
        }
        // Numbers go up, and are not used again before all others were.
        loop {
            state.number = state.number.wrapping_add(1).max(1);
            if !state.talks.contains_key(&state.number) {
                break;
            }
        }
        let number = state.number;
        // Its opening is answered like a message.
        state.talks.insert(number, Entry { inbox: inbox.clone(), in_flight: 1 });
        state.in_flight += 1;
        frame::encode(Type::Open, number, &[open], &mut state.outbox);
        Ok(Talk { link: self.clone(), number, inbox, answers: VecDeque::new(), in_flight: 1, since: Instant::now() })
    }

    /// Writes what waits, as far as the child takes it.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.driver.register(cx.waker());
        loop {
            if self.lock().outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut ready = ready!(self.stdin.poll_write_ready(cx))?;
            let mut state = self.lock();
            match ready.try_io(|stdin| rustix::io::write(stdin, &state.outbox).map_err(io::Error::from)) {
                Ok(written) => state.wrote(written?),
                Err(_would_block) => {}
            }
        }
    }

    /// Lays each frame into its session's inbox.
    pub(super) fn deliver(&self, input: &mut BytesMut) -> std::result::Result<(), String> {
        let mut state = self.lock();
        state.heard = Instant::now();
        while let Some(frame) = frame::decode(input).map_err(|error| error.to_string())? {
            state.deliver(frame)?;
        }
        Ok(())
    }

    /// Why the child must go, where somebody found a reason.
    pub(super) fn condemned(&self) -> Option<String> {
        self.lock().condemned.take()
    }

    /// Ends all sessions with a reason: the child is no more.
    pub(super) fn end(&self, reason: &str) {
        let mut state = self.lock();
        let reason: Arc<str> = reason.into();
        state.over = Some(reason.clone());
        state.in_flight = 0;
        for (_, entry) in state.talks.drain() {
            entry.inbox.end(Answer::Failed(reason.to_string()));
        }
        state.room.drain(..).for_each(Waker::wake);
    }
}

impl State {
    fn wrote(&mut self, count: usize) {
        if count == self.outbox.len() {
            self.outbox.clear();
        } else {
            self.outbox.advance(count);
        }
        if self.outbox.len() < WATERMARK {
            self.room.drain(..).for_each(Waker::wake);
        }
    }

    fn deliver(&mut self, frame: Frame) -> std::result::Result<(), String> {
        let Frame { kind, session, payload } = frame;
        let answer = match kind {
            kind if kind == Type::Reply as u8 => Answer::Reply(payload),
            kind if kind == Type::Silent as u8 => Answer::Silent,
            kind if kind == Type::Push as u8 => Answer::Push(payload),
            kind if kind == Type::Close as u8 => Answer::Close(payload),
            kind if kind == Type::Error as u8 => {
                let words = crate::escape::Escaped::new(&payload).to_string();
                if session == 0 {
                    return Err(format!("gave up: {words}"));
                }
                Answer::Failed(format!("says: {words}"))
            }
            other => return Err(format!("wrote a frame of type {other}, which plugins do not send")),
        };
        // Of a session that is over, or never was: the child may not know yet.
        let Some(entry) = self.talks.get_mut(&session) else { return Ok(()) };
        if matches!(answer, Answer::Reply(_) | Answer::Silent) {
            if entry.in_flight == 0 {
                let reason = "answered a message that it was not sent".to_owned();
                self.close(session, Some(Answer::Failed(reason)));
                return Ok(());
            }
            entry.in_flight -= 1;
            self.in_flight -= 1;
        }
        if matches!(answer, Answer::Close(_) | Answer::Failed(_)) {
            self.close(session, Some(answer));
        } else if !entry.inbox.lay(answer) {
            let reason = format!("sent {INBOX} bytes more than the peer took");
            self.close(session, Some(Answer::Failed(reason)));
            frame::encode(Type::Close, session, &[], &mut self.outbox);
        }
        Ok(())
    }

    /// Forgets a session. Whether it was known.
    fn close(&mut self, session: u32, last: Option<Answer>) -> bool {
        let Some(entry) = self.talks.remove(&session) else { return false };
        self.in_flight -= entry.in_flight;
        if let Some(last) = last {
            entry.inbox.end(last);
        }
        true
    }
}

/// One session's side.
pub(super) struct Talk {
    link: Arc<Link>,
    number: u32,
    inbox: Arc<Inbox>,
    /// What was taken from the inbox and is not yet dealt with.
    answers: VecDeque<Answer>,
    in_flight: usize,
    /// When the plugin last answered here, or was sent a message when it owed no answer.
    since: Instant,
}

impl Talk {
    /// How many messages are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Since when an answer is owed.
    pub(super) fn owed_since(&self) -> Option<Instant> {
        (self.in_flight > 0).then_some(self.since)
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        if self.answers.is_empty() && self.inbox.take(&mut self.answers, cx) {
            self.since = Instant::now();
        }
        let Some(answer) = self.answers.pop_front() else { return Poll::Pending };
        if matches!(answer, Answer::Reply(_) | Answer::Silent) {
            self.in_flight -= 1;
        }
        Poll::Ready(answer)
    }

    /// Whether the child takes another message.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.link.lock();
        if state.outbox.len() < WATERMARK {
            return Poll::Ready(());
        }
        if !state.room.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.room.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes a message to the child.
    pub(super) fn tell(&mut self, message: &[u8]) {
        let mut state = self.link.lock();
        let Some(entry) = state.talks.get_mut(&self.number) else { return };
        entry.in_flight += 1;
        state.in_flight += 1;
        frame::encode(Type::Message, self.number, &[message], &mut state.outbox);
        if self.in_flight == 0 {
            self.since = Instant::now();
        }
        self.in_flight += 1;
    }

    /// Called when the session waits: what it took to the child leaves.
    pub(super) fn flush(&self) {
        let mut state = self.link.lock();
        if state.outbox.is_empty() {
            return;
        }
        // Where more is on its way, the driver's next write takes all of it.
        if state.in_flight <= 1 {
            let wrote =
                self.link.stdin.try_io(Interest::WRITABLE, |stdin| Ok(rustix::io::write(stdin, &state.outbox)?));
            if let Ok(count) = wrote {
                state.wrote(count);
            }
        }
        if !state.outbox.is_empty() {
            self.link.driver.wake();
        }
    }

    /// An answer is overdue. A child from which nothing at all came since is beyond help, and is ended for all.
    pub(super) fn overdue(&self, reason: String) {
        let mut state = self.link.lock();
        if state.heard < self.since {
            state.condemned = Some(reason);
            self.link.driver.wake();
        }
    }
}

/// The child hears that the session is over, unless it said so itself.
impl Drop for Talk {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        if state.close(self.number, None) {
            frame::encode(Type::Close, self.number, &[], &mut state.outbox);
        }
        drop(state);
        self.link.driver.wake();
    }
}

/// What the child said in one session and the session has not yet taken.
#[derive(Default)]
struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Answer>,
    bytes: usize,
    session: Option<Waker>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room.
    fn lay(&self, answer: Answer) -> bool {
        let mut waiting = self.lock();
        let size = match &answer {
            Answer::Reply(bytes) | Answer::Push(bytes) | Answer::Close(bytes) => bytes.len(),
            Answer::Silent | Answer::Failed(_) => 0,
        };
        // What an answer costs beside its bytes, so that empty ones fill it too.
        let cost = size + size_of::<Answer>();
        if waiting.bytes > 0 && waiting.bytes + cost > INBOX {
            return false;
        }
        waiting.bytes += cost;
        waiting.add(answer);
        true
    }

    /// The last answer, for which there is always room.
    fn end(&self, answer: Answer) {
        self.lock().add(answer);
    }

    /// Moves all there is to `answers`, which is empty; whether there was any.
    fn take(&self, answers: &mut VecDeque<Answer>, cx: &mut Context<'_>) -> bool {
        let mut waiting = self.lock();
        if waiting.answers.is_empty() {
            if !waiting.session.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                waiting.session = Some(cx.waker().clone());
            }
            return false;
        }
        waiting.bytes = 0;
        std::mem::swap(&mut waiting.answers, answers);
        true
    }
}

impl Waiting {
    fn add(&mut self, answer: Answer) {
        self.answers.push_back(answer);
        if let Some(session) = &self.session {
            session.wake_by_ref();
        }
    }
}
