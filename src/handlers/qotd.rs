//! `qotd`: the Quote of the Day Protocol, RFC 865.

use std::time::SystemTime;

use async_trait::async_trait;
use serde::Deserialize;

use super::announcement::tell;
use super::line_end::after_line;
use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::options::{OptionDoc, OptionError};
use crate::session::Session;
use crate::timestamp::{Timestamp, WallClock};

/// A quote is shorter than this, in bytes, its line end included.
const LIMIT: usize = 512;
const DAY: i64 = 86_400;

/// One for each day, in turn. Short enough for an answer to the smallest request of a source that may be forged.
const QUOTES: &[&str] = &[
    "Be conservative in what you do, be liberal in what you accept from others. -- RFC 793",
    "It is always something. -- RFC 1925",
    "With sufficient thrust, pigs fly just fine. However, this is not necessarily a good idea. -- RFC 1925",
    "No matter how hard you push and no matter what the priority, you can't increase the speed of light. -- RFC 1925",
    "It is more complicated than you think. -- RFC 1925",
    "Good, Fast, Cheap: Pick any two (you can't have all three). -- RFC 1925",
    "We reject: kings, presidents, and voting. We believe in: rough consensus and running code. -- David Clark",
    "The service closes the connection after sending the quote. -- RFC 865",
];

/// What [`QuoteOfTheDay`] is made from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What to say instead of the quotes that ship.
    pub text: Option<String>,
}

/// The options of [`QuoteOfTheDay`].
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "text",
    value: "TEXT",
    default: "a quote a day from a small list",
    help: "what to say instead, below 512 bytes",
}];

/// Sends a quote: once to whoever connects, and in answer to each datagram.
#[derive(Debug, Clone)]
pub struct QuoteOfTheDay {
    text: Option<String>,
    now: WallClock,
}

impl QuoteOfTheDay {
    /// With a text that is as short as the RFC asks.
    pub fn new(settings: Settings) -> Result<Self, OptionError> {
        QuoteOfTheDay::with_clock(settings, SystemTime::now)
    }

    /// With a clock of one's own, which chooses the quote.
    pub fn with_clock(settings: Settings, now: WallClock) -> Result<Self, OptionError> {
        if let Some(length) = settings.text.as_ref().map(|text| text.len() + 2).filter(|length| *length >= LIMIT) {
            return Err(OptionError::Invalid(format!(
                "the option `text` makes a quote of {length} bytes with its line end; \
                 a quote is shorter than {LIMIT} (RFC 865)"
            )));
        }
        Ok(QuoteOfTheDay { text: settings.text, now })
    }

    fn quote(&self) -> &str {
        self.text.as_deref().unwrap_or_else(|| {
            let day = Timestamp::from((self.now)()).unix_seconds().div_euclid(DAY);
            QUOTES[(day.unsigned_abs() % QUOTES.len() as u64) as usize]
        })
    }
}

#[async_trait]
impl Handler for QuoteOfTheDay {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        tell(session, |peer, answer| {
            answer.extend_from_slice(self.quote().as_bytes());
            answer.extend_from_slice(after_line(peer, "\r\n").as_bytes());
        })
        .await
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};

    fn says(text: &str) -> Settings {
        Settings { text: Some(text.to_owned()) }
    }

    #[test]
    fn every_quote_is_ascii_and_fits_the_smallest_answer_that_is_allowed() {
        for quote in QUOTES {
            assert!(quote.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{quote}");
            assert!(quote.len() + 2 <= 128, "{quote}");
        }
    }

    #[test]
    fn the_quote_changes_at_midnight_and_comes_round() {
        let quote_at = |clock| QuoteOfTheDay::with_clock(Settings::default(), clock).unwrap().quote().to_owned();
        assert_eq!(quote_at(|| UNIX_EPOCH), QUOTES[0]);
        assert_eq!(quote_at(|| UNIX_EPOCH + Duration::from_secs(86_399)), QUOTES[0]);
        assert_eq!(quote_at(|| UNIX_EPOCH + Duration::from_secs(86_400)), QUOTES[1]);
        assert_eq!(quote_at(|| UNIX_EPOCH + Duration::from_secs(86_400 * QUOTES.len() as u64)), QUOTES[0]);
        assert_eq!(quote_at(|| UNIX_EPOCH - Duration::from_secs(1)), QUOTES[1], "a clock before 1970");
    }

    #[test]
    fn a_text_that_the_rfc_finds_too_long_is_refused_with_its_length() {
        assert!(QuoteOfTheDay::new(says(&"x".repeat(509))).is_ok());
        assert_eq!(
            QuoteOfTheDay::new(says(&"x".repeat(510))).unwrap_err().to_string(),
            "the option `text` makes a quote of 512 bytes with its line end; a quote is shorter than 512 (RFC 865)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_connects_is_sent_the_quote_and_the_close() {
        let mut talk = Rehearsal::of(QuoteOfTheDay::new(says("so it goes")).unwrap(), Stage::Raw);
        assert_eq!(talk.hears_the_rest().await, "so it goes\r\n");
        talk.ends().await.unwrap();
    }

    #[tokio::test]
    async fn a_source_that_may_be_forged_hears_what_it_may_hear() {
        let mut talk = Rehearsal::of(QuoteOfTheDay::new(says("so it goes")).unwrap(), Stage::DatagramsUpTo(5));
        talk.says("?").await;
        assert_eq!(talk.hears().await, "so it");
    }
}
