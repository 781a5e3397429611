//! [`Outgoing`]: messages that a client's datagram socket was given and has not sent.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use crate::framing;

/// Messages that wait to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: BytesMut,
    sizes: VecDeque<usize>,
}

impl Outgoing {
    /// Takes a message, given in parts.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.sizes.push_back(framing::length(parts));
    }

    /// How much there is to send: the bytes, and one for each message, since an empty one is to be sent too.
    pub(crate) fn buffered(&self) -> usize {
        self.bytes.len() + self.sizes.len()
    }

    /// The first messages that have the same size, and that size: at most so many, and so many bytes. The last of them
    /// may be shorter, though not empty. `None` when there is none.
    pub(crate) fn first(&self, most: usize, most_bytes: usize) -> Option<(&[u8], usize)> {
        let mut sizes = self.sizes.iter().copied();
        let size = sizes.next()?;
        let mut total = size;
        for next in sizes.take(most.saturating_sub(1)) {
            if next == 0 || next > size || total + next > most_bytes {
                break;
            }
            total += next;
            if next < size {
                break;
            }
        }
        Some((&self.bytes[..total], size))
    }

    /// Forgets the first messages, of so many bytes together; an empty one if none.
    pub(crate) fn forget(&mut self, bytes: usize) {
        let mut left = bytes;
        while let Some(size) = self.sizes.pop_front() {
            left = left.saturating_sub(size);
            if left == 0 {
                break;
            }
        }
        if self.sizes.is_empty() {
            // Not `advance`, which would give up the front of the buffer.
            self.bytes.clear();
        } else {
            self.bytes.advance(bytes);
        }
    }

    /// Forgets the first message.
    pub(crate) fn forget_first(&mut self) {
        if let Some(size) = self.sizes.front() {
            self.forget(*size);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_one_size_are_given_together_and_a_shorter_one_ends_them() {
        let mut outgoing = Outgoing::default();
        for message in ["abc", "def", "g", "hij", "longer", "", "x"] {
            outgoing.push(&[message.as_bytes()]);
        }
        for expected in ["abcdefg", "hij", "longer", "", "x"] {
            let (given, _) = outgoing.first(64, 65_507).unwrap();
            assert_eq!(given, expected.as_bytes());
            outgoing.forget(given.len());
        }
        assert!(outgoing.first(64, 65_507).is_none());
        assert_eq!(outgoing.buffered(), 0);
    }

    #[test]
    fn no_more_are_given_together_than_asked_for() {
        let mut outgoing = Outgoing::default();
        for _ in 0..10 {
            outgoing.push(&[b"12", b"345"]);
        }
        assert_eq!(outgoing.first(3, 1000), Some((&b"123451234512345"[..], 5)));
        assert_eq!(outgoing.first(64, 14), Some((&b"1234512345"[..], 5)));
        assert_eq!(outgoing.first(1, 1), Some((&b"12345"[..], 5)));
        outgoing.forget_first();
        assert_eq!(outgoing.buffered(), 9 * 5 + 9);
    }

    proptest! {
        #[test]
        fn every_message_leaves_once_and_in_order(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..50),
            most in 1_usize..5,
        ) {
            let mut outgoing = Outgoing::default();
            for message in &messages {
                outgoing.push(&[message]);
            }
            let mut sent: Vec<Vec<u8>> = Vec::new();
            while let Some((bytes, size)) = outgoing.first(most, 100) {
                match size {
                    0 => sent.push(Vec::new()),
                    size => sent.extend(bytes.chunks(size).map(<[u8]>::to_vec)),
                }
                let gone = bytes.len();
                outgoing.forget(gone);
            }
            prop_assert_eq!(sent, messages);
            prop_assert_eq!(outgoing.buffered(), 0);
        }
    }
}
