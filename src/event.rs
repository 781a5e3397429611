//! Every event there is, as one table: its name, its fields, when it happens. Logs and counters both derive from it.
//!
//! | name | reasons | when |
//! |---|---|---|
//! | `listening` | | a listener is bound |
//! | `session.opened` | | a session begins; for connections after the layers opened |
//! | `session.closed` | [`CloseReason`] | it is over, whatever the cause |
//! | `connection.refused` | [`Refusal`] | a connection was accepted and closed at once, or its layers did not open |
//! | `accept.failed` | [`AcceptFault`] | `accept` returned an error |
//! | `datagram.ignored` | given by the responder rules | a datagram that must not be answered |
//! | `datagram.lost` | [`Loss`] | a datagram that came in vain, or an answer that could not leave |
//! | `socket.failed` | | receiving from a datagram socket returned an error; it goes on |
//! | `listener.rebound` | | a listener that failed is bound again |
//! | `listener.failed` | | a listener is given up |
//! | `drain.started` | | no more sessions are begun |
//! | `drain.finished` | | all sessions are over: so many finished, so many were cut |
//!
//! An [`Observer`] is told of each, on the thread where it happens, so it must be quick. [`Counters`] counts them,
//! [`Log`] writes them through `tracing`; peers' names and texts reach it escaped.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::address::Address;

/// Something that happened. Its fields borrow from where it happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A listener is bound.
    Listening {
        /// The endpoint with the address that the kernel gave.
        listener: &'a str,
        /// The handler's name.
        handler: &'a str,
    },
    /// A session begins.
    SessionOpened {
        /// Its number, unique in this server.
        session: u64,
        /// The listener.
        listener: &'a str,
        /// The peer.
        remote: &'a Address,
    },
    /// A session is over.
    SessionClosed {
        /// Its number.
        session: u64,
        /// The listener.
        listener: &'a str,
        /// The peer.
        remote: &'a Address,
        /// Why.
        reason: CloseReason,
        /// What failed, where something did; safe to print.
        error: Option<&'a dyn ErrorText>,
        /// How long it lasted.
        lasted: Duration,
        /// What it moved.
        totals: Totals,
    },
    /// A connection that did not become a session.
    ConnectionRefused {
        /// The listener.
        listener: &'a str,
        /// The peer.
        remote: &'a Address,
        /// Why.
        reason: Refusal,
        /// What failed, where something did.
        error: Option<&'a dyn ErrorText>,
    },
    /// `accept` returned an error.
    AcceptFailed {
        /// The listener.
        listener: &'a str,
        /// What class of error.
        reason: AcceptFault,
        /// The error.
        error: &'a dyn ErrorText,
    },
    /// A datagram that a responder must not answer.
    DatagramIgnored {
        /// The listener.
        listener: &'a str,
        /// Its source, as it claims.
        remote: &'a Address,
        /// The rule.
        reason: &'static str,
    },
    /// A datagram that is lost on this side.
    DatagramLost {
        /// The listener.
        listener: &'a str,
        /// The other end.
        remote: &'a Address,
        /// Why.
        reason: Loss,
        /// How many.
        count: u64,
        /// What failed, where something did.
        error: Option<&'a dyn ErrorText>,
    },
    /// Receiving failed; the socket goes on.
    SocketFailed {
        /// The listener.
        listener: &'a str,
        /// The error.
        error: &'a dyn ErrorText,
    },
    /// A listener that failed is bound again.
    ListenerRebound {
        /// The listener.
        listener: &'a str,
    },
    /// A listener is given up.
    ListenerFailed {
        /// The listener.
        listener: &'a str,
        /// The last error.
        error: &'a dyn ErrorText,
    },
    /// The server stops accepting.
    DrainStarted {
        /// How long it will wait for sessions.
        deadline: Duration,
    },
    /// The server is done.
    DrainFinished {
        /// Sessions that ended by themselves.
        finished: usize,
        /// Sessions that were cut at the deadline.
        cut: usize,
    },
}

/// What can be printed as the cause of an event.
pub trait ErrorText: Display + std::fmt::Debug {}

impl<T: Display + std::fmt::Debug> ErrorText for T {}

/// What a session moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Bytes in the messages received.
    pub bytes_in: u64,
    /// Bytes in the messages sent.
    pub bytes_out: u64,
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// The word in logs and metrics.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }
    };
}

reasons! {
    /// Why a session is over.
    CloseReason {
        /// The handler returned.
        Finished = "finished",
        /// The peer went away: a reset, a broken pipe.
        Disconnected = "disconnected",
        /// The peer broke the framing, or a limit on the size of a message.
        Protocol = "protocol",
        /// The handler returned an error.
        Failed = "failed",
        /// The handler panicked.
        Panicked = "panicked",
        /// Nothing was received or sent for too long.
        Idle = "idle-timeout",
        /// The peer did not read what it was sent.
        WriteTimeout = "write-timeout",
        /// It lasted longer than a session may.
        TotalTimeout = "total-timeout",
        /// It ended because the server drains.
        Drained = "drained",
        /// It was cut at the drain's deadline.
        Cut = "cut",
        /// It made room for another peer in a full table.
        Evicted = "evicted",
    }
}

reasons! {
    /// Why a connection did not become a session.
    Refusal {
        /// The listener or the server holds all the sessions that it may.
        MaxSessions = "max-sessions",
        /// The source holds all the sessions that it may.
        MaxSessionsPerIp = "max-sessions-per-ip",
        /// There was no file descriptor for it.
        NoDescriptor = "no-descriptor",
        /// The layers took too long to open.
        HandshakeTimeout = "handshake-timeout",
        /// The layers did not open.
        HandshakeFailed = "handshake-failed",
    }
}

reasons! {
    /// The classes of errors that `accept` returns.
    AcceptFault {
        /// This connection is lost; the next one may be fine.
        Transient = "transient",
        /// The process or the machine is out of something; accepting waits.
        Exhausted = "exhausted",
        /// The listener is unusable.
        Fatal = "fatal",
    }
}

reasons! {
    /// Why a datagram is lost on this side.
    Loss {
        /// It was longer than its buffer or than the largest message.
        TooLong = "too-long",
        /// Its session had too many unread ones already.
        Overflow = "overflow",
        /// It could not be sent.
        SendFailed = "send-failed",
        /// The answer would have been longer than a source that may be forged is sent.
        Amplification = "amplification",
    }
}

impl Event<'_> {
    /// The event's name, as in the table.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Listening { .. } => "listening",
            Event::SessionOpened { .. } => "session.opened",
            Event::SessionClosed { .. } => "session.closed",
            Event::ConnectionRefused { .. } => "connection.refused",
            Event::AcceptFailed { .. } => "accept.failed",
            Event::DatagramIgnored { .. } => "datagram.ignored",
            Event::DatagramLost { .. } => "datagram.lost",
            Event::SocketFailed { .. } => "socket.failed",
            Event::ListenerRebound { .. } => "listener.rebound",
            Event::ListenerFailed { .. } => "listener.failed",
            Event::DrainStarted { .. } => "drain.started",
            Event::DrainFinished { .. } => "drain.finished",
        }
    }

    /// The reason, or an empty text for events that have none.
    pub fn reason(&self) -> &'static str {
        match self {
            Event::SessionClosed { reason, .. } => reason.word(),
            Event::ConnectionRefused { reason, .. } => reason.word(),
            Event::AcceptFailed { reason, .. } => reason.word(),
            Event::DatagramIgnored { reason, .. } => reason,
            Event::DatagramLost { reason, .. } => reason.word(),
            _ => "",
        }
    }

    /// How often it happened: 1 but for events that stand for several.
    pub fn count(&self) -> u64 {
        match self {
            Event::DatagramLost { count, .. } => *count,
            _ => 1,
        }
    }

    fn level(&self) -> Level {
        match self {
            Event::Listening { .. } | Event::SessionOpened { .. } => Level::Debug,
            Event::SessionClosed { reason: CloseReason::Panicked, .. } | Event::ListenerFailed { .. } => Level::Error,
            Event::SessionClosed { reason: CloseReason::Failed, .. } => Level::Warn,
            Event::SessionClosed { .. } => Level::Debug,
            Event::AcceptFailed { reason: AcceptFault::Transient, .. } => Level::Debug,
            // What a stranger can cause at will is said once a minute, however often it happens.
            Event::ConnectionRefused { .. }
            | Event::AcceptFailed { .. }
            | Event::DatagramIgnored { .. }
            | Event::DatagramLost { .. }
            | Event::SocketFailed { .. } => Level::WarnOnceAMinute,
            Event::ListenerRebound { .. } => Level::Warn,
            Event::DrainStarted { .. } | Event::DrainFinished { .. } => Level::Info,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warn,
    WarnOnceAMinute,
    Error,
}

/// Is told of every event.
pub trait Observer: Send + Sync {
    /// Something happened. Called where it happens: it must neither wait nor panic.
    fn observe(&self, event: &Event<'_>);
}

impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }
}

/// Tells both.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn observe(&self, event: &Event<'_>) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

/// Counts events by name and reason: a table of fixed size, since both come from the code.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Vec<Row>>);

#[derive(Debug)]
struct Row {
    name: &'static str,
    reason: &'static str,
    times: u64,
}

impl Row {
    /// Looks where the words stand rather than what they say: they are literals, and this runs twice a connection. A
    /// literal that stands in two places has two rows, which are added up when they are read.
    fn is_of(&self, name: &'static str, reason: &'static str) -> bool {
        std::ptr::eq(self.name, name) && std::ptr::eq(self.reason, reason)
    }
}

impl Counters {
    /// How often an event of that name happened, for that reason.
    pub fn get(&self, name: &str, reason: &str) -> u64 {
        self.sum(|row| row.name == name && row.reason == reason)
    }

    /// How often an event of that name happened, for whatever reason.
    pub fn total(&self, name: &str) -> u64 {
        self.sum(|row| row.name == name)
    }

    /// All that was counted, by name and reason.
    pub fn snapshot(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for Row { name, reason, times } in &*self.rows() {
            *counts.entry((*name, *reason)).or_default() += times;
        }
        counts.into_iter().map(|((name, reason), count)| (name, reason, count)).collect()
    }

    fn sum(&self, wanted: impl Fn(&Row) -> bool) -> u64 {
        self.rows().iter().filter(|row| wanted(row)).map(|row| row.times).sum()
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Counters {
    fn observe(&self, event: &Event<'_>) {
        let (name, reason) = (event.name(), event.reason());
        let mut rows = self.rows();
        match rows.iter_mut().find(|row| row.is_of(name, reason)) {
            Some(row) => row.times += event.count(),
            None => rows.push(Row { name, reason, times: event.count() }),
        }
    }
}

/// Writes events through `tracing`, under the target `greetd`.
#[derive(Debug, Default)]
pub struct Log {
    said: Mutex<HashMap<(&'static str, &'static str), Said>>,
}

/// When a kind of event was last logged, and how many have been kept back since.
#[derive(Debug)]
struct Said {
    at: Instant,
    kept_back: u64,
}

const ONCE_A_MINUTE: Duration = Duration::from_secs(60);

impl Log {
    /// Whether to log an event now that is said once a minute, and how many were kept back before.
    fn may_say(&self, event: &Event<'_>) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match said.get_mut(&(event.name(), event.reason())) {
            Some(last) if now - last.at < ONCE_A_MINUTE => {
                last.kept_back += event.count();
                None
            }
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.kept_back))
            }
            None => {
                said.insert((event.name(), event.reason()), Said { at: now, kept_back: 0 });
                Some(0)
            }
        }
    }
}

impl Observer for Log {
    fn observe(&self, event: &Event<'_>) {
        match event.level() {
            Level::Debug if !tracing::enabled!(target: "greetd", tracing::Level::DEBUG) => {}
            Level::Debug => write(event, Level::Debug, 0),
            Level::WarnOnceAMinute => {
                if let Some(kept_back) = self.may_say(event) {
                    write(event, Level::Warn, kept_back);
                }
            }
            level => write(event, level, 0),
        }
    }
}

/// The fields of an event, flat: those that it lacks are left out of the log.
#[derive(Default)]
struct Fields<'a> {
    session: Option<u64>,
    listener: Option<&'a str>,
    handler: Option<&'a str>,
    remote: Option<&'a Address>,
    error: Option<&'a dyn ErrorText>,
    lasted: Option<Duration>,
    totals: Option<Totals>,
    deadline: Option<Duration>,
    finished: Option<usize>,
    cut: Option<usize>,
}

impl<'a> Fields<'a> {
    fn of(event: &Event<'a>) -> Self {
        let none = Fields::default();
        match *event {
            Event::Listening { listener, handler } => {
                Fields { listener: Some(listener), handler: Some(handler), ..none }
            }
            Event::SessionOpened { session, listener, remote } => {
                Fields { session: Some(session), listener: Some(listener), remote: Some(remote), ..none }
            }
            Event::SessionClosed { session, listener, remote, error, lasted, totals, .. } => Fields {
                session: Some(session),
                listener: Some(listener),
                remote: Some(remote),
                error,
                lasted: Some(lasted),
                totals: Some(totals),
                ..none
            },
            Event::ConnectionRefused { listener, remote, error, .. }
            | Event::DatagramLost { listener, remote, error, .. } => {
                Fields { listener: Some(listener), remote: Some(remote), error, ..none }
            }
            Event::DatagramIgnored { listener, remote, .. } => {
                Fields { listener: Some(listener), remote: Some(remote), ..none }
            }
            Event::AcceptFailed { listener, error, .. }
            | Event::SocketFailed { listener, error }
            | Event::ListenerFailed { listener, error } => {
                Fields { listener: Some(listener), error: Some(error), ..none }
            }
            Event::ListenerRebound { listener } => Fields { listener: Some(listener), ..none },
            Event::DrainStarted { deadline } => Fields { deadline: Some(deadline), ..none },
            Event::DrainFinished { finished, cut } => Fields { finished: Some(finished), cut: Some(cut), ..none },
        }
    }
}

fn write(event: &Event<'_>, level: Level, kept_back: u64) {
    use tracing::field::display;
    let fields = Fields::of(event);
    let reason = Some(event.reason()).filter(|reason| !reason.is_empty());
    let remote = fields.remote.map(display);
    let error = fields.error.map(|error| crate::escape::Escaped::new(error.to_string().as_bytes()).to_string());
    let lasted = fields.lasted.map(|lasted| lasted.as_secs_f64());
    let deadline = fields.deadline.map(|deadline| deadline.as_secs_f64());
    let kept_back = Some(kept_back).filter(|count| *count > 0);
    let count = Some(event.count()).filter(|count| *count > 1);
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(
                target: "greetd",
                tracing::Level::$level,
                session = fields.session,
                listener = fields.listener,
                handler = fields.handler,
                remote,
                reason,
                error,
                count,
                kept_back,
                lasted_s = lasted,
                messages_in = fields.totals.map(|totals| totals.messages_in),
                messages_out = fields.totals.map(|totals| totals.messages_out),
                bytes_in = fields.totals.map(|totals| totals.bytes_in),
                bytes_out = fields.totals.map(|totals| totals.bytes_out),
                deadline_s = deadline,
                finished = fields.finished,
                cut = fields.cut,
                "{}",
                event.name()
            )
        };
    }
    match level {
        Level::Debug => at!(DEBUG),
        Level::Info => at!(INFO),
        Level::Warn | Level::WarnOnceAMinute => at!(WARN),
        Level::Error => at!(ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_strangers_can_cause_is_said_once_a_minute_and_the_rest_is_counted() {
        let log = Log::default();
        let remote = Address::Unnamed;
        let event = Event::DatagramIgnored { listener: "udp://x", remote: &remote, reason: "port" };
        assert_eq!(log.may_say(&event), Some(0));
        for _ in 0..5 {
            assert_eq!(log.may_say(&event), None);
        }
        tokio::time::advance(ONCE_A_MINUTE).await;
        assert_eq!(log.may_say(&event), Some(5));
    }

    #[test]
    fn events_are_counted_by_name_and_reason() {
        let counters = Counters::default();
        let remote = Address::Unnamed;
        let lost = |reason, count| Event::DatagramLost { listener: "x", remote: &remote, reason, count, error: None };
        counters.observe(&lost(Loss::Overflow, 3));
        counters.observe(&lost(Loss::Overflow, 1));
        counters.observe(&lost(Loss::TooLong, 1));
        assert_eq!(counters.get("datagram.lost", "overflow"), 4);
        assert_eq!(counters.total("datagram.lost"), 5);
    }
}
