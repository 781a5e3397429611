//! A [`Binding`]: a socket and its address, as far as the rules look at it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The protocol of a socket. The same port of two protocols is two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// `SOCK_STREAM`.
    Tcp,
    /// `SOCK_DGRAM`.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        })
    }
}

/// A socket that is bound, or about to be. All bindings that are compared are meant to be on one port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are what the kernel keeps for a socket, independent of each other"
)]
pub struct Binding {
    /// The protocol.
    pub proto: Proto,
    /// The address; its family is the socket's.
    pub ip: IpAddr,
    /// `IPV6_V6ONLY`: no IPv4 on this socket. Without a meaning on an IPv4 socket.
    pub v6_only: bool,
    /// `SO_BINDTODEVICE`, or the scope of a link-local address.
    pub device: Option<String>,
    /// `SO_REUSEADDR`, as it stands when a rule looks.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`, likewise.
    pub reuse_port: bool,
    /// Whether it is in LISTEN; never on UDP.
    pub listening: bool,
    /// The user whose socket it is.
    pub user: u32,
}

impl Binding {
    /// A socket without options.
    pub fn new(proto: Proto, ip: impl Into<IpAddr>) -> Self {
        Binding {
            proto,
            ip: ip.into(),
            v6_only: false,
            device: None,
            reuse_addr: false,
            reuse_port: false,
            listening: false,
            user: 0,
        }
    }

    /// The same, with `IPV6_V6ONLY`.
    #[must_use]
    pub fn v6_only(self) -> Self {
        Binding { v6_only: true, ..self }
    }

    /// The same, on a device.
    #[must_use]
    pub fn on(self, device: &str) -> Self {
        Binding { device: Some(device.to_owned()), ..self }
    }

    /// The same, with reuse options.
    #[must_use]
    pub fn reusing(self, addr: bool, port: bool) -> Self {
        Binding { reuse_addr: addr, reuse_port: port, ..self }
    }

    /// The same, in LISTEN.
    #[must_use]
    pub fn listening(self) -> Self {
        Binding { listening: true, ..self }
    }

    /// Whether its address is link-local (`fe80::/10`), which has a meaning only on a device.
    pub fn is_link_local(&self) -> bool {
        matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }

    /// Whether it is bound to every address of a family.
    pub fn is_wildcard(&self) -> bool {
        self.ip.is_unspecified() || self.v4() == Some(Ipv4Addr::UNSPECIFIED)
    }

    /// The IPv4 address that it takes in, `0.0.0.0` for all of them, `None` where it takes in none.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        match self.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(mapped) => Some(mapped),
                None if ip.is_unspecified() && !self.v6_only => Some(Ipv4Addr::UNSPECIFIED),
                None => None,
            },
        }
    }

    /// The IPv6 address that it takes in, `::` for all of them, `None` where it takes in none.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        match self.ip {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none() => Some(ip),
            _ => None,
        }
    }

    /// Whether it takes in packets to that address.
    pub fn covers(&self, to: IpAddr) -> bool {
        match to.to_canonical() {
            IpAddr::V4(to) => self.v4().is_some_and(|ip| ip.is_unspecified() || ip == to),
            IpAddr::V6(to) => self.v6().is_some_and(|ip| ip.is_unspecified() || ip == to),
        }
    }

    /// Whether two sockets may meet on a device: they are apart only if each is bound to another one.
    pub fn shares_device(&self, other: &Binding) -> bool {
        match (&self.device, &other.device) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        }
    }
}

/// As a person would say it: `[::] v6-only`, `0.0.0.0%eth0`.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        if let Some(device) = &self.device {
            write!(f, "%{device}")?;
        }
        match self.ip {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) if self.v6_only => f.write_str(" v6-only"),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => f.write_str(" dual"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dual_stack_wildcard_and_mapped_addresses_take_in_ipv4_on_an_ipv6_socket() {
        let v4 = |text: &str, v6_only| {
            Binding { v6_only, ..Binding::new(Proto::Tcp, text.parse::<IpAddr>().unwrap()) }
                .v4()
                .map(|ip| ip.to_string())
        };
        assert_eq!(v4("::", false).as_deref(), Some("0.0.0.0"));
        assert_eq!(v4("::", true), None);
        assert_eq!(v4("::1", false), None);
        assert_eq!(v4("::ffff:127.0.0.1", false).as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn a_mapped_wildcard_takes_in_all_of_ipv4_and_no_ipv6() {
        let mapped = Binding::new(Proto::Udp, "::ffff:0.0.0.0".parse::<IpAddr>().unwrap());
        assert!(mapped.is_wildcard());
        assert!(mapped.covers(Ipv4Addr::LOCALHOST.into()));
        assert!(!mapped.covers(Ipv6Addr::LOCALHOST.into()));
    }
}
