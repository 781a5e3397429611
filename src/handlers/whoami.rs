//! `whoami`: tells its peer what the server sees of their conversation.
//!
//! Each message has one answer, over every transport; nothing is sent unprompted, so that the answers of a
//! conversation can be counted. It is a table of `name: value` lines, or one JSON object on one line. A framing that
//! cannot carry line feeds, such as `lines`, carries each line of the table as a message.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::line_end::after_line;
use crate::error::{Error, Result};
use crate::escape::Escaped;
use crate::framing::FramingError;
use crate::handler::{Handler, Needs};
use crate::link::Peer;
use crate::options::OptionDoc;
use crate::session::Session;
use crate::timestamp::{Timestamp, WallClock};

/// What is told to a source that may be forged, and therefore hears little.
const MORE: &str = "send a longer message";

/// What [`Whoami`] is made from.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How it is told.
    pub format: Format,
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines of `name: value`.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

/// The options of [`Whoami`].
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "format",
    value: "text|json",
    default: "text",
    help: "lines of name: value, or a JSON object",
}];

/// Answers each message with what the server sees.
#[derive(Debug, Clone, Copy)]
pub struct Whoami {
    format: Format,
    now: WallClock,
}

impl Whoami {
    /// With the time of day.
    pub fn new(settings: Settings) -> Self {
        Whoami::with_clock(settings, SystemTime::now)
    }

    /// With a clock of one's own.
    pub fn with_clock(settings: Settings, now: WallClock) -> Self {
        Whoami { format: settings.format, now }
    }
}

#[async_trait]
impl Handler for Whoami {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let opened = (self.now)();
        let mut number = 0;
        while let Some(message) = session.recv().await? {
            number += 1;
            let end = after_line(session.peer(), "\n");
            let limit = session.reply_limit().map_or(usize::MAX, |limit| limit.saturating_sub(end.len()));
            let seen = Seen::new(session.peer(), number, message.len(), opened, (self.now)());
            let answer = match self.format {
                Format::Text => seen.text(limit),
                Format::Json => seen.json(limit),
            };
            send_lines(session, &answer, end).await?;
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

/// In one message; where the framing takes no line feed, in a message a line.
async fn send_lines(session: &mut Session, lines: &str, end: &str) -> Result<()> {
    match session.send_parts(&[lines.as_bytes(), end.as_bytes()]).await {
        Err(Error::Framing(FramingError::Unencodable { .. })) => {
            for line in lines.lines() {
                session.send(line.as_bytes()).await?;
            }
            Ok(())
        }
        sent => sent,
    }
}

/// What the server sees. What matters most comes first, since the rest may have to be left out.
#[derive(Serialize)]
struct Seen<'a> {
    remote: String,
    local: String,
    family: &'static str,
    transport: &'a str,
    layers: Vec<&'a str>,
    framing: Option<&'a str>,
    connected: bool,
    message: u64,
    bytes: usize,
    opened: String,
    now: String,
    facts: BTreeMap<&'static str, &'a str>,
}

impl<'a> Seen<'a> {
    fn new(peer: &'a Peer, message: u64, bytes: usize, opened: SystemTime, now: SystemTime) -> Self {
        let mut layers: Vec<&str> = peer.route.scheme.split('+').collect();
        Seen {
            remote: peer.remote.to_string(),
            local: peer.local().to_string(),
            family: peer.remote.family(),
            transport: layers.pop().unwrap_or_default(),
            layers,
            framing: peer.route.framing.as_deref(),
            connected: peer.connected(),
            message,
            bytes,
            opened: Timestamp::from(opened).to_string(),
            now: Timestamp::from(now).to_string(),
            facts: peer.facts().collect(),
        }
    }

    /// As lines, the last of them without its end; where they are too long, the first of them and how to hear more.
    fn text(&self, limit: usize) -> String {
        let rows = self.rows();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
        let line = |name: &str, value: &str| format!("{:width$} {value}", format!("{name}:"));
        let mut lines: Vec<String> = rows.iter().map(|(name, value)| line(name, value)).collect();
        let length = |lines: &[String]| lines.iter().map(|line| line.len() + 1).sum::<usize>();
        if length(&lines) > limit.saturating_add(1) {
            let more = line("more", MORE);
            while !lines.is_empty() && length(&lines) + more.len() > limit {
                lines.pop();
            }
            lines.push(more);
        }
        lines.join("\n")
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let layers = if self.layers.is_empty() { "none".to_owned() } else { self.layers.join(", ") };
        let mut rows = vec![
            ("remote", self.remote.clone()),
            ("local", self.local.clone()),
            ("family", self.family.to_owned()),
            ("transport", self.transport.to_owned()),
            ("layers", layers),
            ("framing", self.framing.unwrap_or("none").to_owned()),
            ("connected", if self.connected { "yes" } else { "no" }.to_owned()),
            ("message", self.message.to_string()),
            ("bytes", self.bytes.to_string()),
            ("opened", self.opened.clone()),
            ("now", self.now.clone()),
        ];
        // A fact may be a peer's own words.
        rows.extend(self.facts.iter().map(|(name, fact)| (*name, Escaped::new(fact.as_bytes()).to_string())));
        rows
    }

    /// As an object; where it is too long, who it is that asks, and how to hear more.
    fn json(&self, limit: usize) -> String {
        let all = serde_json::to_string(self).expect("texts and numbers have a form in JSON");
        if all.len() <= limit { all } else { serde_json::json!({ "remote": self.remote, "more": MORE }).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};

    fn leap_day() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_709_164_800)
    }

    fn whoami(format: Format) -> Whoami {
        Whoami::with_clock(Settings { format }, leap_day)
    }

    #[tokio::test]
    async fn each_message_is_answered_with_what_the_server_sees() {
        let mut talk = Rehearsal::of(whoami(Format::Text), Stage::Raw);
        talk.says("who am I?").await;
        assert_eq!(
            talk.hears().await,
            "remote:    127.0.0.1:5000\n\
             local:     127.0.0.1:8080\n\
             family:    IPv4\n\
             transport: tcp\n\
             layers:    none\n\
             framing:   raw\n\
             connected: yes\n\
             message:   1\n\
             bytes:     9\n\
             opened:    2024-02-29T00:00:00Z\n\
             now:       2024-02-29T00:00:00Z\n"
        );
        talk.says("and now?").await;
        let second = talk.hears().await;
        assert!(second.contains("message:   2\nbytes:     8\n"), "{second}");
    }

    #[tokio::test]
    async fn programs_can_ask_for_json() {
        let mut talk = Rehearsal::of(whoami(Format::Json), Stage::Datagrams);
        talk.says("").await;
        assert_eq!(
            talk.hears().await,
            concat!(
                r#"{"remote":"127.0.0.1:5000","local":"127.0.0.1:8080","family":"IPv4","transport":"udp","layers":[],"#,
                r#""framing":null,"connected":false,"message":1,"bytes":0,"#,
                r#""opened":"2024-02-29T00:00:00Z","now":"2024-02-29T00:00:00Z","facts":{}}"#,
                "\n"
            )
        );
    }

    #[tokio::test]
    async fn an_ipv4_peer_on_an_ipv6_socket_is_told_so() {
        let mut talk = Rehearsal::from(Arc::new(whoami(Format::Text)), Stage::Messages, "[::ffff:192.0.2.1]:5000");
        talk.says("").await;
        let answer = talk.hears().await;
        assert!(answer.contains("remote:    [::ffff:192.0.2.1]:5000\n"), "{answer}");
        assert!(answer.contains("family:    IPv4-mapped\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_source_that_may_be_forged_hears_the_most_important_and_how_to_hear_more() {
        for (format, limit) in [(Format::Text, 128), (Format::Text, 40), (Format::Json, 128)] {
            let mut talk = Rehearsal::of(whoami(format), Stage::DatagramsUpTo(limit));
            talk.says("?").await;
            let answer = talk.hears().await;
            assert!(answer.len() <= limit && answer.contains("send a longer message"), "{answer}");
            assert_eq!(answer.contains("127.0.0.1:5000"), limit == 128, "{answer}");
        }
    }

    #[test]
    fn what_layers_learned_is_told_and_cannot_forge_a_line() {
        let (session, _) = crate::handlers::rehearsal::sessions(Stage::Messages, "127.0.0.1:5000");
        let mut peer = session.peer().clone();
        peer.add_fact("tls.name", "evil\nremote: 127.0.0.1:1");
        let seen = Seen::new(&peer, 1, 0, leap_day(), leap_day());
        let text = seen.text(usize::MAX);
        assert!(text.ends_with("\ntls.name:  evil\\nremote: 127.0.0.1:1"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&seen.json(usize::MAX)).unwrap();
        assert_eq!(json["facts"]["tls.name"], "evil\nremote: 127.0.0.1:1");
    }
}
