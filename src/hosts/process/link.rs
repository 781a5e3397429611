//! What the sessions of one child share: the bytes on their way to it, and an inbox for each session.
//!
//! A message to the child is one copy into a common buffer. It is written by the session itself when nothing else is on
//! its way (no other thread need wake up), and by the [driver](super::driver) otherwise, which then writes many at
//! once. An answer is a piece of what the driver read, laid into its session's inbox: neither copied nor allocated.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::event::{Event, PluginFault, PluginSessionFault};
use crate::hosts::child::register;
use crate::hosts::frame::{self, Frame, Type};

use super::inbox::{Answer, INBOX, Inbox};
use super::running::Fault;
use super::window::Window;
use crate::hosts::observed::Observed;

/// How many bytes may wait to be written to the child before sessions wait with their next message.
const WATERMARK: usize = 256 * 1024;
pub(super) struct Link {
    stdin: AsyncFd<OwnedFd>,
    driver: AtomicWaker,
    /// What the child is called, and who is told what it does wrong.
    plugin: String,
    observed: Observed,
    state: Mutex<State>,
}

struct State {
    /// Written to the child as far as it takes it.
    outbox: BytesMut,
    /// How many bytes it took so far.
    written: u64,
    /// Those who wait until there is room in it.
    room: Vec<Waker>,
    talks: HashMap<u32, Entry>,
    /// The number of the last session.
    number: u32,
    /// Messages that are not answered, of all sessions.
    in_flight: usize,
    /// When the child last said anything that is whole.
    heard: Instant,
    /// Why there will be no more sessions.
    over: Option<Arc<str>>,
    /// Why the child must go.
    condemned: Option<String>,
    /// What it did wrong in single sessions, until somebody is told.
    misdeeds: Vec<(PluginSessionFault, String)>,
}

struct Entry {
    inbox: Arc<Inbox>,
    in_flight: usize,
}

impl Link {
    pub(super) fn new(stdin: OwnedFd, plugin: String, observed: Observed) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&stdin, true)?;
        Ok(Link {
            stdin: register(stdin, Interest::WRITABLE)?,
            driver: AtomicWaker::new(),
            plugin,
            observed,
            state: Mutex::new(State {
                outbox: BytesMut::new(),
                written: 0,
                room: Vec::new(),
                talks: HashMap::new(),
                number: 0,
                in_flight: 0,
                heard: Instant::now(),
                over: None,
                condemned: None,
                misdeeds: Vec::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the child takes another message, or is no more.
    pub(super) async fn room(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.over.is_some() { Poll::Ready(()) } else { state.poll_room(cx) }
        })
        .await;
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
        Ok(Talk {
            link: self.clone(),
            number,
            inbox,
            answers: VecDeque::new(),
            window: Window::new(),
            since: Instant::now(),
        })
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
    pub(super) fn deliver(&self, input: &mut BytesMut) -> std::result::Result<(), Fault> {
        let mut state = self.lock();
        let mut delivered = Ok(());
        while let Some(frame) = frame::decode(input).map_err(|error| Fault::protocol(error.to_string()))? {
            state.heard = Instant::now();
            delivered = state.deliver(frame);
            if delivered.is_err() {
                break;
            }
        }
        let misdeeds = std::mem::take(&mut state.misdeeds);
        drop(state);
        for (fault, words) in misdeeds {
            self.tell(fault, &words);
        }
        delivered
    }

    /// Tells whoever listens what the child did wrong in one session.
    fn tell(&self, reason: PluginSessionFault, words: &str) {
        self.observed.tell(&Event::PluginSessionFailed { plugin: &self.plugin, reason, error: &words });
    }

    /// How many bytes the child has read so far, and how many it has yet to read.
    pub(super) fn progress(&self) -> (u64, u64) {
        let state = self.lock();
        let unread = rustix::io::ioctl_fionread(&self.stdin).unwrap_or(0);
        (state.written.saturating_sub(unread), unread + state.outbox.len() as u64)
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
            entry.inbox.end(Answer::Over(reason.clone()));
        }
        state.room.drain(..).for_each(Waker::wake);
    }
}

impl State {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outbox.len() < WATERMARK {
            return Poll::Ready(());
        }
        if !self.room.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.room.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wrote(&mut self, count: usize) {
        self.written += count as u64;
        if count == self.outbox.len() {
            self.outbox.clear();
        } else {
            self.outbox.advance(count);
        }
        if self.outbox.len() < WATERMARK {
            self.room.drain(..).for_each(Waker::wake);
        }
    }

    fn deliver(&mut self, frame: Frame) -> std::result::Result<(), Fault> {
        let Frame { kind, session, payload } = frame;
        let answer = match kind {
            kind if kind == Type::Reply as u8 => Answer::Reply(payload),
            kind if kind == Type::Silent as u8 => Answer::Silent,
            kind if kind == Type::Push as u8 => Answer::Push(payload),
            kind if kind == Type::Close as u8 => {
                self.close(session, Some(Answer::Close(payload)));
                return Ok(());
            }
            kind if kind == Type::Error as u8 => {
                let words = crate::escape::Escaped::new(&payload).to_string();
                if session == 0 {
                    return Err(Fault::new(PluginFault::GaveUp, format!("gave up: {words}")));
                }
                self.misdeed(session, PluginSessionFault::Error, format!("says: {words}"));
                return Ok(());
            }
            other => {
                return Err(Fault::protocol(format!("wrote a frame of type {other}, which plugins do not send")));
            }
        };
        // Of a session that is over, or never was: the child may not know yet.
        let Some(entry) = self.talks.get_mut(&session) else { return Ok(()) };
        if matches!(answer, Answer::Reply(_) | Answer::Silent) {
            if entry.in_flight == 0 {
                let words = "answered a message that it was not sent".to_owned();
                self.misdeed(session, PluginSessionFault::Unasked, words);
                frame::encode(Type::Close, session, &[], &mut self.outbox);
                return Ok(());
            }
            entry.in_flight -= 1;
            self.in_flight -= 1;
        }
        if !entry.inbox.lay(answer) {
            let words = format!("sent {INBOX} bytes more than the peer took");
            self.misdeed(session, PluginSessionFault::Flood, words);
            frame::encode(Type::Close, session, &[], &mut self.outbox);
        }
        Ok(())
    }

    /// Ends a session for what the child did in it.
    fn misdeed(&mut self, session: u32, fault: PluginSessionFault, words: String) {
        if self.close(session, Some(Answer::Failed(words.clone()))) {
            self.misdeeds.push((fault, words));
        }
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
    window: Window,
    /// When the plugin last answered here, or was sent a message when it owed no answer.
    since: Instant,
}

impl Talk {
    /// Whether all that the child was sent is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.window.unanswered() == 0
    }

    /// Since when an answer is owed.
    pub(super) fn owed_since(&self) -> Option<Instant> {
        (!self.is_answered()).then_some(self.since)
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        if self.answers.is_empty() && self.inbox.take(&mut self.answers, cx) {
            self.since = Instant::now();
        }
        let Some(answer) = self.answers.pop_front() else { return Poll::Pending };
        match &answer {
            Answer::Reply(bytes) => self.window.answered(bytes.len()),
            Answer::Silent => self.window.answered(0),
            _ => {}
        }
        Poll::Ready(answer)
    }

    /// Whether the child takes another message.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        // What makes room is an answer, for which the session waits anyhow.
        if self.window.has_room() { self.link.lock().poll_room(cx) } else { Poll::Pending }
    }

    /// Takes a message to the child.
    pub(super) fn tell(&mut self, message: &[u8]) {
        let mut state = self.link.lock();
        let Some(entry) = state.talks.get_mut(&self.number) else { return };
        entry.in_flight += 1;
        state.in_flight += 1;
        frame::encode(Type::Message, self.number, &[message], &mut state.outbox);
        if self.is_answered() {
            self.since = Instant::now();
        }
        self.window.sent(message.len());
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
    pub(super) fn overdue(&self, words: &str) {
        self.link.tell(PluginSessionFault::Overdue, words);
        let mut state = self.link.lock();
        if state.heard < self.since {
            state.condemned = Some(words.to_owned());
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
