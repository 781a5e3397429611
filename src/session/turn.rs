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
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::of(0)) };
}

/// The turn that is taken on this thread.
struct Turn {
    /// Whose it is, by [`WireRef::id`]; nobody's where it is 0.
    whose: usize,
    /// Whether what was sent may be written when the turn is over.
    later: bool,
    gathered: Vec<u8>,
    messages: u32,
    bytes: u64,
}

impl Turn {
    const fn of(whose: usize) -> Self {
        Turn { whose, later: false, gathered: Vec::new(), messages: 0, bytes: 0 }
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
        let outer = (turn.whose != 0 || turn.later).then(|| std::mem::replace(turn, Turn::of(0)));
        turn.whose = wire.id();
        turn.later = gathering == Gathering::ForLater;
        Some(Taking { outer })
    })
}

/// Whether the handler whose turn it is waits for a message, and what it sent is in the wire's hands and yet to be written.
#[inline]
pub(crate) fn is_for_later() -> bool {
    TURN.with_borrow(|turn| turn.later && turn.whose == 0)
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

/// Takes a message, where it is the turn of that session and there is room.
#[inline]
pub(super) fn send(wire: &WireRef, framing: &dyn Framing, parts: &[&[u8]]) -> Option<Result<()>> {
    TURN.with(|turn| {
        // A framing is others' code: one that itself sends finds the turn taken, and goes by the wire.
        let turn = &mut *turn.try_borrow_mut().ok()?;
        if turn.whose != wire.id() || turn.gathered.len() >= WATERMARK {
            return None;
        }
        let size = framing::length(parts);
        let mut adding = Adding { whole: turn.gathered.len(), gathered: &mut turn.gathered };
        if let Err(error) = output::append(framing, parts, size, adding.gathered) {
            return Some(Err(error));
        }
        adding.whole = adding.gathered.len();
        turn.messages += 1;
        turn.bytes += size as u64;
        Some(Ok(()))
    })
}

/// A message that is added. What a framing leaves behind when it fails or panics is no message.
struct Adding<'a> {
    gathered: &'a mut Vec<u8>,
    /// How many bytes of it are whole messages.
    whole: usize,
}

impl Drop for Adding<'_> {
    #[inline]
    fn drop(&mut self) {
        self.gathered.truncate(self.whole);
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
    if wire.carries_messages() {
        return HandedOver::NotIts;
    }
    TURN.with(|turn| {
        let Ok(mut turn) = turn.try_borrow_mut() else { return HandedOver::NotIts };
        if turn.whose != whose {
            return HandedOver::NotIts;
        }
        turn.whose = 0;
        if turn.messages > 0 {
            let (messages, bytes) = (turn.messages, turn.bytes);
            wire.take_gathered(&mut turn.gathered, messages, bytes);
            (turn.messages, turn.bytes) = (0, 0);
        }
        if turn.later { HandedOver::ForLater } else { HandedOver::ToWrite }
    })
}

/// Goes on with a turn that was handed over.
pub(super) fn take_up(whose: usize) {
    TURN.with_borrow_mut(|turn| turn.whose = whose);
}
