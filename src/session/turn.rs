//! What a handler sends while it is run, gathered in a buffer of its thread.
//!
//! A handler is run in turns: the engine lets it go on, it answers what has come, and waits. Within a turn nobody else can
//! reach its session, unless a [`Pusher`](super::Pusher) was asked for. (A handler that lets threads of its own send within
//! a turn has to order them itself.) So its messages are laid into a buffer that belongs to the thread, without a lock, and
//! handed over to the session's wire all at once: when the handler waits, at the latest at the end of the turn. Nothing of
//! it outlives the turn, whatever happens in it: the next one is another session's.

use std::cell::RefCell;

use super::WATERMARK;
use super::output;
use super::wire::{Wire, WireRef};
use crate::error::Result;
use crate::framing::{self, Framing};

thread_local! {
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::of(0, false)) };
}

/// The turn that is taken on this thread.
struct Turn {
    /// Whose it is, by [`WireRef::id`]; nobody's where it is 0.
    whose: usize,
    /// Whether what is sent is gathered, rather than the wire asked.
    gathers: bool,
    /// Whether what was sent may be written when the turn is over.
    later: bool,
    gathered: Vec<u8>,
    messages: u32,
    bytes: u64,
}

impl Turn {
    const fn of(whose: usize, later: bool) -> Self {
        Turn { whose, gathers: true, later, gathered: Vec::new(), messages: 0, bytes: 0 }
    }
}

/// A turn begins; it ends when this is dropped. What was gathered by then must have been handed over.
pub(crate) struct Taking {
    /// The turn within which this one is taken: a handler may itself run others.
    outer: Option<Turn>,
}

/// Whether what is sent in a turn is gathered, as far as the wire [lets it](Wire::lets_gather).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathering {
    No,
    /// It is, and written when the handler waits.
    ToWrite,
    /// It is, and written when the turn is over, by whoever [asks](is_for_later).
    ForLater,
}

/// Begins the turn of that session, if it is one in which something is gathered.
#[inline]
pub(crate) fn take(wire: &WireRef, gathering: Gathering) -> Option<Taking> {
    if gathering == Gathering::No {
        return None;
    }
    TURN.with_borrow_mut(|turn| {
        let outer = (turn.whose != 0).then(|| std::mem::replace(turn, Turn::of(0, false)));
        (turn.whose, turn.gathers, turn.later) = (wire.id(), true, gathering == Gathering::ForLater);
        Some(Taking { outer })
    })
}

/// Whether the handler whose turn it is waits for a message, and what it sent is in the wire's hands and yet to be written.
#[inline]
pub(crate) fn is_for_later() -> bool {
    TURN.with_borrow(|turn| turn.later && !turn.gathers)
}

impl Drop for Taking {
    #[inline]
    fn drop(&mut self) {
        TURN.with_borrow_mut(|turn| {
            if let Some(outer) = self.outer.take() {
                *turn = outer;
            } else {
                (turn.whose, turn.later) = (0, false);
                // Whatever happened: nothing that one session sent may be there when the next one sends.
                turn.gathered.clear();
                (turn.messages, turn.bytes) = (0, 0);
            }
        });
    }
}

/// What was sent so far, taken out of the turn of that session by whoever sends, where there is room. It is back when this is
/// dropped.
#[inline]
pub(super) fn gather(whose: usize) -> Option<Gathered> {
    TURN.with_borrow_mut(|turn| {
        if turn.whose != whose || !turn.gathers || turn.gathered.len() >= WATERMARK {
            return None;
        }
        let bytes = std::mem::take(&mut turn.gathered);
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
                turn.gathered = std::mem::take(&mut self.bytes);
                turn.messages += self.count;
                turn.bytes += self.size;
            }
        });
    }
}

/// What became of a turn whose messages were to be handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HandedOver {
    /// It was not this session's.
    NotIts,
    /// They are to be written now.
    ToWrite,
    /// They are written when the turn is over.
    ForLater,
}

/// Hands what was gathered over to the wire, in whose hands it is from then on to send: nothing more is gathered in this
/// turn, unless it is [taken up](take_up) again.
#[inline]
pub(super) fn hand_over(whose: usize, wire: &mut Wire) -> HandedOver {
    TURN.with_borrow_mut(|turn| {
        if turn.whose != whose {
            return HandedOver::NotIts;
        }
        turn.gathers = false;
        if turn.messages > 0 {
            wire.take_gathered(&mut turn.gathered, turn.messages, turn.bytes);
            (turn.messages, turn.bytes) = (0, 0);
        }
        if turn.later { HandedOver::ForLater } else { HandedOver::ToWrite }
    })
}

/// Goes on gathering in a turn of that session that was handed over, where the wire lets it.
pub(super) fn take_up(whose: usize, wire: &Wire) {
    TURN.with_borrow_mut(|turn| {
        if turn.whose == whose {
            turn.gathers = wire.lets_gather();
        }
    });
}
