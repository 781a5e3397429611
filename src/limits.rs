//! What a listener's sessions may use: how many, for how long, how much.

use std::time::Duration;

use serde::Deserialize;

use crate::options::{OptionDoc, OptionError, Options, Period, Size};

/// The limits of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most sessions at once; also the size of a datagram listener's table of peers.
    pub max_sessions: usize,
    /// The most sessions at once from one source: an IPv4 address, an IPv6 /64.
    pub max_sessions_per_ip: Option<usize>,
    /// What becomes of a connection over `max_sessions`.
    pub when_full: WhenFull,
    /// How long the layers' handshakes may take, all together.
    pub handshake_timeout: Duration,
    /// How long a session may wait for its peer while nothing is received or sent; on datagrams, while nothing is
    /// received. A message that never ends counts as nothing received.
    pub idle_timeout: Duration,
    /// How long what was sent may wait without the peer taking any of it.
    pub write_timeout: Duration,
    /// How long a session may last in all.
    pub total_timeout: Option<Duration>,
    /// The size in bytes of the largest message.
    pub max_message: usize,
    /// How many datagrams a second a responder answers to one source prefix (/24, /56).
    pub response_rate: ResponseRate,
    /// How many times as long as a request a responder's answer may be, to sources that may be forged.
    pub amplification: u32,
    /// Whether a responder ignores datagrams from ports below 1024 and 2049, which other responders answer from.
    pub source_ports: bool,
}

/// What becomes of a connection over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Accepted and closed at once, so that the peer sees it.
    #[default]
    Close,
    /// Left in the backlog until a session ends.
    Wait,
}

/// Whether and how fast a responder answers one source prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseRate {
    /// So many a second, with a burst of twice as many; for sources that are not local.
    PerSecond(u32),
    /// The standard rate is counted and logged, and nothing is dropped.
    LogOnly,
    /// No limit.
    Off,
}

impl ResponseRate {
    /// The rate that holds where none is given.
    pub const STANDARD: u32 = 20;
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_sessions: 16_384,
            max_sessions_per_ip: None,
            when_full: WhenFull::Close,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            total_timeout: None,
            max_message: 1 << 20,
            response_rate: ResponseRate::PerSecond(ResponseRate::STANDARD),
            amplification: 3,
            source_ports: true,
        }
    }
}

const fn doc(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> OptionDoc {
    OptionDoc { name, value, default, help }
}

/// The limits as options of an endpoint.
pub const OPTIONS: &[OptionDoc] = &[
    doc("max-sessions", "N", "16384", "the most sessions at once; also the peers that a datagram listener keeps"),
    doc("max-sessions-per-ip", "N", "no limit", "the most sessions at once from one IPv4 address or IPv6 /64"),
    doc("when-full", "close|wait", "close", "a connection over the limit is closed, or left in the backlog"),
    doc("handshake-timeout", "TIME", "5s", "how long the layers may take to open"),
    doc("idle-timeout", "TIME", "60s", "how long a session may wait while no message comes or goes"),
    doc("write-timeout", "TIME", "30s", "how long what was sent may wait for the peer to read"),
    doc("total-timeout", "TIME", "no limit", "how long a session may last in all"),
    doc("max-message", "SIZE", "1MiB", "the largest message"),
    doc("response-rate", "N|off|log", "20", "answers a second to one source prefix, for responders on datagrams"),
    doc("amplification", "N", "3", "how many times its request an answer may be long, for responders on datagrams"),
    doc("source-ports", "yes|no", "yes", "whether responders ignore datagrams from ports below 1024 and from 2049"),
];

pub(crate) fn is_limit(name: &str) -> bool {
    OPTIONS.iter().any(|option| option.name == name)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Text {
    max_sessions: Option<usize>,
    max_sessions_per_ip: Option<usize>,
    when_full: WhenFull,
    handshake_timeout: Option<Period>,
    idle_timeout: Option<Period>,
    write_timeout: Option<Period>,
    total_timeout: Option<Period>,
    max_message: Option<Size>,
    response_rate: Option<String>,
    amplification: Option<u32>,
    source_ports: Option<bool>,
}

impl Limits {
    /// The same limits with clocks that never run out: for a session that lasts as long as its socket.
    pub(crate) fn without_clocks(&self) -> Self {
        const NEVER: Duration = Duration::from_secs(86_400 * 365);
        Limits { idle_timeout: NEVER, write_timeout: NEVER, total_timeout: None, ..self.clone() }
    }

    /// Reads them from an endpoint's options; what is left out keeps its default.
    pub fn read(options: &Options) -> Result<Self, OptionError> {
        let text: Text = options.read()?;
        let standard = Limits::default();
        let time = |period: Option<Period>, otherwise| period.map_or(otherwise, |period| period.0);
        let limits = Limits {
            max_sessions: text.max_sessions.unwrap_or(standard.max_sessions),
            max_sessions_per_ip: text.max_sessions_per_ip,
            when_full: text.when_full,
            handshake_timeout: time(text.handshake_timeout, standard.handshake_timeout),
            idle_timeout: time(text.idle_timeout, standard.idle_timeout),
            write_timeout: time(text.write_timeout, standard.write_timeout),
            total_timeout: text.total_timeout.map(|period| period.0),
            max_message: text.max_message.map_or(standard.max_message, Size::bytes),
            response_rate: text.response_rate.as_deref().map_or(Ok(standard.response_rate), parse_rate)?,
            amplification: text.amplification.unwrap_or(standard.amplification),
            source_ports: text.source_ports.unwrap_or(standard.source_ports),
        };
        for (name, is_zero) in [
            ("max-sessions", limits.max_sessions == 0),
            ("max-sessions-per-ip", limits.max_sessions_per_ip == Some(0)),
            ("max-message", limits.max_message == 0),
        ] {
            if is_zero {
                return Err(OptionError::Invalid(format!("the option `{name}` takes a number above 0")));
            }
        }
        Ok(limits)
    }
}

fn parse_rate(text: &str) -> Result<ResponseRate, OptionError> {
    match text {
        "off" => Ok(ResponseRate::Off),
        "log" => Ok(ResponseRate::LogOnly),
        number => number.parse().ok().filter(|rate| *rate > 0).map(ResponseRate::PerSecond).ok_or_else(|| {
            OptionError::Invalid(format!("the option `response-rate` takes a number above 0, off or log, not `{text}`"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Limits, String> {
        Options::parse(query).and_then(|options| Limits::read(&options)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        assert_eq!(read("").unwrap(), Limits::default());
        let limits = read("idle-timeout=500ms&response-rate=log&when-full=wait").unwrap();
        assert_eq!(limits.idle_timeout, Duration::from_millis(500));
        assert_eq!(limits.response_rate, ResponseRate::LogOnly);
        assert_eq!(limits.when_full, WhenFull::Wait);
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        assert_eq!(read("max-sessions=0").unwrap_err(), "the option `max-sessions` takes a number above 0");
        assert!(read("response-rate=0").is_err());
    }

    #[test]
    fn every_option_that_is_documented_can_be_read() {
        for option in OPTIONS {
            let value = match option.value {
                "TIME" => "5s",
                "SIZE" => "1KiB",
                "close|wait" => "wait",
                "yes|no" => "no",
                _ => "7",
            };
            assert!(read(&format!("{}={value}", option.name)).is_ok(), "{}", option.name);
        }
    }
}
