//! When an open load asks: at fixed times, whatever becomes of the requests before.

use super::clock::Moment;
use super::whole;

/// The times at which one connection asks. All connections together ask at equal distances.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    first: f64,
    interval: f64,
    /// How many have passed.
    next: u64,
}

impl Schedule {
    /// For one of so many connections which together ask so often a second, the first of them at `begin`.
    pub(super) fn new(rate: f64, connections: usize, index: usize, begin: Moment) -> Self {
        let interval = 1e9 * super::ratio(connections as u64, 1) / rate;
        let turn = super::ratio(index as u64, connections as u64);
        let first = (super::ratio(begin, 1) + interval * turn) % interval;
        Schedule { first, interval, next: 0 }
    }

    fn at(&self, number: u64) -> Moment {
        whole(self.first + self.interval * super::ratio(number, 1))
    }

    /// When the next request is due.
    pub(super) fn due(&self) -> Moment {
        self.at(self.next)
    }

    /// It was sent.
    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// Passes by what was due before that time.
    pub(super) fn skip_to(&mut self, time: Moment) {
        self.next = self.next.max(self.before(time));
    }

    /// How many are due before that time.
    fn before(&self, time: Moment) -> u64 {
        let guess = whole(((super::ratio(time, 1) - self.first) / self.interval).floor()).saturating_sub(1);
        // Rounding moves it by one at most.
        (guess..guess + 3).find(|number| self.at(*number) >= time).unwrap_or(guess + 3)
    }

    /// How many are due from one time until before another.
    pub(super) fn between(&self, from: Moment, to: Moment) -> u64 {
        self.before(to).saturating_sub(self.before(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Moment = 1_000_000_000;

    #[test]
    fn connections_take_turns_from_the_beginning_on() {
        let mut due: Vec<Moment> = Vec::new();
        for index in 0..4 {
            let mut schedule = Schedule::new(1000.0, 4, index, 3 * SECOND);
            schedule.skip_to(3 * SECOND);
            for _ in 0..3 {
                due.push(schedule.due() - 3 * SECOND);
                schedule.advance();
            }
        }
        due.sort_unstable();
        assert_eq!(due, (0..12).map(|number| number * 1_000_000).collect::<Vec<_>>());
    }

    proptest! {
        /// Whatever the rate: together they ask as often as they should, and neither drift nor skip.
        #[test]
        fn all_connections_together_keep_the_rate(rate in 1_u32..1_000_000, connections in 1_usize..100, begin in 0..SECOND) {
            let schedules = (0..connections).map(|index| Schedule::new(rate.into(), connections, index, begin));
            let due: u64 = schedules.map(|schedule| schedule.between(begin, begin + 10 * SECOND)).sum();
            // Each may be off by one where a due time falls onto an end.
            prop_assert!(due.abs_diff(10 * u64::from(rate)) <= connections as u64, "{due}");
        }

        #[test]
        fn what_is_skipped_was_due_before(rate in 1_u32..1_000_000, begin in 0..SECOND, time in 0..100 * SECOND) {
            let mut schedule = Schedule::new(rate.into(), 3, 1, begin);
            schedule.skip_to(time);
            prop_assert!(schedule.due() >= time);
            prop_assert!(schedule.next == 0 || schedule.at(schedule.next - 1) < time);
        }
    }
}
