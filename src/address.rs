//! An [`Address`] is one end of a conversation, as the kernel named it.
//!
//! It is what a handler sees in [`Peer`](crate::Peer), what a listener says it is bound to, and what a datagram is
//! sent to. What a person types, before any name is resolved, is an [`Endpoint`](crate::Endpoint) instead.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// One end of a conversation.
#[derive(Debug, Clone, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port, with the scope where it is a link-local one.
    Ip(SocketAddr),
    /// A socket in the file system; see unix(7).
    UnixPath(Arc<Path>),
    /// A name in Linux's abstract socket namespace, without the leading NUL; see unix(7).
    UnixAbstract(Arc<[u8]>),
    /// Any other name that a transport gives its ends: a memory name, a subject, a child process.
    Named(Arc<str>),
    /// An end without a name, as a Unix client that never bound has.
    Unnamed,
}

impl Address {
    /// The IP address and port, where this is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            _ => None,
        }
    }

    /// What the address belongs to: `IPv4`, `IPv6`, `IPv4-mapped` (an IPv4 peer on an IPv6 socket), `unix` or `named`.
    pub fn family(&self) -> &'static str {
        match self {
            Address::Ip(SocketAddr::V4(_)) => "IPv4",
            Address::Ip(SocketAddr::V6(address)) if address.ip().to_ipv4_mapped().is_some() => "IPv4-mapped",
            Address::Ip(SocketAddr::V6(_)) => "IPv6",
            Address::UnixPath(_) | Address::UnixAbstract(_) => "unix",
            Address::Named(_) | Address::Unnamed => "named",
        }
    }

    /// A name of that text.
    pub fn named(name: impl AsRef<str>) -> Self {
        Address::Named(Arc::from(name.as_ref()))
    }

    /// Whether it can be trusted to be the sender's own: it is no IP address, or a loopback, private (RFC 1918),
    /// unique-local (RFC 4193) or link-local one. Any other source of a datagram may be forged by anybody.
    pub fn is_local(&self) -> bool {
        match self.canonical_ip() {
            None => true,
            Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        }
    }

    /// Whether they are equal, whatever they are. Apart from [`eq`](Self::eq), so that that is small enough to be inlined.
    #[inline(never)]
    fn is_same(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }

    /// The IP address alone, an IPv4-mapped one as the IPv4 address that it is.
    pub fn canonical_ip(&self) -> Option<IpAddr> {
        self.ip().map(|address| address.ip().to_canonical())
    }
}

/// IPv4 addresses are compared in place: a datagram costs this several times.
impl PartialEq for Address {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Address::Ip(SocketAddr::V4(one)), Address::Ip(SocketAddr::V4(other))) => one == other,
            _ => self.is_same(other),
        }
    }
}

/// In as few words as tell addresses apart: a datagram costs this at least once.
impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Address::Ip(SocketAddr::V4(address)) => {
                state.write_u64(u64::from(address.ip().to_bits()) << 16 | u64::from(address.port()));
            }
            Address::Ip(SocketAddr::V6(address)) => {
                state.write_u128(address.ip().to_bits());
                state.write_u64(u64::from(address.scope_id()) << 16 | u64::from(address.port()));
            }
            Address::UnixPath(path) => path.hash(state),
            Address::UnixAbstract(name) => name.hash(state),
            Address::Named(name) => name.hash(state),
            Address::Unnamed => state.write_u64(u64::MAX),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

/// As an endpoint's authority is written: what is printed here can be typed again.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::UnixPath(path) => crate::escape::Escaped::new(path.as_os_str().as_encoded_bytes()).fmt(f),
            Address::UnixAbstract(name) => write!(f, "@{}", crate::escape::Escaped::new(name)),
            Address::Named(name) => crate::escape::Escaped::new(name.as_bytes()).fmt(f),
            Address::Unnamed => f.write_str("unnamed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_an_ipv4_peer_on_an_ipv6_socket_is_told_apart() {
        let family = |text: &str| Address::Ip(text.parse().unwrap()).family();
        assert_eq!(family("127.0.0.1:1"), "IPv4");
        assert_eq!(family("[::1]:1"), "IPv6");
        assert_eq!(family("[::ffff:127.0.0.1]:1"), "IPv4-mapped");
    }

    #[test]
    fn a_source_from_the_internet_is_told_from_a_local_one() {
        let local = |ip: &str| Address::Ip(SocketAddr::new(ip.parse().unwrap(), 1)).is_local();
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.0.1", true),
            ("169.254.1.1", true),
            ("100.64.0.1", false),
            ("198.51.100.1", false),
            ("::ffff:198.51.100.1", false),
            ("::1", true),
            ("fc00::1", true),
            ("fd12::1", true),
            ("fe80::1", true),
            ("fec0::1", false),
            ("2001:db8::1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            assert_eq!(local(ip), expected, "{ip}");
        }
        assert!(Address::Unnamed.is_local());
    }

    #[test]
    fn a_name_in_an_address_cannot_forge_a_line() {
        assert_eq!(Address::UnixAbstract(Arc::from(&b"a\nb"[..])).to_string(), "@a\\nb");
    }
}
