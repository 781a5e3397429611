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
//! | `plugin.failed` | [`PluginFault`] | it failed as a whole: its sessions end, and it is started again |
//! | `plugin.restarted` | | it runs again |
//! | `plugin.disabled` | | it failed too often within a minute, and stays off until it is loaded again |
//! | `plugin.session-failed` | [`PluginSessionFault`] | it did wrong in one session, which ends; the others go on |
//! | `plugin.reloaded` | | its file changed, and the new one serves new sessions |
//! | `plugin.not-reloaded` | | its file changed, and does not stand: the old one serves on |
//! | `drain.started` | | no more sessions are begun |
//! | `drain.finished` | | all sessions are over: so many finished, so many were cut |
//!
//! An [`Observer`] is told of each, on the thread where it happens, so it must be quick. [`Counters`] counts them,
//! [`Log`] writes them through `tracing`; peers' names and texts reach it escaped.

mod counters;
mod log;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;

pub use counters::Counters;
pub use log::Log;

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
    /// A plugin failed as a whole.
    PluginFailed {
        /// The plugin.
        plugin: &'a str,
        /// In what manner.
        reason: PluginFault,
        /// What it did; safe to print.
        error: &'a dyn ErrorText,
        /// When it is started again; not at all where it is disabled for that.
        again: Option<Duration>,
    },
    /// A plugin runs again.
    PluginRestarted {
        /// The plugin.
        plugin: &'a str,
    },
    /// A plugin stays off.
    PluginDisabled {
        /// The plugin.
        plugin: &'a str,
        /// Why, in words.
        error: &'a dyn ErrorText,
    },
    /// A plugin did wrong in one session.
    PluginSessionFailed {
        /// The plugin.
        plugin: &'a str,
        /// What it did.
        reason: PluginSessionFault,
        /// The same in words; safe to print.
        error: &'a dyn ErrorText,
    },
    /// A plugin's file changed, and the new one has taken over.
    PluginReloaded {
        /// The plugin.
        plugin: &'a str,
    },
    /// A plugin's file changed, and the old one stays.
    PluginNotReloaded {
        /// The plugin.
        plugin: &'a str,
        /// What is wrong with the new one.
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

reasons! {
    /// How a plugin fails as a whole.
    PluginFault {
        /// It ended, was killed, or closed its pipes.
        Died = "died",
        /// It owed an answer, and said nothing at all for too long.
        Silent = "silent",
        /// It broke the protocol.
        Protocol = "protocol",
        /// It said that it gives up.
        GaveUp = "gave-up",
        /// It was to run again, and did not come to its first line.
        NotStarted = "not-started",
    }
}

reasons! {
    /// What a plugin can do wrong in one session.
    PluginSessionFault {
        /// It owed an answer for too long.
        Overdue = "overdue",
        /// It answered what it was not asked.
        Unasked = "unasked",
        /// It sent far more than the peer takes, or than it may.
        Flood = "flood",
        /// It wanted more memory than it may have.
        Memory = "memory",
        /// It failed: an abort, an access beyond its memory.
        Trap = "trap",
        /// It said itself that the session fails.
        Error = "error",
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
            Event::PluginFailed { .. } => "plugin.failed",
            Event::PluginRestarted { .. } => "plugin.restarted",
            Event::PluginDisabled { .. } => "plugin.disabled",
            Event::PluginSessionFailed { .. } => "plugin.session-failed",
            Event::PluginReloaded { .. } => "plugin.reloaded",
            Event::PluginNotReloaded { .. } => "plugin.not-reloaded",
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
            Event::PluginFailed { reason, .. } => reason.word(),
            Event::PluginSessionFailed { reason, .. } => reason.word(),
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
            Event::SessionClosed { reason: CloseReason::Panicked, .. } => Level::ErrorSometimes,
            Event::ListenerFailed { .. } => Level::Error,
            // Each tells whoever wrote the handler something; but a peer may know how to bring it about.
            Event::SessionClosed { reason: CloseReason::Failed, .. } => Level::WarnSometimes,
            Event::SessionClosed { .. } => Level::Debug,
            Event::AcceptFailed { reason: AcceptFault::Transient, .. } => Level::Debug,
            // What a stranger can cause at will is said once a minute, however often it happens.
            Event::ConnectionRefused { .. }
            | Event::AcceptFailed { .. }
            | Event::DatagramIgnored { .. }
            | Event::DatagramLost { .. }
            | Event::SocketFailed { .. } => Level::WarnOnceAMinute,
            Event::ListenerRebound { .. } => Level::Warn,
            // The end of the session says the same.
            Event::PluginSessionFailed { .. } => Level::Debug,
            Event::PluginRestarted { .. } | Event::PluginReloaded { .. } => Level::Info,
            Event::PluginFailed { .. } => Level::Warn,
            Event::PluginDisabled { .. } | Event::PluginNotReloaded { .. } => Level::Error,
            Event::DrainStarted { .. } | Event::DrainFinished { .. } => Level::Info,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warn,
    WarnSometimes,
    WarnOnceAMinute,
    Error,
    ErrorSometimes,
}

impl Level {
    /// How many of one name and reason are said within a minute, where a stranger can cause them at will.
    fn a_minute(self) -> Option<u32> {
        match self {
            Level::WarnOnceAMinute => Some(1),
            Level::WarnSometimes | Level::ErrorSometimes => Some(20),
            _ => None,
        }
    }
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
