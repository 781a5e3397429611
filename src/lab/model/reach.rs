//! Who gets a packet, and what the one who sent it feels, on the lab's two hosts.
//!
//! Sources: `inet_lookup_listener` and `compute_score` (`net/ipv4/inet_hashtables.c`, net/ipv4/udp.c and their IPv6
//! siblings) for who is preferred; ip(7) and RFC 6724 for the address that routing picks; RFC 1122 section 3.3.4.2
//! for the weak host model, by which a packet may arrive on another device than the one that has its address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::{Binding, Proto, Rule};
use crate::lab::outcome::Outcome;
use crate::lab::topology::{
    CLIENT_LINK_LOCAL, CLIENT_V4, CLIENT_V6, SERVER_LINK_LOCAL, SERVER_V4, SERVER_V4_FAR, SERVER_V4_SECOND, SERVER_V6,
    SERVER_V6_SECOND, Side,
};

/// A call from a host of the lab to an address; link-local ones are meant on eth0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dial {
    /// Who dials.
    pub from: Side,
    /// What is dialled.
    pub to: IpAddr,
}

/// What arrives, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The protocol.
    pub proto: Proto,
    /// The host where it arrives.
    pub at: Side,
    /// The device on which the sockets there see it.
    pub device: &'static str,
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub to: IpAddr,
}

/// Which of several sockets gets a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The places of those who may get it, in the order given: none, one, or the members of a group.
    pub to: Vec<usize>,
    /// What decided.
    pub rule: Rule,
}

impl Delivery {
    /// To no socket at all.
    pub fn to_nobody() -> Self {
        Delivery { to: Vec::new(), rule: Rule::NobodyListens }
    }
}

/// What a client feels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// How its call ends.
    pub outcome: Outcome,
    /// What decided.
    pub rule: Rule,
}

/// Where a call arrives; `None` for an address that neither host has. What a host sends to itself is seen on the
/// device that has the address, although it travels over lo (`ip_route_output_key_hash_rcu` and `ip6_rcv_core` say
/// so); what comes over a cable is seen on the device at its end, whoever has the address. A wildcard that is dialled
/// means the loopback.
pub fn arrival(proto: Proto, dial: Dial) -> Option<Packet> {
    let to = match dial.to.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        to => to,
    };
    let other = if dial.from == Side::Server { Side::Client } else { Side::Server };
    let (at, device) = match (device_of(dial.from, to), device_of(other, to)) {
        (Some(own), _) => (dial.from, own),
        (None, Some(_)) => (other, "eth0"),
        (None, None) => return None,
    };
    Some(Packet { proto, at, device, source: routed_source(dial.from, to), to })
}

/// The device of a host that has an address.
pub fn device_of(host: Side, ip: IpAddr) -> Option<&'static str> {
    let on_eth0: &[IpAddr] = match host {
        Side::Server => &[
            IpAddr::V4(SERVER_V4),
            IpAddr::V4(SERVER_V4_SECOND),
            IpAddr::V6(SERVER_V6),
            IpAddr::V6(SERVER_V6_SECOND),
            IpAddr::V6(SERVER_LINK_LOCAL),
        ],
        Side::Client => &[IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6), IpAddr::V6(CLIENT_LINK_LOCAL)],
    };
    match ip.to_canonical() {
        ip if ip.is_loopback() => Some("lo"),
        IpAddr::V4(SERVER_V4_FAR) if host == Side::Server => Some("eth1"),
        ip => on_eth0.contains(&ip).then_some("eth0"),
    }
}

/// The address from which a host sends to another if nobody says otherwise.
fn routed_source(host: Side, to: IpAddr) -> IpAddr {
    match (host, to) {
        (_, IpAddr::V4(to)) if to.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        (_, IpAddr::V6(Ipv6Addr::LOCALHOST)) => to,
        (Side::Server, IpAddr::V4(to)) if to.octets()[..3] == SERVER_V4_FAR.octets()[..3] => SERVER_V4_FAR.into(),
        (Side::Server, IpAddr::V4(_)) => SERVER_V4.into(),
        // To itself, a host speaks from the address that it speaks to (RFC 6724, rule 1).
        (Side::Server, IpAddr::V6(to)) if to == SERVER_V6_SECOND => to.into(),
        (Side::Server, IpAddr::V6(to)) if to.is_unicast_link_local() => SERVER_LINK_LOCAL.into(),
        (Side::Server, IpAddr::V6(_)) => SERVER_V6.into(),
        (Side::Client, IpAddr::V4(_)) => CLIENT_V4.into(),
        (Side::Client, IpAddr::V6(to)) if to.is_unicast_link_local() => CLIENT_LINK_LOCAL.into(),
        (Side::Client, IpAddr::V6(_)) => CLIENT_V6.into(),
    }
}

/// The address from which a UDP server's answer to a packet comes, if it does not use `IP_PKTINFO`.
pub fn reply_source(socket: &Binding, packet: &Packet) -> IpAddr {
    if socket.is_wildcard() { routed_source(packet.at, packet.source) } else { socket.ip.to_canonical() }
}

/// Who gets a packet, of the sockets on the host where it arrives, given in the order in which they were bound (TCP:
/// in which they began to listen).
///
/// This is the kernel's own search: first among the sockets bound to the address, then among the wildcards; the best
/// score wins, the first met among equals; but a socket with `SO_REUSEPORT` ends the search as soon as it is the best
/// so far, and the hash of the flow chooses among its group.
pub fn deliver(sockets: &[Binding], packet: &Packet) -> Delivery {
    let takes = |socket: &Binding| {
        let open = socket.listening || packet.proto == Proto::Udp;
        let on_device = socket.device.as_deref().is_none_or(|device| device == packet.device);
        socket.proto == packet.proto && open && on_device && socket.covers(packet.to)
    };
    let all: Vec<usize> = (0..sockets.len()).filter(|&place| takes(&sockets[place])).collect();
    let (wildcards, specific): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&place| sockets[place].is_wildcard());
    let rivals = if specific.is_empty() { &wildcards } else { &specific };
    let mut best: Option<usize> = None;
    for place in in_order_met(sockets, rivals) {
        if best.is_none_or(|best| score(&sockets[place]) > score(&sockets[best])) {
            best = Some(place);
            if sockets[place].reuse_port {
                break;
            }
        }
    }
    let Some(best) = best else { return Delivery::to_nobody() };
    let group: Vec<usize> = (0..sockets.len()).filter(|&one| is_one_group(&sockets[best], &sockets[one])).collect();
    if group.len() > 1 {
        return Delivery { to: group, rule: Rule::Spread };
    }
    let second = rivals.iter().chain(&wildcards).find(|&&place| place != best);
    let rule = second.map_or(Rule::OnlySocket, |&second| what_decided(&sockets[best], &sockets[second]));
    Delivery { to: vec![best], rule }
}

/// The newest first; but IPv6 sockets with `SO_REUSEPORT` go to the end of the kernel's list, the oldest first.
fn in_order_met(sockets: &[Binding], places: &[usize]) -> impl Iterator<Item = usize> {
    let at_end = |place: &usize| sockets[*place].reuse_port && sockets[*place].ip.is_ipv6();
    let (end, front): (Vec<usize>, Vec<usize>) = places.iter().partition(|place| at_end(place));
    front.into_iter().rev().chain(end)
}

/// A device counts more than the family.
fn score(socket: &Binding) -> (bool, bool) {
    (socket.device.is_some(), socket.ip.is_ipv4())
}

fn what_decided(best: &Binding, second: &Binding) -> Rule {
    match () {
        () if best.is_wildcard() != second.is_wildcard() => Rule::SpecificFirst,
        () if best.reuse_port && second.reuse_port && best.ip.is_ipv4() == second.ip.is_ipv4() => Rule::FirstMet,
        () if best.device.is_some() && second.device.is_none() => Rule::DeviceFirst,
        () if best.ip.is_ipv4() && second.ip.is_ipv6() => Rule::InetFirst,
        () => Rule::LastBound,
    }
}

/// Whether two sockets are in one `SO_REUSEPORT` group.
fn is_one_group(one: &Binding, two: &Binding) -> bool {
    let both = |of: fn(&Binding) -> bool| of(one) && of(two);
    one.proto == two.proto
        && one.ip == two.ip
        && one.v6_only == two.v6_only
        && one.user == two.user
        && one.device == two.device
        && both(|socket| socket.reuse_port)
        && both(|socket| socket.listening || socket.proto == Proto::Udp)
}

/// What a client feels that dials a server with one socket, which echoes.
pub fn reach(socket: &Binding, dial: Dial) -> Reach {
    let refused = |rule| Reach { outcome: Outcome::Errno(Errno::ECONNREFUSED), rule };
    let Some(packet) = arrival(socket.proto, dial) else {
        return Reach { outcome: Outcome::Timeout, rule: Rule::NobodyHas };
    };
    if packet.at != Side::Server {
        return refused(Rule::LoopbackStaysHome);
    }
    let delivery = deliver(std::slice::from_ref(socket), &packet);
    if delivery.to.is_empty() {
        return refused(why_not(socket, &packet));
    }
    let rule = match (packet.to, socket.ip) {
        (IpAddr::V4(_), IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Rule::DualStack,
        (IpAddr::V4(_), IpAddr::V6(_)) => Rule::Mapped,
        _ if socket.is_wildcard() => Rule::Wildcard,
        _ => Rule::Mine,
    };
    match socket.proto {
        Proto::Tcp => Reach { outcome: Outcome::Connected, rule },
        Proto::Udp if reply_source(socket, &packet) == packet.to => Reach { outcome: Outcome::Reply, rule },
        Proto::Udp => Reach { outcome: Outcome::ReplyLost, rule: Rule::ReplyFromOtherAddress },
    }
}

fn why_not(socket: &Binding, packet: &Packet) -> Rule {
    let has_family = if packet.to.is_ipv4() { socket.v4().is_some() } else { socket.v6().is_some() };
    match () {
        () if !has_family => Rule::OtherFamily,
        () if !socket.covers(packet.to) => Rule::OtherAddress,
        () if socket.device.as_deref().is_some_and(|device| device != packet.device) => Rule::ArrivesElsewhere,
        () => Rule::BoundNotListening,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(ip: impl Into<IpAddr>) -> Binding {
        Binding::new(Proto::Udp, ip)
    }

    fn from_client(to: impl Into<IpAddr>) -> Dial {
        Dial { from: Side::Client, to: to.into() }
    }

    #[test]
    fn a_wildcard_loses_the_replies_to_a_second_address() {
        let felt = reach(&udp(Ipv4Addr::UNSPECIFIED), from_client(SERVER_V4_SECOND));
        assert_eq!(felt, Reach { outcome: Outcome::ReplyLost, rule: Rule::ReplyFromOtherAddress });
        let felt = reach(&udp(SERVER_V4_SECOND), from_client(SERVER_V4_SECOND));
        assert_eq!(felt, Reach { outcome: Outcome::Reply, rule: Rule::Mine });
    }

    #[test]
    fn a_loopback_address_dialled_from_elsewhere_never_leaves() {
        let felt = reach(&udp(Ipv4Addr::LOCALHOST), from_client(Ipv4Addr::LOCALHOST));
        assert_eq!(felt.rule, Rule::LoopbackStaysHome);
    }

    #[test]
    fn a_device_means_where_the_packet_arrives_and_not_who_has_the_address() {
        let felt = reach(&udp(Ipv4Addr::UNSPECIFIED).on("eth1"), from_client(SERVER_V4_FAR));
        assert_eq!(felt.rule, Rule::ArrivesElsewhere);
    }

    #[test]
    fn the_preferences_are_address_then_device_then_family() {
        let packet = arrival(Proto::Udp, from_client(SERVER_V4)).unwrap();
        let specific = udp(SERVER_V4);
        let any = udp(Ipv4Addr::UNSPECIFIED);
        let dual = udp(Ipv6Addr::UNSPECIFIED);
        let device = udp(Ipv6Addr::UNSPECIFIED).on("eth0");
        for (sockets, expected) in [
            (vec![any.clone(), specific, dual.clone()], (vec![1], Rule::SpecificFirst)),
            (vec![any.clone(), device], (vec![1], Rule::DeviceFirst)),
            (vec![dual.clone(), any.clone()], (vec![1], Rule::InetFirst)),
            (vec![any.clone(), any.clone()], (vec![1], Rule::LastBound)),
            (vec![dual], (vec![0], Rule::OnlySocket)),
            (vec![any.clone().reusing(false, true), any.reusing(false, true)], (vec![0, 1], Rule::Spread)),
            (vec![], (vec![], Rule::NobodyListens)),
        ] {
            let delivery = deliver(&sockets, &packet);
            assert_eq!((delivery.to, delivery.rule), expected, "{sockets:?}");
        }
    }
}
