//! How often a source prefix may be answered: a token bucket each, in a table that never grows.
//!
//! # The table
//! It is an array of sets; a prefix hashes, under a key that nobody else knows, to one set, and is looked for among the
//! set's few buckets. A prefix that has none takes over the fullest bucket of its set *with the tokens that are in it*.
//! For an ordinary prefix that is a bucket nobody drew from lately, so a full one. Under a flood of forged sources it is
//! an emptier one, never a fresh one: whatever comes and goes between, no prefix is answered more often than
//! it would be with a bucket of its own for ever. (While a prefix is away, every bucket of its set holds at most as much
//! as it left behind plus what flowed in since: the fullest was given up, and the others held no more.) A flood can
//! therefore make strangers wait, and can neither use up memory nor turn the service against a victim.
//!
//! # The bucket
//! One number: when it will be full again. This is the virtual scheduling form of the generic cell rate algorithm
//! (ITU-T I.371, annex A), which is equal to a token bucket and has nothing to refill.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Eight thousand prefixes in 128 KiB, which the kernel gives only as they are touched.
const SETS: usize = 1024;
/// Sixteen bytes each: a set is two cache lines.
const WAYS: usize = 8;
/// How many seconds' worth of answers may be given at once.
const BURST_SECONDS: u32 = 2;

/// Times are nanoseconds since the table was made: they last for 584 years.
type Nanos = u64;

pub(super) struct RateTable {
    sets: Box<[Set]>,
    hash_keys: RandomState,
    start: Option<Instant>,
    /// How long one token takes to flow in.
    interval: Nanos,
    /// How long an empty bucket takes to fill.
    depth: Nanos,
}

type Set = [Bucket; WAYS];

#[derive(Clone, Copy, Default)]
struct Bucket {
    prefix: Prefix,
    full_at: Nanos,
}

/// An IPv4 /24 or an IPv6 /56: what one attacker, or one victim, is given by its provider.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Prefix(u64);

impl RateTable {
    /// Allows each prefix so many answers a second, and at first twice as many at once.
    pub(super) fn new(per_second: u32) -> Self {
        RateTable::with_sets(SETS, per_second)
    }

    fn with_sets(sets: usize, per_second: u32) -> Self {
        // Rounded up: rather too slow by a billionth than too fast.
        let interval = Nanos::from(1_000_000_000 / per_second + u32::from(1_000_000_000 % per_second > 0));
        let burst = Nanos::from(per_second) * Nanos::from(BURST_SECONDS);
        RateTable {
            sets: vec![Set::default(); sets].into_boxed_slice(),
            hash_keys: RandomState::new(),
            start: None,
            interval,
            depth: interval * burst,
        }
    }

    /// Takes a token from the bucket of the source's prefix; `false` when there is none. It is not inlined, so that what is
    /// done for local sources, which need none, stays small.
    #[inline(never)]
    pub(super) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let start = *self.start.get_or_insert(now);
        let now = nanos(now.saturating_duration_since(start));
        let prefix = Prefix::of(source);
        let index = self.hash_keys.hash_one(prefix) as usize % self.sets.len();
        let set = &mut self.sets[index];
        let place = set.iter().position(|bucket| bucket.prefix == prefix).unwrap_or_else(|| fullest(set));
        let bucket = &mut set[place];
        bucket.prefix = prefix;
        let full_at = bucket.full_at.max(now) + self.interval;
        let has_token = full_at <= now + self.depth;
        if has_token {
            bucket.full_at = full_at;
        }
        has_token
    }
}

fn fullest(set: &Set) -> usize {
    let mut fullest = 0;
    for place in 1..WAYS {
        if set[place].full_at < set[fullest].full_at {
            fullest = place;
        }
    }
    fullest
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX / 2)
}

impl Prefix {
    fn of(source: IpAddr) -> Self {
        // The top byte tells the families apart, and both from the prefix of a bucket that nobody has.
        match source.to_canonical() {
            IpAddr::V4(ip) => Prefix(4 << 56 | u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) => Prefix(6 << 56 | (u128::from(ip) >> 72) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(table: &mut RateTable, source: IpAddr, now: Instant, asked: usize) -> usize {
        (0..asked).filter(|_| table.take(source, now)).count()
    }

    #[test]
    fn a_prefix_has_a_burst_and_then_its_rate() {
        let mut table = RateTable::new(20);
        let start = Instant::now();
        let source = ip("203.0.113.9");
        assert_eq!(taken(&mut table, source, start, 1000), 40);
        assert_eq!(taken(&mut table, source, start + Duration::from_millis(49), 1000), 0);
        assert_eq!(taken(&mut table, source, start + Duration::from_millis(50), 1000), 1);
        assert_eq!(taken(&mut table, source, start + Duration::from_millis(1050), 1000), 20);
        assert_eq!(taken(&mut table, source, start + Duration::from_secs(3600), 1000), 40);
    }

    #[test]
    fn neighbours_share_a_bucket_and_others_do_not() {
        let now = Instant::now();
        for (one, other, shared) in [
            ("203.0.113.9", "203.0.113.200", true),
            ("203.0.113.9", "203.0.112.9", false),
            ("203.0.113.9", "::ffff:203.0.113.10", true),
            ("2001:db8:0:aa00::1", "2001:db8:0:aaff:1:2:3:4", true),
            ("2001:db8:0:aa00::1", "2001:db8:0:ab00::1", false),
        ] {
            let mut table = RateTable::new(20);
            assert_eq!(taken(&mut table, ip(one), now, 100), 40);
            let left = taken(&mut table, ip(other), now, 100);
            assert_eq!(left, if shared { 0 } else { 40 }, "{one} and {other}");
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing_away() {
        let mut table = RateTable::new(20);
        let start = Instant::now() + Duration::from_secs(10);
        let source = ip("203.0.113.9");
        assert_eq!(taken(&mut table, source, start, 100), 40);
        assert_eq!(taken(&mut table, source, start - Duration::from_secs(5), 100), 0);
    }

    #[test]
    fn every_rate_that_can_be_asked_for_is_kept() {
        let start = Instant::now();
        let source = ip("203.0.113.9");
        for rate in [1, 3, 7, 999] {
            let mut table = RateTable::new(rate);
            assert_eq!(taken(&mut table, source, start, 100_000), 2 * rate as usize);
            let later = taken(&mut table, source, start + Duration::from_secs(1), 100_000);
            assert!((rate as usize - 1..=rate as usize).contains(&later), "{later} at {rate} a second");
        }
        let mut fastest = RateTable::new(u32::MAX);
        assert_eq!(taken(&mut fastest, source, start, 1000), 1000);
    }

    #[test]
    fn a_million_random_sources_leave_memory_flat_and_service_possible() {
        let mut table = RateTable::new(20);
        let size = std::mem::size_of_val(&*table.sets);
        assert_eq!(size, 128 * 1024);
        let start = Instant::now();
        // A linear congruential generator (Knuth, MMIX): sources from all of both address spaces.
        let mut random = 1_u64;
        for count in 0..1_000_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let source = if random >> 63 == 0 {
                IpAddr::V4(Ipv4Addr::from((random >> 24) as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from(u128::from(random) << 64))
            };
            table.take(source, start + Duration::from_micros(count.into()));
        }
        assert_eq!(std::mem::size_of_val(&*table.sets), size);
        // The flood lasted for a second; three seconds later everything has flowed in again.
        assert_eq!(taken(&mut table, ip("203.0.113.9"), start + Duration::from_secs(4), 100), 40);
    }

    proptest! {
        /// The smallest table that there can be, and more prefixes than it has buckets: each asks seven times as often
        /// as it is answered, and they push each other out all the time.
        #[test]
        fn no_prefix_is_answered_more_often_than_its_own_bucket_would_allow(
            asked in proptest::collection::vec((0_u32..12, 0_u64..6), 1..2000),
        ) {
            const RATE: u32 = 5;
            let mut table = RateTable::with_sets(1, RATE);
            let start = Instant::now();
            let mut now = Duration::ZERO;
            let mut answers: HashMap<u32, Vec<Duration>> = HashMap::new();
            for (prefix, pause) in asked {
                now += Duration::from_millis(pause);
                if table.take(IpAddr::V4(Ipv4Addr::from(prefix << 8)), start + now) {
                    answers.entry(prefix).or_default().push(now);
                }
            }
            for times in answers.values() {
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let window = to.saturating_sub(*from);
                        let flowed_in = window.as_nanos() * u128::from(RATE) / 1_000_000_000;
                        let given = (last - first + 1) as u128;
                        prop_assert!(given <= u128::from(RATE * BURST_SECONDS) + flowed_in, "{given} in {window:?}");
                    }
                }
            }
        }

        /// The table must not be safe by answering nobody.
        #[test]
        fn a_prefix_that_keeps_to_its_rate_is_always_answered(pauses in proptest::collection::vec(200_u64..400, 1..100)) {
            let mut table = RateTable::with_sets(1, 5);
            let mut now = Instant::now();
            for pause in pauses {
                now += Duration::from_millis(pause);
                for prefix in 0..WAYS as u32 {
                    prop_assert!(table.take(IpAddr::V4(Ipv4Addr::from(prefix << 8)), now));
                }
            }
        }
    }
}
