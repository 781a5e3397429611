//! `memory`: a network inside the process, for tests and for programs that talk to themselves.
//!
//! `memory://name?kind=stream` carries bytes as TCP does, `kind=messages` a connected stream of messages,
//! `kind=datagrams` single datagrams as UDP does. Nothing leaves the process, so a test needs no port, and since every
//! delay waits on tokio's clock, a paused clock takes no time.
//!
//! # Who sees whom?
//! A [`Network`] belongs to whoever made it; each registry has one of its own, which its clones share. Two registries
//! do not see each other's names.
//!
//! # Faults
//! The listener's [faults] befall what it and its callers send. A caller that names faults itself has
//! those instead, on its own link, so that one bad line can be tried among good ones; what a side claims to be able to
//! follows from the faults that it names itself. Links are numbered as they are made, and each direction of each draws
//! its own fates from the seed.
//!
//! # As a network would
//! A connection that is dropped ends, and breaks where unread bytes were left, as TCP's does. A datagram for which
//! there is no room is lost, silently. A datagram to nobody is refused, and its sender hears of it when it receives.

mod datagrams;
mod links;
mod network;
#[cfg(test)]
mod tests;

use std::io;
use std::task::{Context, Poll};

use async_trait::async_trait;
use rustix::io::Errno;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};

use self::datagrams::{Mailbox, MemorySocket};
use self::network::{Bound, Claim, Listening};
use crate::address::Address;
use crate::endpoint::{Authority, Endpoint};
use crate::faults::{self, Carried, Fates, Faults};
use crate::link::{Capabilities, Link};
use crate::options::{OptionDoc, OptionError, Options, Size};
use crate::transport::{Acceptor, BindError, ConnectError, Dialled, Incoming, Listener, Opening, Transport};

pub use self::network::Network;

/// The size in bytes of the largest message of `kind=messages`.
pub const LARGEST_MESSAGE: usize = 1 << 20;

/// What `kind=messages` can do.
pub const MESSAGES: Capabilities =
    Capabilities { boundaries: true, largest: Some(LARGEST_MESSAGE), ..Capabilities::BYTES };

/// Two ends of a stream of bytes that nobody bound or called, for tests of what is put over one.
pub fn bytes_pair() -> (Link, Link) {
    let (near, far) = perfect_pair();
    (links::bytes(near), links::bytes(far))
}

/// The same of messages.
pub fn messages_pair() -> (Link, Link) {
    let (near, far) = perfect_pair();
    (links::messages(near), links::messages(far))
}

fn perfect_pair() -> (links::End, links::End) {
    let lane = || (Fates::new(&Faults::default(), 0), Settings::default().buffer.bytes());
    links::pair([lane(), lane()])
}

/// The transport `memory`.
#[derive(Debug, Clone)]
pub struct Memory {
    network: Network,
    settings: Settings,
    /// None where no fault was named: the listener's hold then.
    faults: Option<Faults>,
}

/// What a memory endpoint carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Stream,
    Messages,
    Datagrams,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    kind: Kind,
    backlog: usize,
    buffer: Size,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { kind: Kind::Stream, backlog: 128, buffer: Size(64 * 1024) }
    }
}

const OWN_OPTIONS: [OptionDoc; 3] = [
    OptionDoc { name: "kind", value: "stream|messages|datagrams", default: "stream", help: "what is carried" },
    OptionDoc {
        name: "backlog",
        value: "N",
        default: "128",
        help: "how many calls may wait to be accepted; later ones wait to be made",
    },
    OptionDoc {
        name: "buffer",
        value: "SIZE",
        default: "64KiB",
        help: "how much waits to be received: then senders wait, and datagrams are lost",
    },
];

/// The options that it takes: its own, and those of the [faults].
pub const OPTIONS: &[OptionDoc] = &{
    let mut all = [OWN_OPTIONS[0]; OWN_OPTIONS.len() + faults::OPTIONS.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = match index.checked_sub(OWN_OPTIONS.len()) {
            None => OWN_OPTIONS[index],
            Some(fault) => faults::OPTIONS[fault],
        };
        index += 1;
    }
    all
};

impl Memory {
    /// The transport on that network, with the [`OPTIONS`] given.
    pub fn new(network: Network, mut options: Options) -> Result<Self, OptionError> {
        let named = options.take(|name| faults::OPTIONS.iter().any(|option| option.name == name));
        let settings: Settings = options.read()?;
        for (name, value) in [("backlog", settings.backlog), ("buffer", settings.buffer.bytes())] {
            if value == 0 {
                return Err(OptionError::Invalid(format!("the option `{name}` takes a number above 0")));
            }
        }
        let faults: Option<Faults> = if named.is_empty() { None } else { Some(named.read()?) };
        let carried = match settings.kind {
            Kind::Stream => Carried::Bytes,
            Kind::Messages => Carried::Messages,
            Kind::Datagrams => Carried::Datagrams,
        };
        faults.as_ref().map_or(Ok(()), |faults| faults.check(carried)).map_err(OptionError::Invalid)?;
        Ok(Memory { network, settings, faults })
    }

    /// The two directions of a caller's link: what it sends, and what it is sent.
    fn fates(&self, bound: &Bound) -> [Fates; 2] {
        let faults = self.faults.as_ref().unwrap_or(&bound.faults);
        let lane = bound.next_lane();
        [Fates::new(faults, lane), Fates::new(faults, lane + 1)]
    }

    async fn call(&self, bound: &Bound) -> Option<Dialled> {
        let local = self.network.caller_of(&bound.name);
        let [outgoing, incoming] = self.fates(bound);
        match &bound.listening {
            Listening::Datagrams(mailbox) => {
                let caller = self.network.caller(&local, self.settings.buffer.bytes(), incoming);
                let link = datagrams::caller(mailbox.clone(), outgoing, caller);
                Some(Dialled::new(Link::Messages(Box::new(link)), local.address(), bound.name.address()))
            }
            Listening::Connections(calls) => {
                let place = calls.reserve().await.ok()?;
                let (near, far) = links::pair([(outgoing, bound.buffer), (incoming, self.settings.buffer.bytes())]);
                let as_link = match self.settings.kind {
                    Kind::Messages => links::messages,
                    _ => links::bytes,
                };
                let (local, remote) = (local.address(), bound.name.address());
                place.send(Dialled::new(as_link(far), remote.clone(), local.clone()));
                Some(Dialled::new(as_link(near), local, remote))
            }
        }
    }
}

#[async_trait]
impl Transport for Memory {
    fn capabilities(&self) -> Capabilities {
        let faults = self.faults.clone().unwrap_or_default();
        match self.settings.kind {
            Kind::Stream => Capabilities::BYTES,
            Kind::Messages => Capabilities { reliable: faults.is_reliable(), ordered: faults.is_ordered(), ..MESSAGES },
            Kind::Datagrams => Capabilities::DATAGRAMS,
        }
    }

    fn closing_tells(&self) -> bool {
        true
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let name = match &at.authority {
            Authority::Name(name) => Some(name.as_str()),
            Authority::Empty => None,
            _ => return Err(BindError::unsuitable(at, NAME_WANTED)),
        };
        let (listener, listening) = Nameless::new(&self.settings);
        let faults = self.faults.clone().unwrap_or_default();
        let claim = self.network.bind(name, |name| Bound::new(name, &self.settings, listening, faults));
        let taken = || BindError::new(at, format!("bind({})", at.authority), Errno::ADDRINUSE.into());
        claim.map(|claim| listener.under(claim)).ok_or_else(taken)
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let Authority::Name(name) = &to.authority else {
            return Err(ConnectError::unsuitable(to, NAME_WANTED));
        };
        let refused = || ConnectError::new(to, format!("connect({name})"), Errno::CONNREFUSED.into());
        let bound = self.network.find(name, self.settings.kind).ok_or_else(refused)?;
        self.call(&bound).await.ok_or_else(refused)
    }
}

/// A listener that has no name yet.
enum Nameless {
    Connections(mpsc::Receiver<Dialled>),
    Datagrams(Mailbox),
}

impl Nameless {
    /// The listener, and the way to reach it.
    fn new(settings: &Settings) -> (Self, Listening) {
        if settings.kind == Kind::Datagrams {
            let mailbox = Mailbox::new(settings.buffer.bytes());
            return (Nameless::Datagrams(mailbox.clone()), Listening::Datagrams(mailbox));
        }
        let (calls, waiting) = mpsc::channel(settings.backlog.min(Semaphore::MAX_PERMITS));
        (Nameless::Connections(waiting), Listening::Connections(calls))
    }

    fn under(self, claim: Claim) -> Listener {
        match self {
            Nameless::Connections(waiting) => Listener::Connections(Box::new(MemoryAcceptor { claim, waiting })),
            Nameless::Datagrams(mailbox) => Listener::Datagrams(Box::new(MemorySocket::new(claim, mailbox))),
        }
    }
}

const NAME_WANTED: &str = "a memory endpoint has a name, such as memory://room";

struct MemoryAcceptor {
    claim: Claim,
    waiting: mpsc::Receiver<Dialled>,
}

impl Acceptor for MemoryAcceptor {
    fn local(&self) -> Address {
        self.claim.name().address()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        let accepted = self.waiting.poll_recv(cx);
        accepted.map(|call| Ok(call.map(|call| Box::new(MemoryIncoming(call)) as Box<dyn Incoming>)))
    }
}

struct MemoryIncoming(Dialled);

impl Incoming for MemoryIncoming {
    fn remote(&self) -> &Address {
        &self.0.remote
    }

    fn open(self: Box<Self>) -> Opening {
        Ok(self.0).into()
    }
}
