//! Who gets a packet, and what the one who sent it feels, on the lab's two hosts.
//!
//! Sources: `inet_lookup_listener` and `compute_score` (`net/ipv4/inet_hashtables.c`, net/ipv4/udp.c and their IPv6
//! siblings) for who is preferred; ip(7) and RFC 6724 for the address that routing picks; RFC 1122 section 3.3.4.2
//! for the weak host model, by which a packet may arrive on another device than the one that has its address.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::{Binding, Proto, Rule};
use crate::lab::outcome::Outcome;
use crate::lab::topology::{
    CLIENT_LINK_LOCAL, CLIENT_V4, CLIENT_V6, SERVER_LINK_LOCAL, SERVER_V4, SERVER_V4_FAR, SERVER_V6, SERVER_V6_SECOND,
    Side,
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

/// What a client feels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// How its call ends.
    pub outcome: Outcome,
    /// What decided.
    pub rule: Rule,
}

/// Where a call arrives. What a host sends to itself is seen on the device that has the address, although it travels
/// over lo (`ip_route_output_key_hash_rcu` and `ip6_rcv_core` say so); what comes over a cable is seen on the device
/// at its end, whoever has the address.
pub fn arrival(proto: Proto, dial: Dial) -> Packet {
    let to = dial.to.to_canonical();
    let (at, device) = match (dial.from, to) {
        (from, to) if to.is_loopback() => (from, "lo"),
        (Side::Server, IpAddr::V4(SERVER_V4_FAR)) => (Side::Server, "eth1"),
        _ => (Side::Server, "eth0"),
    };
    Packet { proto, at, device, source: routed_source(dial.from, to), to }
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

/// Who gets a packet, of the sockets on the host where it arrives, given in the order in which they were bound.
pub fn deliver(sockets: &[Binding], packet: &Packet) -> Delivery {
    let takes = |socket: &Binding| {
        let open = socket.listening || packet.proto == Proto::Udp;
        let on_device = socket.device.as_deref().is_none_or(|device| device == packet.device);
        socket.proto == packet.proto && open && on_device && socket.covers(packet.to)
    };
    let mut ranked: Vec<usize> = (0..sockets.len()).filter(|&place| takes(&sockets[place])).collect();
    ranked.sort_by(|&a, &b| rank(&sockets[b], packet).cmp(&rank(&sockets[a], packet)));
    let Some(&first) = ranked.first() else {
        return Delivery { to: Vec::new(), rule: Rule::NobodyListens };
    };
    let equals: Vec<usize> = ranked
        .iter()
        .copied()
        .filter(|&place| rank(&sockets[place], packet) == rank(&sockets[first], packet))
        .collect();
    if let [_, .., last] = equals[..] {
        return if sockets[last].reuse_port {
            let group = equals.into_iter().filter(|&place| sockets[place].reuse_port).collect();
            Delivery { to: group, rule: Rule::Spread }
        } else {
            Delivery { to: vec![last], rule: Rule::LastBound }
        };
    }
    let rule = match ranked.get(1) {
        None => Rule::OnlySocket,
        Some(&second) => what_decided(&sockets[first], &sockets[second], packet),
    };
    Delivery { to: vec![first], rule }
}

/// What the kernel prefers, in this order: the address over a wildcard, the device over any, `AF_INET` over `AF_INET6`.
/// For TCP, the last two count the same.
fn rank(socket: &Binding, packet: &Packet) -> (bool, u8) {
    let device = u8::from(socket.device.is_some());
    let inet = u8::from(socket.ip.is_ipv4());
    let score = match packet.proto {
        Proto::Tcp => device + inet,
        Proto::Udp => 4 * device + inet,
    };
    (!socket.is_wildcard(), score)
}

fn what_decided(first: &Binding, second: &Binding, packet: &Packet) -> Rule {
    let (one, two) = (rank(first, packet), rank(second, packet));
    match one.0.cmp(&two.0) {
        Ordering::Greater => Rule::SpecificFirst,
        _ if first.device.is_some() && second.device.is_none() => Rule::DeviceFirst,
        _ => Rule::InetFirst,
    }
}

/// What a client feels that dials a server with one socket, which echoes.
pub fn reach(socket: &Binding, dial: Dial) -> Reach {
    let packet = arrival(socket.proto, dial);
    let refused = |rule| Reach { outcome: Outcome::Errno(Errno::ECONNREFUSED), rule };
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
    use crate::lab::topology::SERVER_V4_SECOND;

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
        let packet = arrival(Proto::Udp, from_client(SERVER_V4));
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
