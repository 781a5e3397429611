//! `chat`: rooms that peers over every transport share.
//!
//! All chat services of one [`Registry`](crate::Registry) share their rooms, so that
//! `greetd -l tcp://:7000=chat -l udp://:7000=chat -l unix:///run/chat.sock=chat` brings everybody together.
//!
//! # How it runs
//! The first message is the nickname. From then on each line is relayed to the others in the room as `<name> text`,
//! and what the server says itself begins with `* `. Lines that begin with a slash are commands: `/join ROOM`, `/who`,
//! `/quit`, `/help`; two slashes send a line that begins with one. Names are ASCII letters, digits, `-` and `_`: others
//! have letters that look like each other.
//!
//! # What a peer cannot do
//! - Forge a notice or a terminal sequence: what is relayed is one line behind its sender's name, and control
//!   characters in it are replaced (see `chat/words.rs`).
//! - Hold up the others: nobody waits for a slow reader. It loses messages and is told how many as soon as it reads
//!   again, or is removed, as its service is set (`slow=drop|kick`).
//! - Grow without bound: rooms, members, names, lines, and what waits for each member are limited.
//! - Have a stranger flooded: a datagram's source may be forged, and one datagram would have the whole room sent there.
//!   Whoever comes by datagrams from the internet repeats a code that only its address was sent. Until then it hears
//!   nothing but that code, three times at most, and only in answer to a nickname, so that two chats, or a chat and any
//!   other responder, that are set upon each other fall silent. The rules for responders therefore do not hold for it.

mod rooms;
#[cfg(test)]
mod tests;
mod words;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::line_end::after_line;
use crate::error::Result;
use crate::handler::Handler;
use crate::link::Peer;
use crate::options::{OptionDoc, OptionError, Size};
use crate::session::{Pusher, Session};
use rooms::{Bounds, Membership, Newcomer};
use words::Said;

pub use rooms::{Rooms, Slow};

/// What [`Chat`] is made from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The room that one enters first.
    pub room: String,
    /// What becomes of a member that does not read.
    pub slow: Slow,
    /// The most rooms at once.
    pub max_rooms: usize,
    /// The most members of a room at once.
    pub max_members: usize,
    /// The longest line that is relayed.
    pub max_line: Size,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { room: "lobby".into(), slow: Slow::Drop, max_rooms: 64, max_members: 256, max_line: Size(1024) }
    }
}

/// The options of [`Chat`].
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "room", value: "NAME", default: "lobby", help: "the room that one enters first" },
    OptionDoc {
        name: "slow",
        value: "drop|kick",
        default: "drop",
        help: "a member that does not read loses messages and is told how many, or is removed",
    },
    OptionDoc { name: "max-rooms", value: "N", default: "64", help: "the most rooms at once" },
    OptionDoc { name: "max-members", value: "N", default: "256", help: "the most members of a room at once" },
    OptionDoc { name: "max-line", value: "SIZE", default: "1KiB", help: "the longest line that is relayed" },
];

/// One message may be thousands of lines, and each goes to a whole room: after so many, others have their turn.
const LINES_A_TURN: usize = 8;

/// How often a peer is told the code for its address, and may be wrong about it.
const CHANCES: u8 = 3;

/// Relays lines between the members of rooms.
pub struct Chat {
    settings: Settings,
    rooms: Arc<Rooms>,
}

impl Chat {
    /// A service that shares these rooms.
    pub fn new(settings: Settings, rooms: Arc<Rooms>) -> Result<Self, OptionError> {
        if !words::is_name(&settings.room) {
            let room = &settings.room;
            return Err(OptionError::Invalid(format!("the option `room` takes {}, not `{room}`", words::NAME_RULE)));
        }
        for (name, value) in [
            ("max-rooms", settings.max_rooms),
            ("max-members", settings.max_members),
            ("max-line", settings.max_line.bytes()),
        ] {
            if value == 0 {
                return Err(OptionError::Invalid(format!("the option `{name}` takes a number above 0")));
            }
        }
        Ok(Chat { settings, rooms })
    }
}

#[async_trait]
impl Handler for Chat {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let mut visit = Visit::new(self, session.peer(), session.pusher());
        let end = visit.end;
        if session.peer().connected() {
            session.send_parts(&[b"* your nickname, please", end.as_bytes()]).await?;
        }
        loop {
            let message = tokio::select! {
                message = session.recv() => message?,
                () = visit.removed() => {
                    return session.send_parts(&[b"* you were removed: you read too slowly", end.as_bytes()]).await;
                }
            };
            let Some(message) = message else { return Ok(()) };
            for (number, line) in words::lines(&message).enumerate() {
                if number % LINES_A_TURN == LINES_A_TURN - 1 {
                    tokio::task::yield_now().await;
                }
                match visit.hear(line) {
                    Reply::Silence => {}
                    Reply::Notice(text) => session.send_parts(&[b"* ", text.as_bytes(), end.as_bytes()]).await?,
                    Reply::Goodbye => return Ok(()),
                }
            }
        }
    }
}

/// What a peer hears on its line, beside what the room hears.
enum Reply {
    Silence,
    Notice(String),
    Goodbye,
}

/// One peer's conversation: first a stranger, then a member of one room after another.
struct Visit<'a> {
    chat: &'a Chat,
    pusher: Pusher,
    end: &'static str,
    connected: bool,
    /// The room to enter once there is a name.
    room: String,
    proof: Option<Proof>,
    membership: Option<Membership>,
}

/// What a peer whose address may be forged has yet to repeat.
struct Proof {
    code: String,
    /// The name to enter with.
    name: Option<String>,
    /// How often it may still be told the code. Once it was wrong with none left, no answer is right.
    chances: Option<u8>,
}

impl<'a> Visit<'a> {
    fn new(chat: &'a Chat, peer: &Peer, pusher: Pusher) -> Self {
        let forgeable = !peer.connected() && !peer.remote.is_local();
        let code = || format!("{:08x}", RandomState::new().hash_one(&peer.remote) as u32);
        Visit {
            chat,
            pusher,
            end: after_line(peer, "\n"),
            connected: peer.connected(),
            room: chat.settings.room.to_ascii_lowercase(),
            proof: forgeable.then(|| Proof { code: code(), name: None, chances: Some(CHANCES) }),
            membership: None,
        }
    }

    /// Waits until the room has removed this peer; until then tells it what it lost.
    async fn removed(&self) {
        match &self.membership {
            Some(membership) => membership.removed(&self.pusher).await,
            None => std::future::pending().await,
        }
    }

    fn hear(&mut self, line: &[u8]) -> Reply {
        if line.len() > self.chat.settings.max_line.bytes() {
            let most = self.chat.settings.max_line.bytes();
            return self.notice(format!("that line has {} bytes, and {most} is the most; it was not sent", line.len()));
        }
        let line = words::clean(line);
        match (Said::parse(&line), &self.membership) {
            // A new session would have new chances.
            (Said::Quit, _) if self.proof.is_some() => Reply::Silence,
            (Said::Quit, _) => Reply::Goodbye,
            (Said::Join(room), _) => self.join(room),
            (Said::Here(code), _) if self.proof.is_some() => self.prove(code),
            (Said::Text(text), Some(membership)) => {
                membership.say(text);
                Reply::Silence
            }
            (Said::Text(name), None) => self.introduce(name),
            (Said::Who, Some(membership)) => self.notice(membership.who()),
            (Said::Help, _) => self.notice(words::HELP.to_owned()),
            (Said::Who, None) => self.notice("first your nickname, please".to_owned()),
            (Said::Here(_), _) => self.unknown("/here"),
            (Said::Unknown(command), _) => self.unknown(command),
        }
    }

    /// A notice to the peer, unless its address may be forged: then it hears no more than how to prove it.
    fn notice(&self, text: String) -> Reply {
        if self.proof.is_some() { Reply::Silence } else { Reply::Notice(text) }
    }

    fn unknown(&self, command: &str) -> Reply {
        self.notice(format!("there is no {command}; {}", words::HELP))
    }

    fn join(&mut self, room: &str) -> Reply {
        if !words::is_name(room) {
            return self.notice(format!("a room's name has {}", words::NAME_RULE));
        }
        let room = room.to_ascii_lowercase();
        let name = match &self.membership {
            Some(membership) if membership.room() == room => return self.notice(format!("you are in {room} already")),
            Some(membership) => membership.name().to_owned(),
            None => {
                self.room = room;
                return self.notice("and your nickname, please".to_owned());
            }
        };
        self.enter(room, name)
    }

    fn introduce(&mut self, name: &str) -> Reply {
        if !words::is_name(name) {
            return self.notice(format!("a nickname has {}", words::NAME_RULE));
        }
        match &mut self.proof {
            None => self.enter(self.room.clone(), name.to_owned()),
            Some(proof) => {
                proof.name = Some(name.to_owned());
                proof.challenge()
            }
        }
    }

    fn prove(&mut self, code: &str) -> Reply {
        let Some(proof) = &mut self.proof else { return Reply::Silence };
        let Some(name) = proof.name.clone() else { return Reply::Silence };
        if proof.code != code || proof.chances.is_none() {
            return proof.challenge();
        }
        self.proof = None;
        self.enter(self.room.clone(), name)
    }

    fn enter(&mut self, room: String, name: String) -> Reply {
        let newcomer = Newcomer {
            name,
            pusher: self.pusher.clone(),
            end: self.end,
            // Where datagrams have to wait, it is for the socket, which is no fault of the peer's.
            slow: if self.connected { self.chat.settings.slow } else { Slow::Drop },
        };
        let bounds = Bounds { rooms: self.chat.settings.max_rooms, members: self.chat.settings.max_members };
        match Rooms::enter(&self.chat.rooms, room, newcomer, bounds) {
            // The room that was left hears of it when the old membership drops.
            Ok(membership) => {
                self.membership = Some(membership);
                Reply::Silence
            }
            Err(refusal) => Reply::Notice(refusal.to_string()),
        }
    }
}

impl Proof {
    fn challenge(&mut self) -> Reply {
        self.chances = self.chances.and_then(|left| left.checked_sub(1));
        match self.chances {
            Some(_) => Reply::Notice(format!("to come in, answer /here {}", self.code)),
            None => Reply::Silence,
        }
    }
}
