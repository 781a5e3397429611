//! The rooms of a chat and who is in them: shared by all its services, whatever they are served over.
//!
//! One lock guards all rooms. Nothing waits under it: what is said is put into each member's own bounded buffer, and
//! a buffer that is full is its owner's loss alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tokio::sync::Notify;

use crate::session::{PushError, Pusher};

/// Rooms by name. A room is there as long as somebody is in it.
#[derive(Default)]
pub struct Rooms {
    by_name: Mutex<ByName>,
    /// How many came so far; each member has a number of its own.
    visitors: AtomicU64,
}

type ByName = BTreeMap<String, Room>;

#[derive(Default)]
struct Room {
    /// In the order in which they came.
    members: Vec<Member>,
}

struct Member {
    number: u64,
    peer: Newcomer,
    /// How many messages it was not sent, since its last one.
    lost: u64,
    /// Wakes its session when it has lost something or was removed.
    attention: Arc<Notify>,
}

/// Who comes into a room.
pub(super) struct Newcomer {
    pub(super) name: String,
    pub(super) pusher: Pusher,
    /// What ends a line that is sent to it.
    pub(super) end: &'static str,
    pub(super) slow: Slow,
}

/// What becomes of a member that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slow {
    /// It loses messages, and is told how many when it reads again.
    #[default]
    Drop,
    /// It is removed.
    Kick,
}

/// The most rooms, and the most members of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) rooms: usize,
    pub(super) members: usize,
}

/// Why a room was not entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("somebody is called {name} in {room} already; choose another nickname")]
    NameTaken { name: String, room: String },
    #[error("{room} is full: it has {members} members")]
    RoomFull { room: String, members: usize },
    #[error("there are {rooms} rooms already, and no more can be opened")]
    TooManyRooms { rooms: usize },
}

/// Somebody's being in a room. Dropping it is leaving, however the session ends.
pub(super) struct Membership {
    rooms: Arc<Rooms>,
    room: String,
    name: String,
    number: u64,
    attention: Arc<Notify>,
}

impl Rooms {
    /// Enters a room, which opens where there is none of that name. The room is told, and the newcomer.
    pub(super) fn enter(
        rooms: &Arc<Rooms>,
        name: String,
        newcomer: Newcomer,
        bounds: Bounds,
    ) -> Result<Membership, Refusal> {
        // Made before the lock is taken, and so dropped after it is given back.
        let membership = Membership {
            rooms: rooms.clone(),
            room: name,
            name: newcomer.name.clone(),
            number: rooms.visitors.fetch_add(1, Ordering::Relaxed),
            attention: Arc::default(),
        };
        let (name, room) = (&membership.name, &membership.room);
        let mut by_name = rooms.lock();
        match by_name.get(room) {
            None if by_name.len() >= bounds.rooms => return Err(Refusal::TooManyRooms { rooms: by_name.len() }),
            Some(there) if there.members.iter().any(|member| member.peer.is_called(name)) => {
                return Err(Refusal::NameTaken { name: name.clone(), room: room.clone() });
            }
            Some(there) if there.members.len() >= bounds.members => {
                return Err(Refusal::RoomFull { room: room.clone(), members: there.members.len() });
            }
            _ => {}
        }
        let there = by_name.entry(room.clone()).or_default();
        let here = there.members.len() + 1;
        let mut member =
            Member { number: membership.number, peer: newcomer, lost: 0, attention: membership.attention.clone() };
        member.offer(&format!("* welcome to {room}, {name} ({here} here)"));
        there.members.push(member);
        there.tell(Some(membership.number), &format!("* {name} joined {room} ({here} here)"));
        drop(by_name);
        Ok(membership)
    }

    /// What a panic leaves behind is whole: it can only come from a framing, before or after a change is made.
    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership {
    pub(super) fn room(&self) -> &str {
        &self.room
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says a line of text to all others in the room. Who was removed and does not know yet says nothing.
    pub(super) fn say(&self, text: &str) {
        let mut by_name = self.rooms.lock();
        let room = by_name.get_mut(&self.room);
        if let Some(room) = room.filter(|room| room.members.iter().any(|member| member.number == self.number)) {
            room.tell(Some(self.number), &format!("<{}> {text}", self.name));
        }
    }

    /// Who is in the room.
    pub(super) fn who(&self) -> String {
        let by_name = self.rooms.lock();
        let members = by_name.get(&self.room).map_or(&[][..], |room| &room.members);
        let names: Vec<&str> = members.iter().map(|member| member.peer.name.as_str()).collect();
        format!("{} in {}: {}", names.len(), self.room, names.join(", "))
    }

    /// Waits until the room has removed this member. Until then, whenever it has lost something, waits for room in its
    /// buffer and tells it. Cancel-safe.
    pub(super) async fn removed(&self, pusher: &Pusher) {
        loop {
            let Some(behind) = self.with_member(|member| member.lost > 0) else { return };
            if behind {
                pusher.ready().await;
                self.with_member(Member::catch_up);
            } else {
                self.attention.notified().await;
            }
        }
    }

    fn with_member<T>(&self, use_it: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let mut by_name = self.rooms.lock();
        let members = &mut by_name.get_mut(&self.room)?.members;
        members.iter_mut().find(|member| member.number == self.number).map(use_it)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut by_name = self.rooms.lock();
        let Some(room) = by_name.get_mut(&self.room) else { return };
        let before = room.members.len();
        room.members.retain(|member| member.number != self.number);
        if room.members.len() < before {
            room.tell(None, &format!("* {} left {} ({} here)", self.name, self.room, room.members.len()));
        }
        if room.members.is_empty() {
            by_name.remove(&self.room);
        }
    }
}

impl Room {
    /// Puts a line into everybody's buffer but the sender's. That may cost members their place, which the others are
    /// told, which may cost more of them theirs.
    fn tell(&mut self, sender: Option<u64>, line: &str) {
        let mut removed = self.offer(sender, line);
        while let Some(name) = removed.pop() {
            let notice = format!("* {name} was removed: reads too slowly ({} here)", self.members.len());
            removed.extend(self.offer(None, &notice));
        }
    }

    /// The names of those who did not take it and are members no more.
    fn offer(&mut self, sender: Option<u64>, line: &str) -> Vec<String> {
        let is_sender = |member: &Member| Some(member.number) == sender;
        let removed = self.members.extract_if(.., |member| !is_sender(member) && !member.offer(line));
        removed.map(|member| member.peer.name).collect()
    }
}

impl Member {
    /// Puts a line into its buffer, or counts it as lost. Whether it is a member still.
    fn offer(&mut self, line: &str) -> bool {
        if self.lost == 0 || self.catch_up() {
            match self.peer.push(line) {
                Err(PushError::Full) => {}
                // A session that is over leaves by itself; a line that its link cannot carry is nobody's fault.
                _ => return true,
            }
        }
        self.attention.notify_one();
        self.lost += 1;
        self.peer.slow == Slow::Drop
    }

    /// Tells it how much it lost, as soon as that can be told. Whether nothing is left to be told.
    fn catch_up(&mut self) -> bool {
        let lost = self.lost;
        if lost == 0 {
            return true;
        }
        let messages = if lost == 1 { "message" } else { "messages" };
        if let Err(PushError::Full) = self.peer.push(&format!("* you read too slowly and missed {lost} {messages}")) {
            return false;
        }
        self.lost = 0;
        true
    }
}

impl Newcomer {
    fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn push(&self, line: &str) -> Result<(), PushError> {
        self.pusher.try_push(&[line.as_bytes(), self.end.as_bytes()])
    }
}
