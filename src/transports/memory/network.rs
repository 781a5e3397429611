//! Who is bound to which name.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::datagrams::Mailbox;
use super::{Kind, Settings};
use crate::address::Address;
use crate::faults::{Fates, Faults};
use crate::transport::Dialled;

/// A network of names. Cloning gives the same network.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Names>>);

#[derive(Default)]
struct Names {
    bound: HashMap<Name, Arc<Bound>>,
    /// Those who send datagrams, to be answered.
    callers: HashMap<Name, Caller>,
    /// How many names were made up.
    made_up: u64,
}

/// The name of one end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(Arc<str>);

impl Name {
    pub(super) fn address(&self) -> Address {
        Address::Named(self.0.clone())
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A listener, as callers find it.
pub(super) struct Bound {
    pub(super) name: Name,
    kind: Kind,
    pub(super) listening: Listening,
    /// How much of what it is sent waits, in bytes.
    pub(super) buffer: usize,
    pub(super) faults: Faults,
    lanes: AtomicU64,
}

/// How a listener is reached.
pub(super) enum Listening {
    Connections(mpsc::Sender<Dialled>),
    Datagrams(Mailbox),
}

impl Bound {
    pub(super) fn new(name: Name, settings: &Settings, listening: Listening, faults: Faults) -> Self {
        let (kind, buffer) = (settings.kind, settings.buffer.bytes());
        Bound { name, kind, listening, buffer, faults, lanes: AtomicU64::new(0) }
    }

    /// The first of two lanes, for the directions of one link.
    pub(super) fn next_lane(&self) -> u64 {
        self.lanes.fetch_add(2, Ordering::Relaxed)
    }
}

/// Whoever sends datagrams, as the answers find it.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) mailbox: Mailbox,
    /// What becomes of the answers.
    pub(super) fates: Arc<Mutex<Fates>>,
}

/// A name, for as long as this is held.
pub(super) struct Claim {
    network: Network,
    name: Name,
    is_caller: bool,
}

impl Claim {
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut names = self.network.names();
        if self.is_caller {
            names.callers.remove(&self.name);
        } else {
            names.bound.remove(&self.name);
        }
    }
}

impl Network {
    /// A network on which nobody is yet.
    pub fn new() -> Self {
        Network::default()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds what listens to a name, or to one that nobody has where none is given; `None` where it is taken.
    pub(super) fn bind(&self, name: Option<&str>, bound: impl FnOnce(Name) -> Bound) -> Option<Claim> {
        let mut names = self.names();
        let name = name.map_or_else(|| names.make_up("unnamed"), |name| Name(Arc::from(name)));
        if names.bound.contains_key(&name) {
            return None;
        }
        names.bound.insert(name.clone(), Arc::new(bound(name.clone())));
        Some(Claim { network: self.clone(), name, is_caller: false })
    }

    /// Who is bound to a name and carries that kind.
    pub(super) fn find(&self, name: &str, kind: Kind) -> Option<Arc<Bound>> {
        self.names().bound.get(name).filter(|bound| bound.kind == kind).cloned()
    }

    /// A name for somebody who calls.
    pub(super) fn caller_of(&self, called: &Name) -> Name {
        self.names().make_up(&called.0)
    }

    /// Lets somebody who sends datagrams be answered, for as long as the claim is held.
    pub(super) fn caller(&self, name: &Name, buffer: usize, answers: Fates) -> (Claim, Mailbox) {
        let mailbox = Mailbox::new(buffer);
        let caller = Caller { mailbox: mailbox.clone(), fates: Arc::new(Mutex::new(answers)) };
        self.names().callers.insert(name.clone(), caller);
        (Claim { network: self.clone(), name: name.clone(), is_caller: true }, mailbox)
    }

    /// Who sends datagrams under that address.
    pub(super) fn find_caller(&self, address: &Address) -> Option<Caller> {
        match address {
            Address::Named(name) => self.names().callers.get(&**name).cloned(),
            _ => None,
        }
    }
}

impl Names {
    /// A name that nobody has.
    fn make_up(&mut self, stem: &str) -> Name {
        loop {
            self.made_up += 1;
            let name = Name(Arc::from(format!("{stem}#{}", self.made_up)));
            if !self.bound.contains_key(&name) {
                return name;
            }
        }
    }
}

/// The names that are bound.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names().bound.keys().map(|name| &name.0)).finish()
    }
}
