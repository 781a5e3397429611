//! Which sources may be answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{PoisonError, RwLock};

use super::Reason;
use crate::address::Address;

/// NFS answers from a port that is neither below 1024 nor chosen by the kernel.
const NFS: u16 = 2049;

/// Whether a datagram from `source`, which was sent to `to` as far as that is known, may be answered.
pub(super) fn check(source: SocketAddr, to: Option<SocketAddr>, ports_matter: bool) -> Result<(), Reason> {
    match source.port() {
        0 => return Err(Reason::PortZero),
        // Echo, chargen, daytime, DNS, NTP… answer from there, and clients take their ports from above (RFC 6056).
        1..1024 | NFS if ports_matter => return Err(Reason::ServicePort),
        _ => {}
    }
    // An IPv4 peer on an IPv6 socket is written ::ffff:a.b.c.d, and so is the address that it asked. Where only one of
    // them is written so, somebody else than the kernel wrote it.
    let to = to.map(|to| to.ip()).filter(|to| !to.is_unspecified());
    if to.is_some_and(|to| family(source.ip()) != family(to)) {
        return Err(Reason::FamilyMismatch);
    }
    let ip = source.ip().to_canonical();
    if !is_unicast(ip) {
        return Err(Reason::NotUnicast);
    }
    // Linux drops these itself unless `route_localnet` is set.
    if ip.is_loopback() && to.is_some_and(|to| !to.to_canonical().is_loopback()) {
        return Err(Reason::ForgedLoopback);
    }
    Ok(())
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !matches!(ip.octets()[0], 0 | 255),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    }
}

fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 4,
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => 46,
        IpAddr::V6(_) => 6,
    }
}

/// The addresses that this daemon answers at, shared by the guards of all its services: two of its own responders
/// must not be set upon each other.
#[derive(Debug, Default)]
pub(crate) struct OwnListeners(RwLock<Vec<Address>>);

impl OwnListeners {
    /// Says which listeners there are now: after a bind, after a reload.
    pub(crate) fn replace(&self, listeners: impl IntoIterator<Item = Address>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = listeners.into_iter().collect();
    }

    /// Whether the source of a datagram, which was sent to `to`, is one of them.
    pub(super) fn contains(&self, source: &Address, to: &Address) -> bool {
        let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match source {
            Address::Unnamed => false,
            Address::Ip(source) => listeners
                .iter()
                .filter_map(Address::ip)
                .any(|own| own.port() == source.port() && is_reached_at(own.ip(), source.ip(), to)),
            other => listeners.contains(other),
        }
    }
}

/// Whether a listener bound to `own` could have sent from `source`. One bound to all addresses sends from each address
/// of this host: any loopback address, and the one that the datagram in question was sent to. That this host may have
/// more addresses does not matter: what is sent between two of them is limited like any stranger's.
///
/// A datagram's port is seldom that of a listener, and this is not inlined lest the compiler prepares for it each time.
#[inline(never)]
fn is_reached_at(own: IpAddr, source: IpAddr, to: &Address) -> bool {
    let (own, source) = (own.to_canonical(), source.to_canonical());
    if !own.is_unspecified() {
        return own == source;
    }
    let covered = match own {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => source.is_ipv4(),
        // `::` covers both families, unless it was told otherwise; then IPv4 sources merely have one port less.
        _ => true,
    };
    covered && (source.is_loopback() || Some(source) == to.canonical_ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_that_is_no_client_is_not_answered() {
        use Reason::{FamilyMismatch, ForgedLoopback, NotUnicast, PortZero, ServicePort};
        const V4: &str = "198.51.100.1:8080";
        const V6: &str = "[2001:db8::1]:8080";
        const MAPPED: &str = "[::ffff:198.51.100.1]:8080";
        for (source, to, expected) in [
            ("203.0.113.9:40000", V4, Ok(())),
            ("203.0.113.9:1024", V4, Ok(())),
            ("203.0.113.9:65535", V4, Ok(())),
            ("[2001:db8::9]:40000", V6, Ok(())),
            ("[::ffff:203.0.113.9]:40000", MAPPED, Ok(())),
            ("203.0.113.9:0", V4, Err(PortZero)),
            ("203.0.113.9:1", V4, Err(ServicePort)),
            ("203.0.113.9:7", V4, Err(ServicePort)),
            ("203.0.113.9:1023", V4, Err(ServicePort)),
            ("203.0.113.9:2049", V4, Err(ServicePort)),
            ("[2001:db8::9]:53", V6, Err(ServicePort)),
            ("224.0.0.1:40000", V4, Err(NotUnicast)),
            ("239.255.255.255:40000", V4, Err(NotUnicast)),
            ("255.255.255.255:40000", V4, Err(NotUnicast)),
            ("255.0.0.1:40000", V4, Err(NotUnicast)),
            ("0.0.0.0:40000", V4, Err(NotUnicast)),
            ("0.1.2.3:40000", V4, Err(NotUnicast)),
            ("[ff02::1]:40000", V6, Err(NotUnicast)),
            ("[::]:40000", V6, Err(NotUnicast)),
            ("[::ffff:224.0.0.1]:40000", MAPPED, Err(NotUnicast)),
            ("[::ffff:203.0.113.9]:40000", V4, Err(FamilyMismatch)),
            ("[::ffff:203.0.113.9]:40000", V6, Err(FamilyMismatch)),
            ("203.0.113.9:40000", V6, Err(FamilyMismatch)),
            ("127.0.0.1:40000", "127.0.0.1:8080", Ok(())),
            ("127.0.0.1:40000", "127.0.0.2:8080", Ok(())),
            ("127.0.0.1:40000", V4, Err(ForgedLoopback)),
            ("127.1.2.3:40000", V4, Err(ForgedLoopback)),
            ("[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:8080", Ok(())),
            ("[::ffff:127.0.0.1]:40000", MAPPED, Err(ForgedLoopback)),
            ("[::1]:40000", "[::1]:8080", Ok(())),
            ("[::1]:40000", V6, Err(ForgedLoopback)),
            // A transport that cannot tell where a datagram was sent to.
            ("127.0.0.1:40000", "0.0.0.0:8080", Ok(())),
            ("[::ffff:203.0.113.9]:40000", "[::]:8080", Ok(())),
        ] {
            assert_eq!(check(at(source), Some(at(to)), true), expected, "{source} to {to}");
        }
    }

    #[test]
    fn the_port_rule_alone_can_be_switched_off() {
        let to = Some(at("198.51.100.1:8080"));
        assert_eq!(check(at("203.0.113.9:53"), to, false), Ok(()));
        assert_eq!(check(at("203.0.113.9:2049"), to, false), Ok(()));
        assert_eq!(check(at("203.0.113.9:0"), to, false), Err(Reason::PortZero));
        assert_eq!(check(at("224.0.0.1:53"), to, false), Err(Reason::NotUnicast));
    }

    #[test]
    fn a_listener_of_our_own_is_known_by_every_address_that_it_sends_from() {
        for (own, source, to, expected) in [
            ("127.0.0.1:40001", "127.0.0.1:40001", "127.0.0.1:40002", true),
            ("127.0.0.1:40001", "127.0.0.1:40003", "127.0.0.1:40002", false),
            ("127.0.0.1:40001", "127.0.0.2:40001", "127.0.0.1:40002", false),
            ("127.0.0.1:40001", "[::ffff:127.0.0.1]:40001", "[::ffff:127.0.0.1]:40002", true),
            ("0.0.0.0:40001", "127.0.0.2:40001", "127.0.0.1:40002", true),
            ("0.0.0.0:40001", "198.51.100.1:40001", "198.51.100.1:40002", true),
            ("0.0.0.0:40001", "203.0.113.9:40001", "198.51.100.1:40002", false),
            ("0.0.0.0:40001", "[::1]:40001", "[::1]:40002", false),
            ("[::]:40001", "[::1]:40001", "[::1]:40002", true),
            ("[::]:40001", "[2001:db8::1]:40001", "[2001:db8::1]:40002", true),
            ("[::]:40001", "[::ffff:198.51.100.1]:40001", "[::ffff:198.51.100.1]:40002", true),
            ("[::]:40001", "[2001:db8::9]:40001", "[2001:db8::1]:40002", false),
        ] {
            let listeners = OwnListeners::default();
            listeners.replace([Address::Ip(at(own))]);
            let contains = listeners.contains(&Address::Ip(at(source)), &Address::Ip(at(to)));
            assert_eq!(contains, expected, "{source} to {to} while {own} is ours");
        }
    }

    #[test]
    fn a_listener_that_is_gone_is_no_longer_our_own() {
        let listeners = OwnListeners::default();
        let own = Address::Ip(at("127.0.0.1:40001"));
        listeners.replace([own.clone()]);
        assert!(listeners.contains(&own, &own));
        listeners.replace([]);
        assert!(!listeners.contains(&own, &own));
    }
}
