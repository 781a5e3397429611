//! Moments as text: RFC 3339, in UTC.
//!
//! The calendar is the proleptic Gregorian one. Leap seconds do not show, as they do not in POSIX time.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time of day: [`SystemTime::now`], or a fixed moment in tests.
pub type WallClock = fn() -> SystemTime;

const DAY: i64 = 86_400;
/// Four centuries, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// From the 1st of March of the year 0 to the epoch of POSIX.
const MARCH_0000_TO_EPOCH: i64 = 719_468;

/// A moment, shown to the second as in `2026-11-22T09:35:10Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z; negative before.
    unix: i64,
}

impl Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down; negative before.
    pub fn unix_seconds(self) -> i64 {
        self.unix
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let unix = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => seconds(since),
            Err(before) => {
                let before = before.duration();
                -seconds(before) - i64::from(before.subsec_nanos() > 0)
            }
        };
        Timestamp { unix }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.unix.div_euclid(DAY));
        let second = self.unix.rem_euclid(DAY);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

/// The year, month and day that lie so many days after 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last one and the months before it have fixed lengths:
/// 153 days for every five of them.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + MARCH_0000_TO_EPOCH;
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(unix: i64) -> String {
        Timestamp { unix }.to_string()
    }

    #[test]
    fn known_moments_read_as_date_writes_them() {
        for (unix, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (2_085_978_496, "2036-02-07T06:28:16Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-2_208_988_800, "1900-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(text(unix), expected);
        }
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = |year: i64, month: i64| match month {
            2 => 28 + i64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in -135_140..157_054 {
            assert_eq!(date(days), (year, month, day), "{days} days after the epoch");
            day += 1;
            if day > length(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (2400, 1, 1));
    }

    #[test]
    fn a_part_of_a_second_is_rounded_down_on_both_sides_of_the_epoch() {
        let half = Duration::from_millis(500);
        assert_eq!(Timestamp::from(UNIX_EPOCH + half).unix_seconds(), 0);
        assert_eq!(Timestamp::from(UNIX_EPOCH - half).unix_seconds(), -1);
    }
}
