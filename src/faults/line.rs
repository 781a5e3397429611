//! Where pieces are while they are under way: each is kept until it is due.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::{Fate, Fates, HOLD};
use crate::random::scale;

/// What a piece costs beside its bytes, so that empty ones cannot be kept without end either.
const COST: usize = 64;

/// One direction of a link: what was sent and has not arrived.
#[derive(Debug)]
pub(crate) struct Line<T> {
    /// In the order in which they will arrive.
    queue: VecDeque<Held<T>>,
    cost: usize,
}

#[derive(Debug)]
struct Held<T> {
    item: T,
    size: usize,
    due: Instant,
    /// Whether it waits for the next.
    waits: bool,
    /// Whether it was held back: others are put before it.
    overtaken: bool,
    /// Whether a read ends with it, though more be there.
    ends_read: bool,
}

/// What arrives next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next<T> {
    /// This, now.
    Item(T),
    /// Something, at that time.
    At(Instant),
    /// Nothing is under way.
    Nothing,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line { queue: VecDeque::new(), cost: 0 }
    }
}

impl<T: Clone> Line<T> {
    /// Sends a message of that size in bytes, to which happens what its fate says.
    pub(crate) fn send(&mut self, now: Instant, item: T, size: usize, fate: &Fate) {
        if fate.drop {
            return;
        }
        if fate.duplicate {
            self.put(now, item.clone(), size, fate);
        }
        self.put(now, item, size, fate);
    }
}

impl<T> Line<T> {
    /// What all that is under way costs, in bytes. Whoever sends keeps it within bounds.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Takes the next message, once it is due.
    pub(crate) fn receive(&mut self, now: Instant) -> Next<T> {
        match self.queue.front() {
            None => Next::Nothing,
            Some(held) if held.due > now => Next::At(held.due),
            Some(_) => self.take_front().map_or(Next::Nothing, Next::Item),
        }
    }

    fn put(&mut self, now: Instant, item: T, size: usize, fate: &Fate) {
        let held_for = if fate.reorder || fate.coalesce { HOLD } else { Duration::ZERO };
        let own_due = now + fate.delay + held_for;
        // It goes behind the last piece that was not held back, or that is due before it all the same.
        let place = self.queue.iter().rposition(|held| !held.overtaken || held.due <= own_due).map_or(0, |at| at + 1);
        let before = place.checked_sub(1).and_then(|index| self.queue.get_mut(index));
        let due = match before {
            Some(before) if before.waits => {
                // What it waited for is here.
                before.waits = false;
                before.due = before.due.min(own_due.max(before.due - HOLD));
                own_due.max(before.due)
            }
            Some(before) => own_due.max(before.due),
            None => own_due,
        };
        let held = Held { item, size, due, waits: fate.coalesce, overtaken: fate.reorder, ends_read: false };
        self.queue.insert(place, held);
        self.cost += size + COST;
    }

    fn take_front(&mut self) -> Option<T> {
        let held = self.queue.pop_front()?;
        self.cost -= held.size + COST;
        Some(held.item)
    }
}

/// The connection broke.
#[derive(Debug, PartialEq)]
pub(crate) struct Broken;

impl Line<Bytes> {
    /// Sends a piece of a stream.
    pub(crate) fn write(&mut self, now: Instant, mut piece: Bytes, fates: &mut Fates) -> Result<(), Broken> {
        let fate = fates.draw();
        if fate.reset {
            return Err(Broken);
        }
        if let Some(place) = fate.split.filter(|_| piece.len() > 1) {
            let first = piece.split_to(1 + scale(place, piece.len() - 1));
            let size = first.len();
            self.put(now, first, size, &Fate { coalesce: false, ..fate });
            if let Some(held) = self.queue.back_mut() {
                held.ends_read = true;
            }
        }
        let size = piece.len();
        self.put(now, piece, size, &fate);
        Ok(())
    }

    /// The bytes that arrive next; some of them may be [taken](Self::advance).
    pub(crate) fn peek(&self, now: Instant) -> Next<&[u8]> {
        match self.queue.front() {
            None => Next::Nothing,
            Some(held) if held.due > now => Next::At(held.due),
            Some(held) => Next::Item(&held.item),
        }
    }

    /// Takes so many of the bytes that arrive next.
    pub(crate) fn advance(&mut self, count: usize) {
        if let Some(held) = self.queue.front_mut() {
            held.item.advance(count);
            held.size -= count;
            self.cost -= count;
            if held.item.is_empty() {
                self.take_front();
            }
        }
    }

    /// Reads what is due, up to where a read shall end.
    pub(crate) fn read(&mut self, now: Instant, into: &mut ReadBuf<'_>) -> Next<()> {
        let before = into.filled().len();
        loop {
            let more = match self.peek(now) {
                Next::Item(_) if into.remaining() == 0 => return Next::Item(()),
                Next::Item(bytes) => {
                    let count = bytes.len().min(into.remaining());
                    into.put_slice(&bytes[..count]);
                    count
                }
                _ if into.filled().len() > before => return Next::Item(()),
                Next::At(at) => return Next::At(at),
                Next::Nothing => return Next::Nothing,
            };
            let ends = self.queue.front().is_some_and(|held| held.ends_read && held.size == more);
            self.advance(more);
            if ends {
                return Next::Item(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Faults;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn send(line: &mut Line<char>, now: Instant, item: char, fate: Fate) {
        line.send(now, item, 1, &fate);
    }

    /// What arrives until nothing is under way, each with the milliseconds that it took.
    fn arrivals(line: &mut Line<char>, start: Instant) -> Vec<(char, u128)> {
        let (mut now, mut arrived) = (start, Vec::new());
        loop {
            match line.receive(now) {
                Next::Item(item) => arrived.push((item, (now - start).as_millis())),
                Next::At(at) => now = at,
                Next::Nothing => return arrived,
            }
        }
    }

    fn reads(line: &mut Line<Bytes>, start: Instant) -> Vec<(Vec<u8>, u128)> {
        let (mut now, mut all) = (start, Vec::new());
        loop {
            let mut memory = [0; 100];
            let mut buffer = ReadBuf::new(&mut memory);
            match line.read(now, &mut buffer) {
                Next::Item(()) => all.push((buffer.filled().to_vec(), (now - start).as_millis())),
                Next::At(at) => now = at,
                Next::Nothing => return all,
            }
        }
    }

    fn line_of(query: &str, writes: &[&'static str], start: Instant) -> Line<Bytes> {
        let faults: Faults = crate::options::Options::parse(query).unwrap().read().unwrap();
        let (mut line, mut fates) = (Line::default(), Fates::new(&faults, 0));
        for write in writes {
            line.write(start, Bytes::from(*write), &mut fates).unwrap();
        }
        line
    }

    #[test]
    fn a_message_takes_its_time_and_none_overtakes_another_for_it() {
        let (mut line, start) = (Line::default(), Instant::now());
        send(&mut line, start, 'a', Fate { delay: Duration::from_millis(30), ..Fate::default() });
        send(&mut line, start, 'b', Fate { delay: Duration::from_millis(10), ..Fate::default() });
        assert_eq!(arrivals(&mut line, start), [('a', 30), ('b', 30)]);
        assert_eq!(line.cost(), 0);
    }

    #[test]
    fn one_that_is_held_back_is_overtaken_by_those_that_come_in_time() {
        let (mut line, start) = (Line::default(), Instant::now());
        send(&mut line, start, 'a', Fate { reorder: true, ..Fate::default() });
        send(&mut line, start, 'b', Fate::default());
        send(&mut line, after(start, 19), 'c', Fate::default());
        send(&mut line, after(start, 21), 'd', Fate::default());
        assert_eq!(arrivals(&mut line, start), [('b', 0), ('c', 19), ('a', 20), ('d', 21)]);
    }

    #[test]
    fn one_is_lost_and_another_comes_twice() {
        let (mut line, start) = (Line::default(), Instant::now());
        send(&mut line, start, 'a', Fate { drop: true, ..Fate::default() });
        send(&mut line, start, 'b', Fate { duplicate: true, ..Fate::default() });
        assert_eq!(arrivals(&mut line, start), [('b', 0), ('b', 0)]);
    }

    #[test]
    fn without_faults_a_read_brings_all_that_is_there() {
        let start = Instant::now();
        let mut line = line_of("", &["abc", "def"], start);
        assert_eq!(reads(&mut line, start), [(b"abcdef".to_vec(), 0)]);
    }

    #[test]
    fn a_split_write_comes_in_two_reads() {
        let start = Instant::now();
        let reads = reads(&mut line_of("split=1", &["abcdef"], start), start);
        assert_eq!(reads.len(), 2);
        assert_eq!([&reads[0].0[..], &reads[1].0[..]].concat(), b"abcdef");
    }

    #[test]
    fn a_coalesced_write_waits_for_the_next_and_not_for_ever() {
        let start = Instant::now();
        assert_eq!(reads(&mut line_of("coalesce=1", &["abc"], start), start), [(b"abc".to_vec(), 20)]);
        let mut line = line_of("coalesce=1", &["abc"], start);
        let now = after(start, 5);
        line.write(now, Bytes::from("def"), &mut Fates::new(&Faults::default(), 0)).unwrap();
        assert_eq!(reads(&mut line, start), [(b"abcdef".to_vec(), 5)]);
    }

    #[test]
    fn empty_messages_cost_too() {
        let (mut line, start) = (Line::default(), Instant::now());
        send(&mut line, start, 'a', Fate::default());
        assert_eq!(line.cost(), 1 + COST);
    }

    #[test]
    fn a_stream_breaks_where_its_fate_says() {
        let faults = Faults { reset: 1.0, ..Faults::default() };
        let mut fates = Fates::new(&faults, 0);
        assert_eq!(Line::default().write(Instant::now(), Bytes::from("a"), &mut fates), Err(Broken));
    }

    proptest::proptest! {
        #[test]
        fn a_stream_loses_nothing_whatever_befalls_it(
            seed: u64,
            writes in proptest::collection::vec("[a-z]{1,9}", 0..20),
            gaps in proptest::collection::vec(0u64..30, 20),
        ) {
            let chance = 0.5;
            let jitter = Duration::from_millis(15);
            let mut fates = Fates::new(&Faults { seed, jitter, split: chance, coalesce: chance, ..Faults::default() }, 0);
            let (start, mut now, mut line) = (Instant::now(), Instant::now(), Line::default());
            for (write, gap) in writes.iter().zip(gaps) {
                now = after(now, gap);
                line.write(now, Bytes::from(write.clone()), &mut fates).unwrap();
            }
            let all: Vec<u8> = reads(&mut line, start).into_iter().flat_map(|(bytes, _)| bytes).collect();
            proptest::prop_assert_eq!(String::from_utf8(all).unwrap(), writes.concat());
            proptest::prop_assert_eq!(line.cost(), 0);
        }
    }
}
