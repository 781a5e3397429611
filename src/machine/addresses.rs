//! The addresses of this machine, and under which of them a listener is reached.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::Serialize;

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// The interface's index where the address means nothing without it (link-local IPv6, RFC 4007); else 0.
    pub scope: u32,
    /// Whether the interface is up.
    pub up: bool,
}

impl LocalAddress {
    /// Whether only this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        self.ip.is_loopback()
    }
}

/// As an endpoint's address is written, without the port: an IPv6 one with its interface where it needs one.
impl std::fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.scope {
            0 => self.ip.fmt(f),
            _ => write!(f, "{}%{}", self.ip, self.interface),
        }
    }
}

/// Where a listener is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reachable {
    /// The address to dial.
    pub address: SocketAddr,
    /// The interface that has it.
    pub interface: String,
    /// Whether other hosts reach it, as far as routes and filters let them; else this machine alone.
    pub from_others: bool,
}

/// All addresses of all interfaces, in the kernel's order.
pub fn local_addresses() -> io::Result<Vec<LocalAddress>> {
    let mut found = Vec::new();
    for interface in getifaddrs()? {
        let Some(address) = interface.address else { continue };
        let (ip, scope) = if let Some(v4) = address.as_sockaddr_in() {
            (IpAddr::V4(v4.ip()), 0)
        } else if let Some(v6) = address.as_sockaddr_in6() {
            (IpAddr::V6(v6.ip()), if v6.ip().is_unicast_link_local() { v6.scope_id() } else { 0 })
        } else {
            continue;
        };
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        found.push(LocalAddress { interface: interface.interface_name, ip, scope, up });
    }
    Ok(found)
}

/// Whether an address belongs to this machine: one of its interfaces has it, or it is in 127.0.0.0/8, all of which the
/// loopback interface answers for.
pub fn is_local(ip: IpAddr, addresses: &[LocalAddress]) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || addresses.iter().any(|local| local.ip == ip)
}

/// Under which addresses a listener is reached that is bound to `bound`; `v6_only` matters for `::` alone.
pub fn reachable(bound: SocketAddr, v6_only: bool, addresses: &[LocalAddress]) -> Vec<Reachable> {
    let ip = bound.ip().to_canonical();
    let covered = |local: &LocalAddress| match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => local.ip.is_ipv4(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => local.ip.is_ipv6() || !v6_only,
        specific => local.ip == specific,
    };
    let dialled = |local: &LocalAddress| {
        let mut address = SocketAddr::new(local.ip, bound.port());
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_scope_id(local.scope);
        }
        Reachable { address, interface: local.interface.clone(), from_others: !local.is_loopback() }
    };
    let found: Vec<_> = addresses.iter().filter(|local| local.up && covered(local)).map(dialled).collect();
    if found.is_empty() && ip.is_loopback() {
        // Any other address of 127.0.0.0/8, which no interface lists.
        return vec![Reachable { address: bound, interface: "lo".to_owned(), from_others: false }];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Vec<LocalAddress> {
        let local = |interface: &str, ip: &str, scope, up| LocalAddress {
            interface: interface.into(),
            ip: ip.parse().unwrap(),
            scope,
            up,
        };
        vec![
            local("lo", "127.0.0.1", 0, true),
            local("eth0", "192.0.2.1", 0, true),
            local("eth1", "198.51.100.1", 0, false),
            local("lo", "::1", 0, true),
            local("eth0", "2001:db8::1", 0, true),
            local("eth0", "fe80::1", 2, true),
        ]
    }

    fn dialled(bound: &str, v6_only: bool) -> Vec<String> {
        let reached = reachable(bound.parse().unwrap(), v6_only, &addresses());
        reached.iter().map(|r| format!("{}{}", r.address, if r.from_others { " others" } else { "" })).collect()
    }

    #[test]
    fn a_wildcard_is_reached_under_every_address_of_its_families() {
        assert_eq!(dialled("0.0.0.0:80", false), ["127.0.0.1:80", "192.0.2.1:80 others"]);
        let v6 = ["[::1]:80", "[2001:db8::1]:80 others", "[fe80::1%2]:80 others"];
        assert_eq!(dialled("[::]:80", true), v6);
        assert_eq!(dialled("[::]:80", false), [&["127.0.0.1:80", "192.0.2.1:80 others"][..], &v6].concat());
    }

    #[test]
    fn a_specific_address_is_reached_under_itself_alone() {
        assert_eq!(dialled("192.0.2.1:80", false), ["192.0.2.1:80 others"]);
        assert_eq!(dialled("[::ffff:127.0.0.1]:80", false), ["127.0.0.1:80"]);
        assert_eq!(dialled("127.0.0.2:80", false), ["127.0.0.2:80"]);
        assert_eq!(dialled("203.0.113.9:80", false), [""; 0]);
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        let addresses = local_addresses().unwrap();
        assert!(addresses.iter().any(LocalAddress::is_loopback), "{addresses:?}");
        assert!(is_local("127.0.0.9".parse().unwrap(), &addresses));
        assert!(!is_local("192.0.2.77".parse().unwrap(), &addresses));
    }
}
