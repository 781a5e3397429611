//! Writes events into the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{ErrorText, Event, Level, Observer, Totals};
use crate::address::Address;

/// Writes events through `tracing`, under the target `greetd`.
#[derive(Debug, Default)]
pub struct Log {
    said: Mutex<HashMap<(&'static str, &'static str), Said>>,
}

/// When a kind of event was first logged in its minute, how often since, and how many have been kept back.
#[derive(Debug)]
struct Said {
    at: Instant,
    times: u32,
    kept_back: u64,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Log {
    /// Whether to log an event now that is said so often a minute, and how many were kept back before.
    fn may_say(&self, event: &Event<'_>, a_minute: u32) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let said = said.entry((event.name(), event.reason())).or_insert(Said { at: now, times: 0, kept_back: 0 });
        if now - said.at >= MINUTE {
            (said.at, said.times) = (now, 0);
        }
        if said.times >= a_minute {
            said.kept_back += event.count();
            return None;
        }
        said.times += 1;
        Some(std::mem::take(&mut said.kept_back))
    }
}

impl Observer for Log {
    fn observe(&self, event: &Event<'_>) {
        match event.level() {
            Level::Debug if !tracing::enabled!(target: "greetd", tracing::Level::DEBUG) => {}
            Level::Debug => write(event, Level::Debug, 0),
            level => match level.a_minute() {
                None => write(event, level, 0),
                Some(a_minute) => {
                    if let Some(kept_back) = self.may_say(event, a_minute) {
                        write(event, level, kept_back);
                    }
                }
            },
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
    plugin: Option<&'a str>,
    again: Option<Duration>,
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
            Event::PluginRestarted { plugin } | Event::PluginReloaded { plugin } => {
                Fields { plugin: Some(plugin), ..none }
            }
            Event::PluginFailed { plugin, error, again, .. } => {
                Fields { plugin: Some(plugin), error: Some(error), again, ..none }
            }
            Event::PluginDisabled { plugin, error }
            | Event::PluginSessionFailed { plugin, error, .. }
            | Event::PluginNotReloaded { plugin, error } => Fields { plugin: Some(plugin), error: Some(error), ..none },
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
    let again = fields.again.map(|again| again.as_secs_f64());
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
                plugin = fields.plugin,
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
                again_in_s = again,
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
        Level::Warn | Level::WarnSometimes | Level::WarnOnceAMinute => at!(WARN),
        Level::Error | Level::ErrorSometimes => at!(ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CloseReason;

    #[tokio::test(start_paused = true)]
    async fn what_strangers_can_cause_is_said_once_a_minute_and_the_rest_is_counted() {
        let log = Log::default();
        let remote = Address::Unnamed;
        let event = Event::DatagramIgnored { listener: "udp://x", remote: &remote, reason: "port" };
        let once = event.level().a_minute().unwrap();
        assert_eq!(log.may_say(&event, once), Some(0));
        for _ in 0..5 {
            assert_eq!(log.may_say(&event, once), None);
        }
        tokio::time::advance(MINUTE).await;
        assert_eq!(log.may_say(&event, once), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_handlers_are_said_but_not_as_often_as_a_peer_likes() {
        let log = Log::default();
        let remote = Address::Unnamed;
        for reason in [CloseReason::Failed, CloseReason::Panicked] {
            let (totals, lasted) = (Totals::default(), Duration::ZERO);
            let event = Event::SessionClosed {
                session: 1,
                listener: "x",
                remote: &remote,
                reason,
                error: None,
                lasted,
                totals,
            };
            let a_minute = event.level().a_minute().unwrap();
            let said = (0..1000).filter(|_| log.may_say(&event, a_minute).is_some()).count();
            assert_eq!(said, 20);
            tokio::time::advance(MINUTE).await;
            assert_eq!(log.may_say(&event, a_minute), Some(980));
        }
    }
}
