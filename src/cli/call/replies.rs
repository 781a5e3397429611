//! Where the replies go: to stdout as they come, or into one JSON object at the end.

use std::io::{self, IsTerminal as _};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::milliseconds;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::escape::Printable;
use crate::options::Size;
use crate::verdict::Verdict;

/// The most bytes that are kept for one object.
const MOST_RECORDED: usize = 64 << 20;

/// Is told what comes, and when.
pub(super) trait Replies {
    /// A message goes out.
    fn sent(&mut self, message: &[u8]);

    /// A reply came, or a further piece of the one that is open.
    fn piece(&mut self, bytes: &[u8]) -> Outcome;

    /// The reply is complete.
    fn complete(&mut self) -> Outcome;

    /// The server ended the conversation while it might have gone on.
    fn closed_early(&mut self) -> Outcome {
        Ok(())
    }

    /// What there is to say at the end.
    fn facts(&self) -> Map<String, Value> {
        Map::new()
    }
}

/// To stdout, each reply on a line of its own: as it came into a pipe or a file, made safe on a terminal.
pub(super) struct Written {
    safe: bool,
    /// Whether the last piece ended a line.
    line_ended: bool,
}

impl Written {
    pub(super) fn to_stdout() -> Self {
        Written { safe: io::stdout().is_terminal(), line_ended: true }
    }
}

impl Replies for Written {
    fn sent(&mut self, _: &[u8]) {}

    fn piece(&mut self, bytes: &[u8]) -> Outcome {
        self.line_ended = bytes.last() == Some(&b'\n');
        if self.safe { output::print(Printable::lines(bytes)) } else { output::write(bytes) }
    }

    fn complete(&mut self) -> Outcome {
        if std::mem::replace(&mut self.line_ended, true) { Ok(()) } else { output::write(b"\n") }
    }
}

/// Into memory, for the one object at the end.
#[derive(Default)]
pub(super) struct Recorded {
    greeting: Option<Vec<u8>>,
    exchanges: Vec<Exchange>,
    open: Vec<u8>,
    /// How many bytes came.
    size: usize,
}

struct Exchange {
    message: Vec<u8>,
    sent: Instant,
    replies: Vec<(Vec<u8>, Instant)>,
}

impl Replies for Recorded {
    fn sent(&mut self, message: &[u8]) {
        self.exchanges.push(Exchange { message: message.to_vec(), sent: Instant::now(), replies: Vec::new() });
    }

    fn piece(&mut self, bytes: &[u8]) -> Outcome {
        self.size += bytes.len();
        if self.size > MOST_RECORDED {
            let most = Size(MOST_RECORDED);
            return Err(Failure::new(Verdict::Failed, format!("more than {most} came, too much for one object")).into());
        }
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn complete(&mut self) -> Outcome {
        let reply = std::mem::take(&mut self.open);
        match self.exchanges.last_mut() {
            Some(exchange) => exchange.replies.push((reply, Instant::now())),
            None => self.greeting.get_or_insert_default().extend(reply),
        }
        Ok(())
    }

    fn facts(&self) -> Map<String, Value> {
        let mut replies = Vec::new();
        for exchange in &self.exchanges {
            let after = |at: &Instant| milliseconds(at.duration_since(exchange.sent));
            for (reply, at) in &exchange.replies {
                replies.push(json!({ "to": text(&exchange.message), "reply": text(reply), "after_ms": after(at) }));
            }
        }
        let mut facts = Map::new();
        facts.insert("greeting".into(), self.greeting.as_deref().map(text).into());
        facts.insert("sent".into(), self.exchanges.len().into());
        facts.insert("replies".into(), replies.into());
        facts
    }
}

/// Bytes as JSON can have them: text as it is, anything else with its odd bytes as escapes.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_reply_stands_with_its_message_and_its_time() {
        let mut recorded = Recorded::default();
        recorded.piece(b"wel").unwrap();
        recorded.piece(b"come").unwrap();
        recorded.complete().unwrap();
        recorded.sent(b"Genji");
        tokio::time::advance(std::time::Duration::from_micros(1500)).await;
        recorded.piece(b"Hello \xff").unwrap();
        recorded.complete().unwrap();
        recorded.sent(b"Hanzo");
        assert_eq!(
            Value::from(recorded.facts()),
            json!({
                "greeting": "welcome",
                "sent": 2,
                "replies": [{ "to": "Genji", "reply": "Hello \\xff", "after_ms": 1.5 }],
            })
        );
    }
}
