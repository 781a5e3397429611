//! What a link gave that carries messages, and is received one by one.

use std::iter;
use std::ops::Range;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::WireLink;
use crate::error::Result;
use crate::link::Peer;
use crate::transport::Datagrams;

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

    /// Receives what the link gives next; `false` where it gives no more. Apart from what streams of bytes need, which most
    /// sessions have.
    #[inline(never)]
    pub(super) fn poll_fill(
        &mut self,
        link: &mut WireLink,
        peer: &mut Peer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool>> {
        match link {
            WireLink::Bytes(..) => Poll::Ready(Ok(false)),
            WireLink::Messages(link) => link.poll_recv(cx).map_ok(|message| {
                let came = message.is_some();
                self.put_one(message.unwrap_or_default());
                came
            }),
            WireLink::Shared(socket) => socket.poll_recv(cx).map(|datagrams| {
                let came = datagrams.is_some();
                if let Some(Datagrams { payload, segment, remote, local, .. }) = datagrams {
                    peer.set_ends(local, remote);
                    self.put(payload, segment);
                }
                Ok(came)
            }),
        }
    }

    /// Receives the next of them. `false` where there is none.
    #[inline]
    pub(super) fn next(&mut self) -> bool {
        is_next(&self.all, self.segment, &mut self.last)
    }

    /// The message that was received last, and those behind it, each of which is received when it is given.
    #[inline]
    pub(super) fn together(&mut self) -> impl Iterator<Item = &[u8]> {
        let Messages { all, segment, last } = self;
        let (all, segment) = (&all[..], *segment);
        let first = &all[last.clone()];
        let behind = iter::from_fn(move || is_next(all, segment, last).then(|| &all[last.clone()]));
        iter::once(first).chain(behind)
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

/// Moves on to the message behind the `last`, where there is one.
#[inline]
fn is_next(all: &[u8], segment: usize, last: &mut Range<usize>) -> bool {
    let is_left = last.end < all.len();
    if is_left {
        *last = last.end..all.len().min(last.end + segment);
    }
    is_left
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
                if kept {
                    received.push(messages.take());
                    while messages.next() {
                        received.push(messages.take());
                    }
                } else {
                    received.extend(messages.together().map(Bytes::copy_from_slice));
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
        assert_eq!(messages.take(), "ab");
        assert!(!messages.next());
    }
}
