//! What one conversation has in flight: which reply belongs to which request, and what became of the others.

use std::collections::VecDeque;

use super::clock::Moment;

/// How many requests are remembered after they were answered, to know a duplicate when it comes.
const REMEMBERED: usize = 4096;

/// The requests of one conversation, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// From the number `first` on; the oldest that still waits is never before `waiting_from`.
    requests: VecDeque<Request>,
    first: u64,
    waiting_from: u64,
    waiting: usize,
    /// The highest number that was answered.
    highest: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    /// When it was to be sent.
    due: Moment,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Answered,
    Lost,
}

/// What a reply turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The answer to a request that waited, which was due then.
    Answer {
        /// When the request was to be sent.
        due: Moment,
        /// Whether a request that was sent later was answered before.
        reordered: bool,
    },
    /// The answer to a request that was given up already.
    Late {
        /// When the request was to be sent.
        due: Moment,
    },
    /// An answer that came before.
    Duplicate,
    /// Nothing that was asked.
    Unasked,
}

impl Flight {
    /// Takes note of a request, and gives it its number.
    #[inline]
    pub(super) fn sent(&mut self, due: Moment) -> u64 {
        if self.requests.len() >= REMEMBERED && self.waiting_from > self.first {
            self.requests.pop_front();
            self.first += 1;
        }
        self.requests.push_back(Request { due, state: State::Waits });
        self.waiting += 1;
        self.next() - 1
    }

    /// The number that the next request gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.requests.len() as u64
    }

    /// How many requests wait for their replies.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The oldest request that waits: whose reply comes next, where replies keep the order.
    pub(super) fn oldest(&mut self) -> Option<u64> {
        while self.waiting_from < self.next() && self.state(self.waiting_from) != Some(State::Waits) {
            self.waiting_from += 1;
        }
        (self.waiting_from < self.next()).then_some(self.waiting_from)
    }

    /// The oldest request was answered, which is forgotten: where replies keep the order, none can come twice. Tells
    /// when it was due.
    #[inline]
    pub(super) fn answer_oldest(&mut self) -> Option<Moment> {
        loop {
            let oldest = self.requests.pop_front()?;
            self.first += 1;
            self.waiting_from = self.waiting_from.max(self.first);
            if oldest.state == State::Waits {
                self.waiting -= 1;
                return Some(oldest.due);
            }
        }
    }

    fn state(&self, number: u64) -> Option<State> {
        let index = number.checked_sub(self.first)?;
        self.requests.get(usize::try_from(index).ok()?).map(|request| request.state)
    }

    /// A reply to the request of that number came.
    pub(super) fn answered(&mut self, number: u64) -> Reply {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(request) = index.and_then(|index| self.requests.get_mut(index)) else { return Reply::Unasked };
        let due = request.due;
        match std::mem::replace(&mut request.state, State::Answered) {
            State::Answered => Reply::Duplicate,
            State::Lost => Reply::Late { due },
            State::Waits => {
                self.waiting -= 1;
                let reordered = self.highest.is_some_and(|highest| number < highest);
                self.highest = self.highest.max(Some(number));
                Reply::Answer { due, reordered }
            }
        }
    }

    /// Gives up what was due at that time or before, and tells when each was due.
    #[inline]
    pub(super) fn give_up(&mut self, until: Moment, mut lost: impl FnMut(Moment)) {
        let mut number = self.waiting_from;
        while number < self.next() {
            let index = (number - self.first) as usize;
            let request = &mut self.requests[index];
            // They are in the order in which they were due.
            if request.due > until {
                return;
            }
            if request.state == State::Waits {
                request.state = State::Lost;
                self.waiting -= 1;
                lost(request.due);
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_reply_is_told_for_what_it_is() {
        let mut flight = Flight::default();
        let start = 1_000;
        let numbers: Vec<u64> = (0..4).map(|_| flight.sent(start)).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(flight.answered(2), Reply::Answer { due: start, reordered: false });
        assert_eq!(flight.answered(0), Reply::Answer { due: start, reordered: true });
        assert_eq!(flight.answered(0), Reply::Duplicate);
        assert_eq!(flight.answered(9), Reply::Unasked);
        assert_eq!(flight.oldest(), Some(1));
        let mut lost = 0;
        flight.give_up(start, |_| lost += 1);
        assert_eq!((lost, flight.waiting(), flight.oldest()), (2, 0, None));
        assert_eq!(flight.answered(3), Reply::Late { due: start });
    }

    proptest! {
        /// However replies are lost, doubled and mixed: what was sent is answered once, or lost.
        #[test]
        fn every_request_is_answered_or_lost(replies in proptest::collection::vec(0_u64..300, 0..600)) {
            let mut flight = Flight::default();
            let now = 7;
            (0..300).for_each(|_| { flight.sent(now); });
            let mut answered = 0;
            for number in &replies {
                answered += usize::from(matches!(flight.answered(*number), Reply::Answer { .. }));
            }
            let distinct: std::collections::BTreeSet<_> = replies.iter().collect();
            prop_assert_eq!(answered, distinct.len());
            let mut lost = 0;
            flight.give_up(now, |_| lost += 1);
            prop_assert_eq!(answered + lost, 300);
            prop_assert_eq!(flight.waiting(), 0);
        }
    }

    #[test]
    fn where_replies_keep_the_order_the_oldest_is_answered_and_forgotten() {
        let mut flight = Flight::default();
        (10..13).for_each(|due| drop(flight.sent(due)));
        assert_eq!((flight.answer_oldest(), flight.oldest(), flight.waiting()), (Some(10), Some(1), 2));
        assert_eq!(
            (flight.answer_oldest(), flight.answer_oldest(), flight.answer_oldest()),
            (Some(11), Some(12), None)
        );
        assert_eq!((flight.next(), flight.requests.len()), (3, 0));
    }

    #[test]
    fn memory_stays_bounded_however_much_is_sent() {
        let mut flight = Flight::default();
        for _ in 0..100_000 {
            let number = flight.sent(7);
            flight.answered(number);
            flight.oldest();
        }
        assert!(flight.requests.len() <= REMEMBERED);
    }
}
