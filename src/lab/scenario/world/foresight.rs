//! What the model says of the next step.

use std::net::{IpAddr, Ipv6Addr};

use nix::errno::Errno;

use super::{Known, Place, Role, World};
use crate::lab::model::{Binding, Decision, Dial, Proto, Rule, arrival, device_of, may_bind, may_listen, reply_source};
use crate::lab::outcome::Outcome;
use crate::lab::scenario::action::{Action, Bind, Target};
use crate::lab::socket::Flag;
use crate::lab::topology::Side;

/// What the model says; `None` where it says nothing.
type Foresight = (Option<Outcome>, Rule);

/// The devices of either host.
const DEVICES: [&str; 3] = ["lo", "eth0", "eth1"];
/// The first port that everybody may bind, unless the sysctl says otherwise; see ip(7).
const UNPRIVILEGED: u16 = 1024;

impl World {
    /// What the model says of a step.
    pub(in crate::lab::scenario) fn predict(&self, action: &Action) -> Foresight {
        match action {
            Action::Bind(bind) => said(self.predict_bind(bind)),
            Action::Listen { socket, .. } => match self.find(socket) {
                Some(known) if known.role != Role::Spent => said(self.predict_listen(known)),
                _ => silent(),
            },
            Action::Connect { socket, from, to } => match socket.as_deref().and_then(|name| self.find(name)) {
                Some(known) => self.predict_dial(known, to),
                None => self.predict_connect(*from, to),
            },
            Action::Accept { socket, .. } => match self.find(socket).map(|known| &known.role) {
                Some(Role::Listening { queue, .. }) if queue.is_empty() => (Some(Outcome::Timeout), Rule::NothingWaits),
                Some(Role::Listening { .. }) => (Some(Outcome::Ok), Rule::SomethingWaits),
                Some(_) if self.proto == Proto::Udp => failing(Errno::EOPNOTSUPP, Rule::NoListenOnUdp),
                Some(_) => failing(Errno::EINVAL, Rule::BoundNotListening),
                None => silent(),
            },
            Action::Send { socket, to, .. } => {
                self.find(socket).map_or(silent(), |known| self.predict_send(known, to.as_ref()))
            }
            Action::Receive { socket } => self.find(socket).map_or(silent(), |known| known.predict_receive(self.proto)),
            Action::Set { socket, flags, .. } => match self.find(socket) {
                Some(Known { role: Role::Spent, .. }) => silent(),
                Some(known) if flags.iter().any(|(flag, _)| *flag == Flag::V6Only) => match known.at.binding.ip {
                    IpAddr::V4(_) => failing(Errno::ENOPROTOOPT, Rule::OtherFamily),
                    IpAddr::V6(_) => failing(Errno::EINVAL, Rule::AlreadyBound),
                },
                Some(_) => (Some(Outcome::Ok), Rule::CallSucceeds),
                None => silent(),
            },
            Action::Sysctl { .. } => (Some(Outcome::Ok), Rule::Sysctl),
            Action::Close { socket, .. } => match self.find(socket) {
                Some(_) => (Some(Outcome::Ok), Rule::CallSucceeds),
                None => silent(),
            },
        }
    }

    /// In the order in which the kernel looks: the device, the options, the address, the port, the others.
    fn predict_bind(&self, bind: &Bind) -> Decision {
        let at = self.place(bind);
        let binding = &at.binding;
        if binding.device.as_deref().is_some_and(|device| !DEVICES.contains(&device)) {
            return Decision::refused(Errno::ENODEV, Rule::NoSuchDevice);
        }
        if self.find(&bind.socket).is_some() {
            return Decision::refused(Errno::EINVAL, Rule::AlreadyBound);
        }
        if binding.is_link_local() && binding.device.is_none() {
            return Decision::refused(Errno::EINVAL, Rule::ScopeNeeded);
        }
        if let refused @ Decision { result: Err(_), .. } = may_bind([], binding) {
            return refused;
        }
        let is_local = is_local(&at);
        if !is_local && !self.allows_non_local(bind) {
            return Decision::refused(Errno::EADDRNOTAVAIL, Rule::NotLocal);
        }
        if !bind.privileged && at.port < self.unprivileged_port_start(at.host) {
            return Decision::refused(Errno::EACCES, Rule::PrivilegedPort);
        }
        let decision = self.beside_others(&at);
        if decision.result.is_ok() && !is_local {
            return Decision::allowed(Rule::NonLocalAllowed);
        }
        decision
    }

    /// The sockets that are there, then what closed connections have left.
    fn beside_others(&self, at: &Place) -> Decision {
        let here = |other: &&Place| other.host == at.host && other.port == at.port;
        let left: Vec<&Binding> = self.left.iter().map(|(_, at)| at).filter(here).map(|other| &other.binding).collect();
        let beside_left = may_bind(left.iter().copied(), &at.binding);
        let decision = if self.proto == Proto::Udp { self.beside_datagrams(at) } else { self.beside_streams(at) };
        match (decision.result, beside_left.result, beside_left.rule) {
            (Err(_), ..) => decision,
            (Ok(()), Err(_), _) if self.lets_in(at) => Decision::allowed(Rule::ReusePortRemembered),
            (Ok(()), Err(errno), _) => Decision::refused(errno, Rule::TimeWait),
            (Ok(()), Ok(()), Rule::BothReuseAddr | Rule::BothReusePort) => Decision::allowed(Rule::TimeWaitReused),
            (Ok(()), Ok(()), _) => decision,
        }
    }

    /// TCP looks at all others, unless it remembers that this one may come.
    fn beside_streams(&self, at: &Place) -> Decision {
        let decision = may_bind(self.bound_beside(at).iter().map(|known| &known.at.binding), &at.binding);
        match decision.result {
            Err(_) if self.lets_in(at) => Decision::allowed(Rule::ReusePortRemembered),
            _ => decision,
        }
    }

    /// UDP looks at the newest first and stops at one with which the new socket shares `SO_REUSEPORT`
    /// (`udp_lib_lport_inuse`).
    fn beside_datagrams(&self, at: &Place) -> Decision {
        let mut others = self.bound_beside(at);
        others.sort_by_key(|known| std::cmp::Reverse(known.id));
        let whole = may_bind(others.iter().map(|known| &known.at.binding), &at.binding);
        for other in others.iter().map(|known| &known.at.binding) {
            let both_reuse_addr = other.reuse_addr && at.binding.reuse_addr;
            match may_bind([other], &at.binding) {
                refused @ Decision { result: Err(_), .. } => return refused,
                Decision { rule: Rule::BothReusePort, .. } if !both_reuse_addr => {
                    let rule = if whole.result.is_ok() { Rule::BothReusePort } else { Rule::ReusePortEndsSearch };
                    return Decision::allowed(rule);
                }
                _ => {}
            }
        }
        whole
    }

    fn bound_beside(&self, at: &Place) -> Vec<&Known> {
        self.sockets.iter().filter(|known| known.at.host == at.host && known.at.port == at.port).collect()
    }

    fn predict_listen(&self, known: &Known) -> Decision {
        match &known.role {
            _ if self.proto == Proto::Udp => Decision::refused(Errno::EOPNOTSUPP, Rule::NoListenOnUdp),
            Role::Connected(_) => Decision::refused(Errno::EINVAL, Rule::AlreadyConnected),
            Role::Listening { .. } => Decision::allowed(Rule::BacklogAnew),
            _ => may_listen(self.neighbours(&known.at, known.id), &known.at.binding),
        }
    }

    /// A socket that is there already calls.
    fn predict_dial(&self, known: &Known, to: &Target) -> Foresight {
        match &known.role {
            Role::Bound if known.at.binding.ip.is_ipv4() && to.ip.is_ipv6() => {
                failing(Errno::EAFNOSUPPORT, Rule::OtherFamily)
            }
            // To itself, or from an address that does not lead there: the kernel has an answer, the model none.
            Role::Bound if leads_to(&known.at, to.ip) && !self.reaches(known, to) => {
                self.predict_connect(known.at.host, to)
            }
            _ => silent(),
        }
    }

    fn reaches(&self, known: &Known, to: &Target) -> bool {
        let port = to.port.unwrap_or(self.port);
        self.packet(known.at.host, to).is_some_and(|packet| packet.at == known.at.host)
            && known.at.port == port
            && known.at.binding.covers(to.ip.to_canonical())
    }

    fn predict_connect(&self, from: Side, to: &Target) -> Foresight {
        let Some(packet) = self.packet(from, to) else { return silent() };
        let delivery = self.delivered(from, to);
        let Some(&place) = delivery.to.first() else {
            let is_home = packet.to.is_loopback() && packet.at == Side::Client;
            let rule = if is_home { Rule::LoopbackStaysHome } else { self.why_nobody(to) };
            return failing(Errno::ECONNREFUSED, rule);
        };
        let server = &self.sockets[place];
        match &server.role {
            Role::Listening { .. } if delivery.to.len() > 1 => (Some(Outcome::Connected), delivery.rule),
            Role::Listening { backlog, queue } => {
                let most =
                    self.setting(packet.at, "net.core.somaxconn").and_then(|text| text.parse().ok()).unwrap_or(4096);
                if queue.len() as u64 > u64::from((*backlog).min(most)) {
                    (Some(Outcome::Timeout), Rule::BacklogFull)
                } else {
                    (Some(Outcome::Connected), delivery.rule)
                }
            }
            _ if reply_source(&server.at.binding, &packet) == packet.to => (Some(Outcome::Reply), delivery.rule),
            _ => (Some(Outcome::ReplyLost), Rule::ReplyFromOtherAddress),
        }
    }

    /// Whether anybody is there is not asked: a datagram leaves, or what the peer said before is heard.
    fn predict_send(&self, known: &Known, to: Option<&Target>) -> Foresight {
        match (&known.role, to) {
            (Role::Connected(_), _) => (Some(Outcome::Ok), Rule::CallSucceeds),
            // What its peer's host said before may be heard now.
            (Role::Fixed(_), None) | (Role::Spent, _) => silent(),
            (_, None) if self.proto == Proto::Udp => failing(Errno::EDESTADDRREQ, Rule::NoPeer),
            (_, Some(to)) if self.proto == Proto::Udp && leads_to(&known.at, to.ip) => {
                (Some(Outcome::Ok), Rule::CallSucceeds)
            }
            (_, Some(_)) if self.proto == Proto::Udp => silent(),
            _ => failing(Errno::EPIPE, Rule::NoPeer),
        }
    }

    /// A socket that is bound and does not listen is worth a word.
    fn why_nobody(&self, to: &Target) -> Rule {
        let port = to.port.unwrap_or(self.port);
        let is_bound = |known: &Known| {
            known.role == Role::Bound && known.at.port == port && known.at.binding.covers(to.ip.to_canonical())
        };
        match self.proto {
            Proto::Tcp if self.sockets.iter().any(is_bound) => Rule::BoundNotListening,
            _ => Rule::NobodyListens,
        }
    }

    fn allows_non_local(&self, bind: &Bind) -> bool {
        let name = if bind.ip.is_ipv4() { "net.ipv4.ip_nonlocal_bind" } else { "net.ipv6.ip_nonlocal_bind" };
        bind.freebind || self.setting(bind.host, name) == Some("1")
    }

    fn unprivileged_port_start(&self, host: Side) -> u16 {
        let set = self.setting(host, "net.ipv4.ip_unprivileged_port_start");
        set.and_then(|text| text.parse().ok()).unwrap_or(UNPRIVILEGED)
    }
}

fn is_local(at: &Place) -> bool {
    let binding = &at.binding;
    if binding.is_wildcard() {
        return true;
    }
    match device_of(at.host, binding.ip) {
        // Loopback and link-local IPv6 addresses must be on that very device; all others may be on any, see
        // `ipv6_chk_addr`.
        Some(has_it) if binding.is_link_local() || binding.v6() == Some(Ipv6Addr::LOCALHOST) => {
            binding.device.as_deref().is_none_or(|device| device == has_it)
        }
        has_it => has_it.is_some(),
    }
}

/// Whether a datagram can leave from there for that address: of the same family, and from a loopback address only to
/// another one.
fn leads_to(from: &Place, to: IpAddr) -> bool {
    let (binding, to) = (&from.binding, to.to_canonical());
    let is_of_family = if to.is_ipv4() { binding.v4().is_some() } else { binding.v6().is_some() };
    let is_loopback = binding.ip.to_canonical().is_loopback();
    is_of_family
        && binding.device.is_none()
        && is_local(from)
        && (binding.is_wildcard() || is_loopback == to.is_loopback())
        && arrival(binding.proto, Dial { from: from.host, to }).is_some()
}

impl Known {
    fn predict_receive(&self, proto: Proto) -> Foresight {
        match (&self.role, self.inbox, self.peer_closed) {
            // A refusal may wait to be told.
            (Role::Spent, ..) | (Role::Fixed(_), 0, _) => silent(),
            (Role::Listening { .. } | Role::Bound, ..) if proto == Proto::Tcp => {
                failing(Errno::ENOTCONN, Rule::NothingWaits)
            }
            (_, 0, false) => (Some(Outcome::Timeout), Rule::NothingWaits),
            _ => (Some(Outcome::Ok), Rule::SomethingWaits),
        }
    }
}

fn said(decision: Decision) -> Foresight {
    (Some(decision.result.into()), decision.rule)
}

fn failing(errno: Errno, rule: Rule) -> Foresight {
    (Some(Outcome::Errno(errno)), rule)
}

fn silent() -> Foresight {
    (None, Rule::Unmodelled)
}
