//! Counts events by name and reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Event, Observer};

/// Counts events by name and reason: a table of fixed size, since both come from the code.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Vec<Row>>);

#[derive(Debug)]
struct Row {
    name: &'static str,
    reason: &'static str,
    times: u64,
}

impl Row {
    /// Looks where the words stand rather than what they say: they are literals, and this runs twice a connection. A
    /// literal that stands in two places has two rows, which are added up when they are read.
    fn is_of(&self, name: &'static str, reason: &'static str) -> bool {
        std::ptr::eq(self.name, name) && std::ptr::eq(self.reason, reason)
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
        for Row { name, reason, times } in &*self.rows() {
            *counts.entry((*name, *reason)).or_default() += times;
        }
        counts.into_iter().map(|((name, reason), count)| (name, reason, count)).collect()
    }

    fn sum(&self, wanted: impl Fn(&Row) -> bool) -> u64 {
        self.rows().iter().filter(|row| wanted(row)).map(|row| row.times).sum()
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Counters {
    fn observe(&self, event: &Event<'_>) {
        let (name, reason) = (event.name(), event.reason());
        let mut rows = self.rows();
        match rows.iter_mut().find(|row| row.is_of(name, reason)) {
            Some(row) => row.times += event.count(),
            None => rows.push(Row { name, reason, times: event.count() }),
        }
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
    }
}
