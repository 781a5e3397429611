//! What a link gave that carries messages, and is received one by one.

use std::ops::Range;

use bytes::Bytes;

/// Messages of one size that came together, of which the last may be shorter. One of them was received last, and is kept
/// until the next is asked for.
#[derive(Default)]
pub(super) struct Messages {
    all: Bytes,
    segment: usize,
    /// Where the message stands that was received last.
    last: Range<usize>,
}

impl Messages {
    /// One came, and is received.
    pub(super) fn put_one(&mut self, message: Bytes) {
        let size = message.len();
        self.put(message, size);
    }

    /// Several came, one after another, and the first of them is received.
    pub(super) fn put(&mut self, all: Bytes, segment: usize) {
        self.last = 0..segment.min(all.len());
        (self.all, self.segment) = (all, segment.max(1));
    }

    /// Receives the next of them. `false` where there is none.
    #[inline]
    pub(super) fn next(&mut self) -> bool {
        let Range { end, .. } = self.last;
        let is_left = end < self.all.len();
        if is_left {
            self.last = end..self.all.len().min(end + self.segment);
        }
        is_left
    }

    /// The message that was received last.
    #[inline]
    pub(super) fn message(&self) -> &[u8] {
        &self.all[self.last.clone()]
    }

    /// The message that was received last, to be kept.
    pub(super) fn take(&mut self) -> Bytes {
        if self.last == (0..self.all.len()) {
            self.last = 0..0;
            return std::mem::take(&mut self.all);
        }
        self.all.slice(self.last.clone())
    }

    /// Those that were not received, and their size.
    pub(super) fn take_rest(&mut self) -> Option<(Bytes, usize)> {
        let rest = self.all.split_off(self.last.end);
        (!rest.is_empty()).then_some((rest, self.segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_came_together_are_received_one_by_one() {
        for (all, segment, expected) in [
            ("", 1, vec![""]),
            ("ab", 2, vec!["ab"]),
            ("abcd", 2, vec!["ab", "cd"]),
            ("abcde", 2, vec!["ab", "cd", "e"]),
        ] {
            for kept in [false, true] {
                let mut messages = Messages::default();
                messages.put(Bytes::from(all), segment);
                let mut received = Vec::new();
                loop {
                    assert_eq!(messages.message(), expected[received.len()].as_bytes());
                    received.push(if kept { messages.take() } else { Bytes::copy_from_slice(messages.message()) });
                    if !messages.next() {
                        break;
                    }
                }
                assert_eq!(received, expected, "{all} by {segment}");
                assert!(!messages.next());
                assert_eq!(messages.take_rest(), None);
            }
        }
    }

    #[test]
    fn what_was_not_received_can_be_taken() {
        let mut messages = Messages::default();
        messages.put(Bytes::from("abcde"), 2);
        assert_eq!(messages.take_rest(), Some(("cde".into(), 2)));
        assert_eq!(messages.message(), b"ab");
        assert!(!messages.next());
    }
}
