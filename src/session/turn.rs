//! What a handler does while it is run, kept by its thread.
//!
//! A handler is run in turns: the engine lets it go on, it answers what has come, and waits. Within a turn nobody else can
//! reach its session, unless a [`Pusher`](super::Pusher) was asked for. (A handler that lets threads of its own send within
//! a turn has to order them itself.) So its messages are laid into a buffer that belongs to the thread, without a lock, and
//! handed over to the session's wire all at once, at the latest at the end of the turn; and that it waits for the next message
//! is noted here, where the link is known to have none. Whoever runs it may take what was sent out of the turn whole
//! ([`Taking::finish`]), and write it when others have run. Nothing else outlives the turn, whatever happens in it: the next
//! one is another session's.

use std::cell::RefCell;
use std::mem;
use std::task::{Context, Poll, Waker};

use super::WATERMARK;
use super::buffers::KEPT_CAPACITY;
use super::common::WireRef;
use super::inbound::Received;
use super::output;
use super::wire::Wire;
use crate::error::Result;
use crate::framing::{self, Framing};

thread_local! {
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::NOBODYS) };
}

/// The turn that is taken on this thread.
struct Turn {
    /// Whose it is, by [`WireRef::id`]; nobody's where it is 0.
    whose: usize,
    /// Who runs it.
    driver: Name,
    way: Way,
    /// The link has nothing more, and wakes the driver when it has.
    drained: bool,
    /// The handler waits for a message.
    waits: bool,
    /// It does so with the waker of the driver, which is therefore whom the link wakes, and not a part of the handler that is woken
    /// by itself.
    waits_itself: bool,
    /// What was received, and not told to the wire.
    received: Received,
    gathered: Vec<u8>,
    messages: u32,
    bytes: u64,
    /// Empty; kept for what is gathered next.
    spare: Vec<Vec<u8>>,
}

/// Which way that goes which is sent in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the wire, which is asked for each message.
    Wire,
    /// It is gathered, and so was all that was sent so far.
    Gathered,
    /// It is gathered, but some of it went to the wire before.
    GatheredAgain,
}

/// How many buffers are kept: as many as have something in them at a time.
const SPARE: usize = 16;

impl Turn {
    const NOBODYS: Turn = Turn {
        whose: 0,
        driver: (0, 0),
        way: Way::Wire,
        drained: false,
        waits: false,
        waits_itself: false,
        received: Received::NOTHING,
        gathered: Vec::new(),
        messages: 0,
        bytes: 0,
        spare: Vec::new(),
    };

    #[inline]
    fn end(&mut self) {
        (self.whose, self.way, self.drained) = (0, Way::Wire, false);
        (self.waits, self.waits_itself) = (false, false);
        (self.messages, self.bytes, self.received) = (0, 0, Received::NOTHING);
    }
}

/// What was sent in a turn, to be written behind it; see [`Taking::finish`].
pub(crate) struct Sent {
    encoded: Vec<u8>,
    messages: u32,
    bytes: u64,
    received: Received,
}

impl Sent {
    /// How many messages came, and how many were sent.
    pub(crate) fn messages(&self) -> (u32, u32) {
        (self.received.messages, self.messages)
    }

    #[inline]
    fn count(&self, wire: &mut Wire) {
        wire.count_received(self.received);
        wire.count_gathered(self.messages, self.bytes);
    }

    /// Hands it over to the session, which has yet to write it.
    pub(crate) fn give_back(mut self, wire: &WireRef) {
        let mut wire = wire.lock();
        self.count(&mut wire);
        wire.take_gathered(&mut self.encoded);
        wire.note_receiving();
    }

    /// Writes it; whether that was all. If not, what is left is the session's.
    #[inline]
    pub(crate) fn write(mut self, wire: &WireRef, cx: &mut Context<'_>) -> bool {
        let written = {
            let mut wire = wire.lock();
            self.count(&mut wire);
            wire.poll_write(cx, &mut self.encoded)
        };
        TURN.with_borrow_mut(|turn| {
            if turn.spare.len() < SPARE && self.encoded.capacity() <= KEPT_CAPACITY {
                turn.spare.push(mem::take(&mut self.encoded));
            }
        });
        matches!(written, Poll::Ready(Ok(())))
    }
}

/// What tells a waker from others as long as it exists; as [`Waker::will_wake`].
type Name = (usize, usize);

#[inline]
fn name(waker: &Waker) -> Name {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

/// A turn begins; it ends when this is dropped. What was gathered by then must have been handed over.
pub(crate) struct Taking {
    /// The turn within which this one is taken: a handler may itself run others. Few do.
    outer: Option<Box<Turn>>,
}

/// Begins the turn of that session, which that waker wakes. The wire must [let it](Wire::lets_gather).
#[inline]
pub(crate) fn take(wire: &WireRef, driver: &Waker) -> Taking {
    TURN.with_borrow_mut(|turn| {
        let outer = (turn.whose != 0).then(|| Box::new(mem::replace(turn, Turn::NOBODYS)));
        (turn.whose, turn.driver, turn.way) = (wire.id(), name(driver), Way::Gathered);
        Taking { outer }
    })
}

/// Whether the handler whose turn it is waits for a message.
#[cfg(test)]
pub(super) fn waits() -> bool {
    TURN.with_borrow(|turn| turn.whose != 0 && turn.waits)
}

impl Taking {
    /// Ends the turn, if the handler waits for the next message and its wire need not be asked: gives what it has sent. Until that
    /// is [written](Sent::write), nothing else of the session may be run. Whoever runs it may then ask the link in its place.
    #[inline]
    pub(crate) fn finish(self) -> Result<Sent, Self> {
        let sent = TURN.with_borrow_mut(|turn| {
            if turn.way != Way::Gathered || !turn.waits_itself || turn.messages == 0 {
                return None;
            }
            let encoded = mem::replace(&mut turn.gathered, turn.spare.pop().unwrap_or_default());
            let sent = Sent { encoded, messages: turn.messages, bytes: turn.bytes, received: turn.received };
            turn.end();
            Some(sent)
        });
        match sent {
            // There is nothing left to be ended.
            Some(sent) if self.outer.is_none() => {
                mem::forget(self);
                Ok(sent)
            }
            Some(sent) => Ok(sent),
            None => Err(self),
        }
    }
}

impl Drop for Taking {
    #[inline]
    fn drop(&mut self) {
        TURN.with_borrow_mut(|turn| {
            if let Some(outer) = self.outer.take() {
                *turn = *outer;
            } else {
                // Whatever happened: nothing that one session sent may be there when the next one sends.
                turn.gathered.clear();
                turn.end();
            }
        });
    }
}

/// What was sent so far, taken out of the turn of that session by whoever sends, where there is room. It is back when this is
/// dropped.
#[inline]
pub(super) fn gather(whose: usize) -> Option<Gathered> {
    TURN.with_borrow_mut(|turn| {
        if turn.whose != whose || turn.way == Way::Wire || turn.gathered.len() >= WATERMARK {
            return None;
        }
        let bytes = mem::take(&mut turn.gathered);
        Some(Gathered { whose, whole: bytes.len(), bytes, count: 0, size: 0 })
    })
}

/// See [`gather`]. While it is out the thread's turn can be asked: a framing is others' code, and may itself send elsewhere.
pub(super) struct Gathered {
    whose: usize,
    bytes: Vec<u8>,
    /// How many of the bytes are whole messages. What a framing leaves behind when it fails or panics is none.
    whole: usize,
    /// The messages that were added, and their size.
    count: u32,
    size: u64,
}

impl Gathered {
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.whole < WATERMARK
    }

    #[inline]
    pub(super) fn send(&mut self, framing: &dyn Framing, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if let Err(error) = output::append(framing, parts, size, &mut self.bytes) {
            self.bytes.truncate(self.whole);
            return Err(error);
        }
        self.whole = self.bytes.len();
        self.count += 1;
        self.size += size as u64;
        Ok(())
    }
}

impl Drop for Gathered {
    #[inline]
    fn drop(&mut self) {
        self.bytes.truncate(self.whole);
        TURN.with_borrow_mut(|turn| {
            if turn.whose == self.whose {
                turn.gathered = mem::take(&mut self.bytes);
                turn.messages += self.count;
                turn.bytes += self.size;
            }
        });
    }
}

/// Hands over to the wire what was gathered, and what was received: from then on it is the wire's to send, and nothing more is
/// gathered in this turn, unless it is [taken up](take_up) again.
#[inline]
pub(super) fn hand_over(whose: usize, wire: &mut Wire) {
    TURN.with_borrow_mut(|turn| {
        if turn.whose != whose {
            return;
        }
        turn.way = Way::Wire;
        wire.count_received(mem::take(&mut turn.received));
        if turn.waits {
            wire.note_receiving();
        }
        if turn.messages > 0 {
            wire.count_gathered(mem::take(&mut turn.messages), mem::take(&mut turn.bytes));
            wire.take_gathered(&mut turn.gathered);
        }
    });
}

/// Whether something was done in a turn of that session that its wire has yet to be told.
#[inline]
pub(super) fn has_news(whose: usize) -> bool {
    TURN.with_borrow(|turn| turn.whose == whose && (turn.messages > 0 || turn.received.messages > 0))
}

/// Goes on gathering in a turn of that session that was handed over, where the wire lets it.
pub(super) fn take_up(whose: usize, wire: &Wire) {
    TURN.with_borrow_mut(|turn| {
        if turn.whose == whose && turn.way == Way::Wire && wire.lets_gather() {
            turn.way = Way::GatheredAgain;
        }
    });
}

/// Whether more may be gathered in a turn of that session, which then needs no room on its wire.
#[inline]
pub(super) fn has_room(whose: usize) -> bool {
    TURN.with_borrow(|turn| turn.whose == whose && turn.way != Way::Wire && turn.gathered.len() < WATERMARK)
}

/// Notes that the handler has what it waited for, and whether the link is `drained`: it has nothing more, and wakes the driver
/// when it has, if that is who asks.
#[inline]
pub(super) fn note_answer(whose: usize, waker: &Waker, drained: bool) {
    TURN.with_borrow_mut(|turn| {
        if turn.whose == whose {
            (turn.waits, turn.waits_itself) = (false, false);
            turn.drained = drained && turn.driver == name(waker);
        }
    });
}

/// Takes what was received in a turn of that session; not, where it is none or was handed over.
#[inline]
pub(super) fn receive(whose: usize, received: &mut Received) -> bool {
    TURN.with_borrow_mut(|turn| {
        let takes = turn.whose == whose && turn.way == Way::Gathered;
        if takes {
            turn.received.add(mem::take(received));
        }
        takes
    })
}

/// Whether the handler, which asks for the next message, may as well wait, without a look at the link.
#[inline]
pub(super) fn may_wait(whose: usize, waker: &Waker, received: &mut Received) -> bool {
    TURN.with_borrow_mut(|turn| {
        // Should it ask once more within this turn, it is not known what has come meanwhile; nor whom the link wakes, should
        // somebody else ask.
        if turn.whose != whose || !mem::take(&mut turn.drained) || turn.driver != name(waker) {
            return false;
        }
        (turn.waits, turn.waits_itself) = (true, true);
        turn.received.add(mem::take(received));
        true
    })
}

/// Notes, where it is the turn of that session, that the handler waits: then what it sent is written when the turn is over.
#[inline]
pub(super) fn wait(whose: usize, waker: &Waker) -> bool {
    TURN.with_borrow_mut(|turn| {
        let is_its = turn.whose == whose && turn.way != Way::Wire;
        if is_its {
            (turn.waits, turn.waits_itself) = (true, turn.driver == name(waker));
        }
        is_its
    })
}

/// How much memory the thread keeps for what is gathered next, in bytes.
#[cfg(test)]
pub(super) fn kept_memory() -> usize {
    TURN.with_borrow(|turn| turn.gathered.capacity() + turn.spare.iter().map(Vec::capacity).sum::<usize>())
}
