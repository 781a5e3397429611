//! `time`: the Time Protocol, RFC 868.
//!
//! The count of seconds since 1900 has 32 bits and begins anew on the 7th of February 2036 at 06:28:16 UTC. The RFC
//! says nothing of that day; the low 32 bits are sent, as NTP does (RFC 5905, section 6), so that a client which knows
//! the era reads the right time before and after.

use std::time::SystemTime;

use async_trait::async_trait;

use super::announcement::tell;
use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::session::Session;
use crate::timestamp::{Timestamp, WallClock};

/// From 1900-01-01 to the epoch of POSIX.
const SECONDS_1900_TO_1970: i64 = 2_208_988_800;

/// Sends the seconds since 1900-01-01T00:00:00Z as 32 bits, the most significant byte first: once to whoever connects,
/// and in answer to each datagram.
///
/// Four bytes are no text: under `lines` the seconds that hold a line feed cannot be carried.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    now: WallClock,
}

impl Time {
    /// With a clock of one's own.
    pub fn with_clock(now: WallClock) -> Self {
        Time { now }
    }
}

impl Default for Time {
    fn default() -> Self {
        Time::with_clock(SystemTime::now)
    }
}

#[async_trait]
impl Handler for Time {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        tell(session, |_, answer| answer.extend(seconds_since_1900((self.now)()))).await
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

fn seconds_since_1900(time: SystemTime) -> [u8; 4] {
    let seconds = Timestamp::from(time).unix_seconds().saturating_add(SECONDS_1900_TO_1970);
    // The low 32 bits, also of a time before 1900.
    let [.., a, b, c, d] = seconds.to_be_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};

    /// The example of the RFC: 00:00:00 on the 1st of May 1983.
    fn may_1983() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(2_629_584_000 - 2_208_988_800)
    }

    #[test]
    fn the_moments_that_the_rfc_lists_have_its_values() {
        let at = |unix: i64| {
            let distance = Duration::from_secs(unix.unsigned_abs());
            let time = if unix < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
            u32::from_be_bytes(seconds_since_1900(time))
        };
        assert_eq!(at(0), 2_208_988_800);
        assert_eq!(at(189_302_400), 2_398_291_200, "1 January 1976");
        assert_eq!(at(315_532_800), 2_524_521_600, "1 January 1980");
        assert_eq!(at(420_595_200), 2_629_584_000, "1 May 1983");
        assert_eq!(at(-3_506_716_800).cast_signed(), -1_297_728_000, "17 November 1858");
    }

    #[test]
    fn in_2036_the_count_begins_anew() {
        let wrap = UNIX_EPOCH + Duration::from_secs(2_085_978_496);
        assert_eq!(seconds_since_1900(wrap - Duration::from_secs(1)), [255; 4]);
        assert_eq!(seconds_since_1900(wrap), [0; 4]);
    }

    #[tokio::test]
    async fn whoever_connects_is_sent_four_bytes_and_the_close() {
        let mut talk = Rehearsal::of(Time::with_clock(may_1983), Stage::Raw);
        assert_eq!(talk.hears_bytes().await, 2_629_584_000_u32.to_be_bytes());
        assert_eq!(talk.hears_the_rest().await, "");
    }

    #[tokio::test]
    async fn every_datagram_is_answered_even_an_empty_one() {
        let mut talk = Rehearsal::of(Time::with_clock(may_1983), Stage::Datagrams);
        for _ in 0..2 {
            talk.says("").await;
            assert_eq!(talk.hears_bytes().await, 2_629_584_000_u32.to_be_bytes());
        }
    }
}
