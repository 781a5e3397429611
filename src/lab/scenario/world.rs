//! The state of a case as the model sees it: which sockets there are, and what each step does to them.

mod foresight;

use std::collections::HashMap;
use std::net::IpAddr;

use nix::errno::Errno;

use super::action::{Action, Bind, Target};
use crate::lab::model::{Binding, Delivery, Dial, Packet, Proto, arrival, deliver, overlap};
use crate::lab::outcome::Outcome;
use crate::lab::socket::Flag;
use crate::lab::topology::Side;

/// What the model knows of a case.
#[derive(Debug)]
pub(super) struct World {
    proto: Proto,
    port: u16,
    settings: HashMap<(Side, String), String>,
    /// In the order in which the kernel meets them: TCP by listen, UDP by bind.
    sockets: Vec<Known>,
    /// What closed connections leave behind for a minute, with the socket at the other end.
    left: Vec<(usize, Place)>,
    /// What TCP remembers of a port of a host.
    ports: HashMap<(Side, u16), Sharing>,
    next: usize,
}

/// What TCP remembers of a port that is in use (`fastreuseport` of `struct inet_bind_bucket`): a further socket with
/// `SO_REUSEPORT` is let in without a look at the others.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sharing {
    /// Nothing: every bind looks at all.
    Forgotten,
    /// All were bound with `SO_REUSEPORT`.
    All,
    /// The last one was, at this address; whoever is bound within it may come.
    Last(Binding),
}

/// A binding, at a port of a host.
#[derive(Debug, Clone)]
struct Place {
    host: Side,
    port: u16,
    binding: Binding,
}

#[derive(Debug, Clone)]
struct Known {
    id: usize,
    name: String,
    at: Place,
    role: Role,
    /// How much it could receive.
    inbox: u32,
    /// Whether the other end of the connection has been closed.
    peer_closed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Bound,
    /// With the clients that wait, and what each one dialled.
    Listening {
        backlog: u32,
        queue: Vec<(usize, IpAddr)>,
    },
    /// With the other end, once it is accepted.
    Connected(Option<usize>),
    /// A UDP socket with a fixed peer.
    Fixed((IpAddr, u16)),
    /// A TCP socket that called in vain. The model says no more about it.
    Spent,
}

impl World {
    pub(super) fn new(proto: Proto, port: u16) -> Self {
        World {
            proto,
            port,
            settings: HashMap::new(),
            sockets: Vec::new(),
            left: Vec::new(),
            ports: HashMap::new(),
            next: 0,
        }
    }

    /// Takes note of a step that ended like this.
    pub(super) fn apply(&mut self, action: &Action, outcome: Option<&Outcome>) {
        let went_well = matches!(outcome, Some(Outcome::Ok | Outcome::Connected | Outcome::Reply));
        match action {
            Action::Connect { socket: Some(socket), from, to } if !went_well => {
                let called = [Outcome::Errno(Errno::ECONNREFUSED), Outcome::Timeout, Outcome::ReplyLost];
                if outcome.is_some_and(|outcome| called.contains(outcome)) {
                    self.called_in_vain(socket, *from, to);
                }
            }
            _ if !went_well => {}
            Action::Bind(bind) => self.bound(bind),
            Action::Listen { socket, backlog } => self.listens(socket, *backlog),
            Action::Connect { socket, from, to } => self.connected(socket.as_deref(), *from, to),
            Action::Accept { socket, name } => self.accepted(socket, name.as_deref().unwrap_or_default()),
            Action::Send { socket, to, .. } => self.sent(socket, to.as_ref()),
            Action::Receive { socket } => {
                if let Some(known) = self.find_mut(socket) {
                    known.inbox = known.inbox.saturating_sub(1);
                }
            }
            Action::Set { socket, flags, device } => {
                if let Some(known) = self.find_mut(socket) {
                    for (flag, on) in flags {
                        match flag {
                            Flag::ReuseAddr => known.at.binding.reuse_addr = *on,
                            Flag::ReusePort => known.at.binding.reuse_port = *on,
                            Flag::V6Only => known.at.binding.v6_only = *on,
                            Flag::Freebind => {}
                        }
                    }
                    if device.is_some() {
                        known.at.binding.device.clone_from(device);
                    }
                }
            }
            Action::Sysctl { host, name, value } => {
                self.settings.insert((*host, name.clone()), value.clone());
            }
            Action::Close { socket, reset } => self.closed(socket, *reset),
        }
    }

    fn bound(&mut self, bind: &Bind) {
        self.sockets.retain(|known| known.name != bind.socket);
        let at = self.place(bind);
        self.remember(&at);
        self.add(&bind.socket, at, Role::Bound);
    }

    /// What `inet_csk_update_fastreuse` notes when a socket gets its port, by bind or by listen.
    fn remember(&mut self, at: &Place) {
        let sharing = match (self.is_unused(at), at.binding.reuse_port) {
            (_, false) => Sharing::Forgotten,
            (true, true) => Sharing::All,
            (false, true) if self.lets_in(at) => return,
            (false, true) => Sharing::Last(at.binding.clone()),
        };
        self.ports.insert((at.host, at.port), sharing);
    }

    /// Whether TCP lets a socket in without a look at the others.
    fn lets_in(&self, at: &Place) -> bool {
        at.binding.reuse_port
            && match self.ports.get(&(at.host, at.port)) {
                Some(Sharing::All) => true,
                Some(Sharing::Last(last)) => takes_in(last, &at.binding),
                Some(Sharing::Forgotten) | None => false,
            }
    }

    fn is_unused(&self, at: &Place) -> bool {
        let here = |other: &Place| other.host == at.host && other.port == at.port;
        !self.sockets.iter().any(|known| here(&known.at)) && !self.left.iter().any(|(_, left)| here(left))
    }

    fn listens(&mut self, socket: &str, backlog: u32) {
        let Some(place) = self.sockets.iter().position(|known| known.name == socket) else { return };
        let mut known = self.sockets.remove(place);
        if !known.at.binding.listening {
            self.remember(&known.at);
        }
        known.at.binding.listening = true;
        let queue = match known.role {
            Role::Listening { queue, .. } => queue,
            _ => Vec::new(),
        };
        known.role = Role::Listening { backlog, queue };
        self.sockets.push(known);
    }

    fn connected(&mut self, socket: Option<&str>, from: Side, to: &Target) {
        let dialled = (to.ip, to.port.unwrap_or(self.port));
        let role = if self.proto == Proto::Tcp { Role::Connected(None) } else { Role::Fixed(dialled) };
        let known = socket.and_then(|name| self.dials(name, to, role.clone()));
        let id = known.unwrap_or_else(|| {
            let at = Place { host: from, port: 0, binding: Binding::new(self.proto, to.ip) };
            self.add(socket.unwrap_or_default(), at, role)
        });
        if self.proto == Proto::Tcp
            && let [listener] = self.delivered(from, to).to[..]
            && let Role::Listening { queue, .. } = &mut self.sockets[listener].role
        {
            queue.push((id, to.ip.to_canonical()));
        }
    }

    /// The socket is there all the same; one of UDP has its peer.
    fn called_in_vain(&mut self, socket: &str, from: Side, to: &Target) {
        let role = match self.proto {
            Proto::Tcp => Role::Spent,
            Proto::Udp => Role::Fixed((to.ip, to.port.unwrap_or(self.port))),
        };
        if self.dials(socket, to, role.clone()).is_none() {
            let at = Place { host: from, port: 0, binding: Binding::new(self.proto, to.ip) };
            self.add(socket, at, role);
        }
    }

    /// A socket that is there takes that role by a call. A wildcard narrows to the address from which it calls.
    fn dials(&mut self, socket: &str, to: &Target, role: Role) -> Option<usize> {
        let source = self.packet(self.find(socket)?.at.host, to).map(|packet| packet.source);
        let known = self.find_mut(socket)?;
        known.role = role;
        if let Some(source) = source.filter(|_| known.at.binding.is_wildcard()) {
            known.at.binding.ip = match (known.at.binding.ip, source) {
                (IpAddr::V6(_), IpAddr::V4(source)) => source.to_ipv6_mapped().into(),
                (_, source) => source,
            };
        }
        Some(known.id)
    }

    fn accepted(&mut self, socket: &str, name: &str) {
        let Some(known) = self.find_mut(socket) else { return };
        let Role::Listening { queue, .. } = &mut known.role else { return };
        if queue.is_empty() {
            return;
        }
        let (client, dialled) = queue.remove(0);
        let mut at = known.at.clone();
        at.binding.listening = false;
        at.binding.ip = dialled;
        let server = self.add(name, at, Role::Connected(Some(client)));
        if let Some(client) = self.sockets.iter_mut().find(|known| known.id == client) {
            client.role = Role::Connected(Some(server));
        }
    }

    fn sent(&mut self, socket: &str, to: Option<&Target>) {
        let Some(known) = self.find(socket).cloned() else { return };
        if known.peer_closed && matches!(known.role, Role::Connected(_)) {
            // Nobody is there any more: a reset comes back, and ends what either side has kept.
            self.left.retain(|(other_end, _)| *other_end != known.id);
            if let Some(known) = self.find_mut(socket) {
                known.role = Role::Spent;
                known.at.port = 0;
            }
            return;
        }
        let receiver = match (&known.role, to) {
            (Role::Connected(peer), _) => peer.and_then(|id| self.sockets.iter().position(|one| one.id == id)),
            (Role::Fixed((ip, port)), None) => {
                let target = Target { ip: *ip, device: None, port: Some(*port) };
                self.delivered(known.at.host, &target).to.first().copied()
            }
            (_, Some(to)) => self.delivered(known.at.host, to).to.first().copied(),
            _ => None,
        };
        if let Some(place) = receiver {
            self.sockets[place].inbox += 1;
        }
    }

    fn closed(&mut self, socket: &str, reset: bool) {
        let Some(place) = self.sockets.iter().position(|known| known.name == socket) else { return };
        let known = self.sockets.remove(place);
        if let Role::Connected(Some(peer)) = known.role {
            // Who closes first keeps the port for a while, unless it is a reset, which also ends what the other side
            // has kept. Closing with something unread is one, too (RFC 2525, section 2.17).
            let reset = reset || known.inbox > 0;
            if reset {
                self.left.retain(|(other_end, _)| *other_end != known.id);
            } else if !known.peer_closed {
                self.left.push((peer, known.at.clone()));
            }
            if let Some(peer) = self.sockets.iter_mut().find(|one| one.id == peer) {
                peer.peer_closed = true;
                if reset {
                    // It is over for the other end as well, which gives up the port that it was accepted on.
                    peer.role = Role::Spent;
                    peer.at.port = 0;
                }
            }
        }
    }

    fn add(&mut self, name: &str, at: Place, role: Role) -> usize {
        self.next += 1;
        let id = self.next;
        self.sockets.push(Known { id, name: name.to_owned(), at, role, inbox: 0, peer_closed: false });
        id
    }

    fn find(&self, name: &str) -> Option<&Known> {
        self.sockets.iter().find(|known| known.name == name)
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Known> {
        self.sockets.iter_mut().find(|known| known.name == name)
    }

    /// Everything else on the port of a host.
    fn neighbours<'a>(&'a self, at: &'a Place, except: usize) -> impl Iterator<Item = &'a Binding> {
        let here = |other: &Place| other.host == at.host && other.port == at.port;
        let open = self.sockets.iter().filter(move |known| known.id != except).map(|known| &known.at);
        open.chain(self.left.iter().map(|(_, at)| at)).filter(move |other| here(other)).map(|other| &other.binding)
    }

    fn place(&self, bind: &Bind) -> Place {
        let v6_only = bind.v6_only.unwrap_or_else(|| self.setting(bind.host, "net.ipv6.bindv6only") == Some("1"));
        Place {
            host: bind.host,
            port: bind.port.unwrap_or(self.port),
            binding: Binding {
                v6_only: v6_only && bind.ip.is_ipv6(),
                device: bind.device.clone(),
                ..Binding::new(self.proto, bind.ip).reusing(bind.reuse_addr, bind.reuse_port)
            },
        }
    }

    fn setting(&self, host: Side, name: &str) -> Option<&str> {
        self.settings.get(&(host, name.to_owned())).map(String::as_str)
    }

    fn packet(&self, from: Side, to: &Target) -> Option<Packet> {
        arrival(self.proto, Dial { from, to: to.ip })
    }

    /// To which of the sockets a call goes.
    fn delivered(&self, from: Side, to: &Target) -> Delivery {
        let Some(packet) = self.packet(from, to) else { return Delivery::to_nobody() };
        let port = to.port.unwrap_or(self.port);
        let is_server = |known: &Known| matches!(known.role, Role::Bound | Role::Listening { .. });
        let here: Vec<usize> = (0..self.sockets.len())
            .filter(|&place| {
                let known = &self.sockets[place];
                known.at.host == packet.at && known.at.port == port && is_server(known)
            })
            .collect();
        let bindings: Vec<Binding> = here.iter().map(|&place| self.sockets[place].at.binding.clone()).collect();
        let Delivery { to, rule } = deliver(&bindings, &packet);
        Delivery { to: to.into_iter().map(|place| here[place]).collect(), rule }
    }
}

/// Whether an address stands for all of another one, whatever device it is on.
fn takes_in(wide: &Binding, narrow: &Binding) -> bool {
    let anywhere = |binding: &Binding| Binding { device: None, ..binding.clone() };
    let (wide, narrow) = (anywhere(wide), anywhere(narrow));
    let is_equal = wide.ip.to_canonical() == narrow.ip.to_canonical();
    overlap(&wide, &narrow).0 && (wide.is_wildcard() || is_equal)
}
