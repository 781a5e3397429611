//! What a selector knows of its sockets.

use std::collections::HashMap;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;

use rustix::event::epoll::{Event, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::ReadBuf;

use super::ahead::{Ahead, Given};

/// A round that woke so many is followed by another without the reactor: the busier, the surer that something has come.
pub(super) const LARGE_ROUND: usize = 4;

/// A socket's place in a selector, to be [given up](super::selector::Selector::forget) before the socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u32);

impl Key {
    /// What the events of that place are to carry.
    pub(super) fn event_data(self, generation: u32) -> EventData {
        EventData::new_u64(u64::from(generation) << 32 | u64::from(self.0))
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a selector is asked for by who wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// Whether something can be read.
    First,
    /// The same, once more: what it said last was not so.
    InVain,
    /// It will read in any case.
    ReadsAnyway,
}

/// What a selector says to who wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// The socket can be read: bytes, the end, or an error.
    Readable {
        /// Whether the end is known.
        at_end: bool,
    },
    /// It was read when something came: what that brought is given now.
    Given {
        /// Whether there may be more at once.
        more: bool,
        /// Whether there may be something behind it of which nobody tells again.
        behind: bool,
    },
    /// It was read when something came, which failed.
    Failed(Errno),
}

/// Bytes have come since this was last taken.
const READABLE: u8 = 1;
/// The peer will send no more, or the connection failed: that does not pass. Or among what came is urgent data, at which a read
/// stops, so that it has to be read on as it has before an end.
const AT_END: u8 = 1 << 1;
/// There was room since this was last taken.
const WRITABLE: u8 = 1 << 2;
/// There is a waker in [`Slots::writers`].
const AWAITS_ROOM: u8 = 1 << 3;
/// Its reader was told to wait, or has all that came: it reads nothing before it has asked again. Nothing has come since.
const AWAITS_BYTES: u8 = 1 << 4;

/// What is known of one socket.
struct Slot {
    reader: Option<Waker>,
    /// Of one that is read ahead.
    socket: Option<Arc<OwnedFd>>,
    generation: u32,
    state: u8,
    /// The round that woke its reader last.
    round: u8,
    /// Where in [`Slots::ahead`] that is which was read for it.
    ahead: Option<u8>,
}

impl Slot {
    fn is(&self, any: u8) -> bool {
        self.state & any != 0
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    vacant: Vec<Key>,
    /// Who waits for room: few do, so idle sockets have no place for them.
    writers: HashMap<Key, Waker>,
    generation: u32,
    round: u8,
    /// How many were woken in this round, and how many of them have not waited again.
    round_size: usize,
    at_work: usize,
    /// Empty; kept for its memory.
    woken: Vec<Waker>,
    ahead: Ahead,
}

impl Slots {
    /// A place, and its generation; of a socket that is read ahead, if there is one.
    pub(super) fn open(&mut self, socket: Option<Arc<OwnedFd>>) -> (Key, u32) {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let round = self.round.wrapping_sub(1);
        let slot = Slot { reader: None, socket, generation, state: 0, round, ahead: None };
        if let Some(key) = self.vacant.pop() {
            self.all[key.index()] = slot;
            return (key, generation);
        }
        self.all.push(slot);
        // As many as there are descriptors at most.
        (Key((self.all.len() - 1) as u32), generation)
    }

    /// Sets who is woken by what comes; gives the former, to be dropped elsewhere.
    #[inline]
    pub(super) fn set_reader(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        let reader = &mut self.all[key.index()].reader;
        if reader.as_ref().is_some_and(|reader| reader.will_wake(waker)) { None } else { reader.replace(waker.clone()) }
    }

    /// Answers a reader; it has to wait where nothing is said.
    #[inline]
    pub(super) fn ask(&mut self, key: Key, asks: Asks, buffer: &mut ReadBuf<'_>) -> Option<Says> {
        let slot = &mut self.all[key.index()];
        if let Some(at) = slot.ahead {
            let given = self.ahead.give(at, buffer);
            slot.ahead = slot.ahead.filter(|_| given == Ok(Given::Part));
            let something_came = slot.is(READABLE | AT_END);
            return Some(match given {
                Ok(Given::All { filled }) => {
                    let behind = filled || something_came;
                    if !behind {
                        slot.state |= AWAITS_BYTES;
                    }
                    Says::Given { more: filled, behind }
                }
                Ok(Given::Part) => Says::Given { more: true, behind: something_came },
                Err(errno) => Says::Failed(errno),
            });
        }
        if slot.is(READABLE | AT_END) {
            let at_end = slot.is(AT_END);
            slot.state &= if asks == Asks::InVain { !(READABLE | AT_END) } else { !READABLE };
            return Some(Says::Readable { at_end });
        }
        if asks == Asks::ReadsAnyway {
            debug_assert!(slot.socket.is_none() || !slot.is(AWAITS_BYTES), "nobody else may read it meanwhile");
            return Some(Says::Readable { at_end: false });
        }
        slot.state |= AWAITS_BYTES;
        None
    }

    /// The reader has read all that had come, and reads nothing before it asks again.
    pub(super) fn let_wait(&mut self, key: Key) {
        let slot = &mut self.all[key.index()];
        if !slot.is(READABLE | AT_END) {
            slot.state |= AWAITS_BYTES;
        }
    }

    /// Whether there may be room to write, or an error; once for each time that there was some.
    pub(super) fn take_room(&mut self, key: Key) -> bool {
        let slot = &mut self.all[key.index()];
        let room = slot.is(WRITABLE);
        slot.state &= !WRITABLE;
        room
    }

    /// Sets who is woken when there is room, once; gives the former, to be dropped elsewhere.
    pub(super) fn set_writer(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        self.all[key.index()].state |= AWAITS_ROOM;
        self.writers.insert(key, waker.clone())
    }

    pub(super) fn generation(&self, key: Key) -> u32 {
        self.all[key.index()].generation
    }

    /// Gives the place up; the wakers are to be dropped elsewhere. Says whether bytes were read that nobody has fetched.
    pub(super) fn close(&mut self, key: Key) -> (bool, (Option<Waker>, Option<Waker>)) {
        let slot = &mut self.all[key.index()];
        // No event has it: generations begin with 1.
        slot.generation = 0;
        slot.socket = None;
        let unread = slot.ahead.take().is_some_and(|at| self.ahead.forget(at));
        let writer = if slot.is(AWAITS_ROOM) { self.writers.remove(&key) } else { None };
        let reader = slot.reader.take();
        self.vacant.push(key);
        (unread, (reader, writer))
    }

    /// Notes events; gives who is to be woken.
    pub(super) fn note(&mut self, events: &[Event]) -> Vec<Waker> {
        let mut woken = mem::take(&mut self.woken);
        self.round = self.round.wrapping_add(1);
        self.ahead.begin_round();
        for event in events {
            let (flags, name) = (event.flags, event.data.u64());
            let key = Key(name as u32);
            let Some(slot) = self.all.get_mut(key.index()).filter(|slot| u64::from(slot.generation) == name >> 32)
            else {
                continue;
            };
            let known = slot.state;
            if flags.intersects(EventFlags::PRI | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                slot.state |= AT_END;
            }
            let mut is_ahead = false;
            if flags.contains(EventFlags::IN) {
                // A failure is told once, and may be a writer's to hear.
                if slot.is(AWAITS_BYTES)
                    && !flags.intersects(EventFlags::HUP | EventFlags::ERR)
                    && let Some(socket) = &slot.socket
                {
                    slot.ahead = self.ahead.read(socket);
                    is_ahead = slot.ahead.is_some();
                }
                if !is_ahead {
                    slot.state |= READABLE;
                }
            }
            // Who was told, and has not looked since, is not told again.
            if (is_ahead || slot.state & !known & (READABLE | AT_END) != 0)
                && let Some(reader) = &slot.reader
            {
                slot.state &= !AWAITS_BYTES;
                slot.round = self.round;
                woken.push(reader.clone());
            }
            if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
                slot.state |= WRITABLE;
                if slot.is(AWAITS_ROOM) {
                    slot.state &= !AWAITS_ROOM;
                    woken.extend(self.writers.remove(&key));
                }
            }
        }
        self.round_size = woken.len();
        self.at_work = woken.len();
        woken
    }

    /// Whether this one was the last at work of those that a large round woke.
    pub(super) fn was_last(&mut self, key: Key) -> bool {
        let slot = &mut self.all[key.index()];
        if slot.round != self.round || self.at_work == 0 {
            return false;
        }
        slot.round = self.round.wrapping_sub(1);
        self.at_work -= 1;
        self.at_work == 0 && self.round_size >= LARGE_ROUND
    }

    /// Takes back what [`note`](Self::note) gave, with nothing in it.
    pub(super) fn give_back(&mut self, woken: Vec<Waker>) {
        self.woken = woken;
    }

    /// Takes all wakers out.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        let readers = self.all.iter_mut().filter_map(|slot| slot.reader.take());
        readers.chain(self.writers.drain().map(|(_, writer)| writer)).collect()
    }

    /// How many places there are, how many of them are vacant, and how many wait for room.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.all.len(), self.vacant.len(), self.writers.len())
    }
}
