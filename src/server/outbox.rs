//! Answers that wait to leave a datagram socket, grouped so that many leave in one system call.
//!
//! Answers of one size to one peer are laid one after another, and the kernel cuts them apart again (UDP generic
//! segmentation offload, udp(7)). Answers to one peer keep their order; between peers the order does not matter.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker, ready};

use crate::address::Address;
use crate::framing;
use crate::session::WATERMARK;
use crate::transport::{DatagramSocket, Transmit};

/// A datagram above this is sent alone: a segment must fit the device's MTU, and 1,280 bytes fit any (RFC 8200, 5).
const LARGEST_SEGMENT: usize = 1_232;
/// The most bytes in one group: a UDP datagram's own limit holds for the whole.
const LARGEST_GROUP: usize = 65_507;
/// How many places there are to remember the newest groups in: more than one receive batch has peers.
const NEWEST_GROUPS: usize = 256;
/// What a group costs beside its bytes, so that many small ones fill the outbox too.
const GROUP_COST: usize = 64;
/// How many buffers are kept for the next groups, as many as answers to one peer each are sent at once, and how large.
const SPARE_BUFFERS: usize = 128;
const LARGEST_SPARE: usize = 16 * 1024;

/// Answers that wait to be sent.
pub(super) struct Outbox {
    groups: VecDeque<Group>,
    /// How many groups have left: the number of the first one that waits.
    gone: u64,
    /// The numbers of the newest groups, each in the place of its peer. Peers may share a place: then one of them begins a
    /// new group where it could have joined one, which costs a system call and changes no order.
    newest: Box<[u64; NEWEST_GROUPS]>,
    max_segments: usize,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Sessions that wait for room.
    waiting: Vec<Waker>,
}

/// Datagrams of one size to one peer; the last may be shorter and ends the group.
struct Group {
    remote: Address,
    local: Address,
    segment: usize,
    count: usize,
    open: bool,
    payload: Vec<u8>,
    sent: usize,
}

/// A datagram that could not be sent.
pub(super) struct Unsent {
    pub(super) remote: Address,
    pub(super) error: io::Error,
}

impl Outbox {
    pub(super) fn new(max_segments: usize) -> Self {
        Outbox {
            groups: VecDeque::new(),
            gone: 0,
            newest: Box::new([0; NEWEST_GROUPS]),
            max_segments,
            bytes: 0,
            spare: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes one datagram, given in parts.
    pub(super) fn push(&mut self, parts: &[&[u8]], remote: &Address, local: &Address) {
        let size = framing::length(parts);
        self.bytes += size;
        let place = place(remote);
        if self.max_segments > 1 && (1..=LARGEST_SEGMENT).contains(&size) {
            // Only the newest group of a peer may grow, or its answers would change their order.
            let newest = self.newest[place].checked_sub(self.gone).and_then(|ahead| usize::try_from(ahead).ok());
            if let Some(group) = newest.and_then(|index| self.groups.get_mut(index))
                && group.takes(size, self.max_segments)
                && group.remote == *remote
                && group.local == *local
            {
                group.append(parts, size);
                return;
            }
        }
        self.newest[place] = self.gone + self.groups.len() as u64;
        let mut group = Group {
            remote: remote.clone(),
            local: local.clone(),
            segment: size.max(1),
            count: 0,
            open: (1..=LARGEST_SEGMENT).contains(&size),
            payload: self.spare.pop().unwrap_or_default(),
            sent: 0,
        };
        group.append(parts, size);
        self.groups.push_back(group);
    }

    /// How full it is, in bytes.
    pub(super) fn buffered(&self) -> usize {
        self.bytes + self.groups.len() * GROUP_COST
    }

    /// Sends all of it. A datagram that cannot be sent is handed to `unsent` and gone.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut dyn DatagramSocket,
        mut unsent: impl FnMut(Unsent),
    ) -> Poll<()> {
        while let Some(group) = self.groups.front_mut() {
            let left = &group.payload[group.sent..];
            let transmit =
                Transmit { remote: &group.remote, local: &group.local, payload: left, segment: group.segment };
            let gone = match ready!(socket.poll_send(cx, &transmit)) {
                Ok(sent) => sent,
                Err(error) => {
                    unsent(Unsent { remote: group.remote.clone(), error });
                    left.len().min(group.segment)
                }
            };
            self.bytes -= gone;
            group.sent += gone;
            // While it is being sent nothing may be added in front of what follows.
            group.open = false;
            if group.sent >= group.payload.len() {
                self.recycle();
            }
        }
        self.wake_all();
        Poll::Ready(())
    }

    fn recycle(&mut self) {
        if let Some(mut done) = self.groups.pop_front() {
            self.gone += 1;
            done.payload.clear();
            if self.spare.len() < SPARE_BUFFERS && done.payload.capacity() <= LARGEST_SPARE {
                self.spare.push(done.payload);
            }
        }
    }

    /// Whether there is room; where there is none, the waker is told when there is.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.buffered() < WATERMARK {
            return Poll::Ready(());
        }
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake_all(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Group {
    fn takes(&self, size: usize, max_segments: usize) -> bool {
        self.open && size <= self.segment && self.count < max_segments && self.payload.len() + size <= LARGEST_GROUP
    }

    fn append(&mut self, parts: &[&[u8]], size: usize) {
        self.payload.reserve(size);
        for part in parts {
            self.payload.extend_from_slice(part);
        }
        self.count += 1;
        self.open &= size == self.segment;
    }
}

/// Where a peer's newest group is remembered.
fn place(peer: &Address) -> usize {
    let number = match peer {
        Address::Ip(SocketAddr::V4(address)) => u64::from(address.port()) ^ u64::from(address.ip().to_bits()),
        Address::Ip(SocketAddr::V6(address)) => u64::from(address.port()) ^ address.ip().to_bits() as u64,
        _ => {
            let mut hasher = DefaultHasher::new();
            peer.hash(&mut hasher);
            hasher.finish()
        }
    };
    number as usize % NEWEST_GROUPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Datagrams;
    use proptest::prelude::*;

    /// Takes what is sent apart again, as the kernel does.
    struct Wire {
        sent: Vec<(Address, Vec<u8>)>,
        calls: usize,
        at_once: usize,
    }

    impl DatagramSocket for Wire {
        fn local(&self) -> Address {
            Address::Unnamed
        }

        fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut VecDeque<Datagrams>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_send(&mut self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
            self.calls += 1;
            let gone = transmit.payload.len().min(transmit.segment.saturating_mul(self.at_once));
            if transmit.payload.is_empty() {
                self.sent.push((transmit.remote.clone(), Vec::new()));
            }
            for segment in transmit.payload[..gone].chunks(transmit.segment) {
                self.sent.push((transmit.remote.clone(), segment.to_vec()));
            }
            Poll::Ready(Ok(gone))
        }
    }

    fn flush(outbox: &mut Outbox, wire: &mut Wire) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll_flush(&mut cx, wire, |_| panic!("nothing fails here")).is_ready());
        assert_eq!(outbox.buffered(), 0);
    }

    #[test]
    fn answers_of_one_size_to_one_peer_leave_in_one_call() {
        let (a, b) = (Address::named("a"), Address::named("b"));
        let mut outbox = Outbox::new(64);
        for _ in 0..10 {
            outbox.push(&[b"Hello,", b"x"], &a, &Address::Unnamed);
            outbox.push(&[b"Hello,", b"x"], &b, &Address::Unnamed);
        }
        let mut wire = Wire { sent: Vec::new(), calls: 0, at_once: usize::MAX };
        flush(&mut outbox, &mut wire);
        assert_eq!((wire.calls, wire.sent.len()), (2, 20));
    }

    proptest! {
        #[test]
        fn each_peer_gets_its_answers_whole_and_in_order(
            answers in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..200),
            max_segments in 1usize..8,
            at_once in 1usize..4,
        ) {
            let mut outbox = Outbox::new(max_segments);
            let peer = |number: u8| Address::named(number.to_string());
            for (number, answer) in &answers {
                outbox.push(&[answer], &peer(*number), &Address::Unnamed);
            }
            let mut wire = Wire { sent: Vec::new(), calls: 0, at_once };
            flush(&mut outbox, &mut wire);
            for number in 0..4 {
                let wanted: Vec<_> = answers.iter().filter(|(n, _)| *n == number).map(|(_, a)| a.clone()).collect();
                let got: Vec<_> = wire.sent.iter().filter(|(to, _)| *to == peer(number)).map(|(_, a)| a.clone()).collect();
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
