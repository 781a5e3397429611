//! What one conversation has in flight: which reply belongs to which request, and what became of the others.

use std::collections::VecDeque;

use super::clock::Moment;

/// Requests whose replies keep their order: the next reply is the oldest one's. Those that left together are kept
/// together.
#[derive(Debug, Default)]
pub(super) struct InOrder {
    /// When some requests were due, and how many of them wait.
    runs: VecDeque<(Moment, u64)>,
    /// The number of the oldest, and of the one that is sent next.
    oldest: u64,
    next: u64,
}

impl InOrder {
    /// Takes note of so many requests.
    #[inline]
    pub(super) fn sent(&mut self, due: Moment, count: u64) {
        self.next += count;
        match self.runs.back_mut() {
            Some((same, together)) if *same == due => *together += count,
            _ => self.runs.push_back((due, count)),
        }
    }

    /// The number that the next request gets.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many requests wait for their replies.
    #[inline]
    pub(super) fn waiting(&self) -> u64 {
        self.next - self.oldest
    }

    /// The request whose reply comes next.
    #[inline]
    pub(super) fn oldest(&self) -> Option<u64> {
        (self.oldest < self.next).then_some(self.oldest)
    }

    /// So many of the oldest are answered, no more than wait; tells when some of them were due.
    #[inline]
    pub(super) fn answered(&mut self, mut count: u64, mut answered: impl FnMut(Moment, u64)) {
        while count > 0
            && let Some((due, together)) = self.runs.front_mut()
        {
            let some = count.min(*together);
            answered(*due, some);
            self.oldest += some;
            count -= some;
            *together -= some;
            if *together == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// Gives up what was due at that time or before, and tells when some of them were due.
    #[inline]
    pub(super) fn give_up(&mut self, until: Moment, mut lost: impl FnMut(Moment, u64)) {
        while let Some((due, together)) = self.runs.front().copied()
            && due <= until
        {
            self.runs.pop_front();
            self.oldest += together;
            lost(due, together);
        }
    }
}

/// How many requests are remembered after they were answered, to know a duplicate when it comes.
const REMEMBERED: usize = 4096;

/// Requests whose replies say which they answer, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    /// From the number `first` on; the oldest that still waits is never before `waiting_from`.
    requests: VecDeque<Request>,
    first: u64,
    waiting_from: u64,
    waiting: u64,
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

impl Numbered {
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
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The oldest request that waits: whose reply comes next, where replies keep the order.
    pub(super) fn oldest(&mut self) -> Option<u64> {
        while self.waiting_from < self.next() && self.state(self.waiting_from) != Some(State::Waits) {
            self.waiting_from += 1;
        }
        (self.waiting_from < self.next()).then_some(self.waiting_from)
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
        let mut flight = Numbered::default();
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
            let mut flight = Numbered::default();
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
    fn where_replies_keep_the_order_the_oldest_are_answered() {
        let mut flight = InOrder::default();
        flight.sent(10, 2);
        flight.sent(10, 1);
        flight.sent(20, 4);
        let mut answered = Vec::new();
        flight.answered(4, |due, count| answered.push((due, count)));
        assert_eq!(answered, [(10, 3), (20, 1)]);
        assert_eq!((flight.oldest(), flight.next(), flight.waiting()), (Some(4), 7, 3));
        let mut lost = Vec::new();
        flight.give_up(19, |due, count| lost.push((due, count)));
        flight.give_up(20, |due, count| lost.push((due, count)));
        assert_eq!((lost.as_slice(), flight.oldest(), flight.waiting()), ([(20, 3)].as_slice(), None, 0));
        flight.answered(1, |_, _| panic!("nothing waits"));
    }

    #[test]
    fn memory_stays_bounded_however_much_is_sent() {
        let mut flight = Numbered::default();
        for _ in 0..100_000 {
            let number = flight.sent(7);
            flight.answered(number);
            flight.oldest();
        }
        assert!(flight.requests.len() <= REMEMBERED);
    }
}
