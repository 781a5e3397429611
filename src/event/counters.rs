//! Counts events by name and reason.

use std::collections::BTreeMap;
use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Event, Observer};

/// Counts events by name and reason: a table of fixed size, since both come from the code.
///
/// A row is added when its event happens first, behind those that are there, and stays. So no lock is needed to find it.
#[derive(Debug, Default)]
pub struct Counters(Place);

/// Where a row is, or the next is going to be.
type Place = OnceLock<Box<Row>>;

#[derive(Debug)]
struct Row {
    name: &'static str,
    reason: &'static str,
    times: AtomicU64,
    next: Place,
}

impl Row {
    /// Looks where the words stand rather than what they say: they are literals, and this runs twice a connection. A
    /// literal that stands in two places has two rows, which are added up when they are read.
    fn is_of(&self, name: &'static str, reason: &'static str) -> bool {
        std::ptr::eq(self.name, name) && std::ptr::eq(self.reason, reason)
    }

    fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// How often an event of that name happened, for that reason.
    pub fn get(&self, name: &str, reason: &str) -> u64 {
        self.sum(|row| row.name == name && row.reason == reason)
    }

    /// How often an event of that name happened, for whatever reason.
    pub fn total(&self, name: &str) -> u64 {
        self.sum(|row| row.name == name)
    }

    /// All that was counted, by name and reason.
    pub fn snapshot(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for row in self.rows() {
            *counts.entry((row.name, row.reason)).or_default() += row.times();
        }
        counts.into_iter().map(|((name, reason), count)| (name, reason, count)).collect()
    }

    fn sum(&self, wanted: impl Fn(&Row) -> bool) -> u64 {
        self.rows().filter(|row| wanted(row)).map(Row::times).sum()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        iter::successors(self.0.get(), |row| row.next.get()).map(|row| &**row)
    }

    fn row(&self, name: &'static str, reason: &'static str) -> &Row {
        let mut place = &self.0;
        loop {
            // Another thread may have put another one there meanwhile.
            let row =
                place.get_or_init(|| Box::new(Row { name, reason, times: AtomicU64::new(0), next: Place::new() }));
            if row.is_of(name, reason) {
                return row;
            }
            place = &row.next;
        }
    }
}

impl Observer for Counters {
    fn observe(&self, event: &Event<'_>) {
        self.row(event.name(), event.reason()).times.fetch_add(event.count(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::event::Loss;

    #[test]
    fn events_are_counted_by_name_and_reason() {
        let counters = Counters::default();
        let remote = Address::Unnamed;
        let lost = |reason, count| Event::DatagramLost { listener: "x", remote: &remote, reason, count, error: None };
        counters.observe(&lost(Loss::Overflow, 3));
        counters.observe(&lost(Loss::Overflow, 1));
        counters.observe(&lost(Loss::TooLong, 1));
        assert_eq!(counters.get("datagram.lost", "overflow"), 4);
        assert_eq!(counters.total("datagram.lost"), 5);
        assert_eq!(counters.snapshot(), [("datagram.lost", "overflow", 4), ("datagram.lost", "too-long", 1)]);
    }

    #[test]
    fn threads_that_count_something_first_at_the_same_time_lose_nothing() {
        for _ in 0..20 {
            let (counters, start) = (Counters::default(), std::sync::Barrier::new(4));
            std::thread::scope(|scope| {
                for first in 0..4 {
                    let (counters, start) = (&counters, &start);
                    scope.spawn(move || {
                        let reasons = [Loss::TooLong, Loss::Overflow, Loss::SendFailed, Loss::Amplification];
                        start.wait();
                        for step in 0..4 {
                            let (reason, remote) = (reasons[(first + step) % 4], &Address::Unnamed);
                            counters.observe(&Event::DatagramLost {
                                listener: "x",
                                remote,
                                reason,
                                count: 1,
                                error: None,
                            });
                        }
                    });
                }
            });
            let counts = counters.snapshot();
            assert_eq!(counts.len(), 4);
            assert!(counts.iter().all(|(_, _, times)| *times == 4), "{counts:?}");
        }
    }
}
