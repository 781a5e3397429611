//! `daytime`: the Daytime Protocol, RFC 867.

use std::io::Write as _;
use std::time::SystemTime;

use async_trait::async_trait;

use super::announcement::tell;
use super::line_end::after_line;
use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::session::Session;
use crate::timestamp::{Timestamp, WallClock};

/// Sends date and time as a line of text: once to whoever connects, and in answer to each datagram.
///
/// The RFC leaves the form free. This is RFC 3339 in UTC, which people and programs read alike.
#[derive(Debug, Clone, Copy)]
pub struct Daytime {
    now: WallClock,
}

impl Daytime {
    /// With a clock of one's own.
    pub fn with_clock(now: WallClock) -> Self {
        Daytime { now }
    }
}

impl Default for Daytime {
    fn default() -> Self {
        Daytime::with_clock(SystemTime::now)
    }
}

#[async_trait]
impl Handler for Daytime {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        tell(session, |peer, answer| {
            write!(answer, "{}{}", Timestamp::from((self.now)()), after_line(peer, "\r\n"))
                .expect("memory takes what is written to it");
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

    fn leap_day() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_709_164_800_999)
    }

    #[tokio::test]
    async fn whoever_connects_is_sent_one_line_and_the_close() {
        let mut talk = Rehearsal::of(Daytime::with_clock(leap_day), Stage::Raw);
        assert_eq!(talk.hears_the_rest().await, "2024-02-29T00:00:00Z\r\n");
    }

    #[tokio::test]
    async fn a_transport_that_ends_messages_itself_carries_no_line_end() {
        let mut talk = Rehearsal::of(Daytime::with_clock(leap_day), Stage::Messages);
        assert_eq!(talk.hears_the_rest().await, "2024-02-29T00:00:00Z");
    }

    #[tokio::test]
    async fn every_datagram_is_answered() {
        let mut talk = Rehearsal::of(Daytime::with_clock(leap_day), Stage::Datagrams);
        for message in ["", "what time is it?"] {
            talk.says(message).await;
            assert_eq!(talk.hears().await, "2024-02-29T00:00:00Z\r\n");
        }
    }
}
