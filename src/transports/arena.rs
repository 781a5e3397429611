//! [`Arena`]: memory for many small messages.

use bytes::{Bytes, BytesMut};

/// Small enough that a message which is kept for long keeps little else in memory.
const SIZE: usize = 16 * 1024;

/// Memory that messages are copied into, one after another. Once all of them are gone it is used again: in the steady
/// state nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Arena(BytesMut);

impl Arena {
    /// Sees to it that so many bytes have room without another piece of memory. To be called when the messages of the
    /// last batch may be gone.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if self.0.capacity() < bytes {
            self.0.reserve(bytes.max(SIZE));
        }
    }

    /// Keeps a copy of these bytes.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Bytes {
        self.add(bytes);
        self.take()
    }

    /// Keeps a copy of these bytes behind what was added before.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            self.0.reserve(bytes.len().max(SIZE));
        }
        self.0.extend_from_slice(bytes);
    }

    /// What was added since this was last called, in one piece.
    pub(crate) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_kept_stays_as_it_is() {
        let mut arena = Arena::default();
        let kept: Vec<Bytes> = (0..10_000_u32).map(|number| arena.keep(number.to_string().as_bytes())).collect();
        for (number, bytes) in kept.iter().enumerate() {
            assert_eq!(bytes, number.to_string().as_bytes());
        }
    }

    #[test]
    fn memory_is_used_again_once_what_was_in_it_is_gone() {
        let mut arena = Arena::default();
        let places: HashSet<usize> =
            (0..10_000).map(|_| arena.keep(b"0123456789abcdef").as_ptr().addr() / SIZE).collect();
        // 160 kB went through one piece, which may lie across two of these blocks.
        assert!(places.len() <= 2, "{places:?}");
    }

    #[test]
    fn more_than_the_usual_size_has_room_too() {
        let mut arena = Arena::default();
        let large = vec![7; 100_000];
        assert_eq!(arena.keep(&large), large);
        assert_eq!(arena.keep(b""), "");
    }
}
