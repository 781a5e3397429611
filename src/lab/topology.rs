//! The two hosts of the lab, and the cables between them.
//!
//! ```text
//!   server                                      client
//!   lo    127.0.0.1/8, ::1                      lo    127.0.0.1/8, ::1
//!   eth0  198.51.100.1/24, .2  ══════════════  eth0  198.51.100.100/24
//!         2001:db8:1::1/64, ::2                       2001:db8:1::100/64
//!         fe80::1                                     fe80::100
//!   eth1  203.0.113.1/24       ══════════════  eth1  no address
//!                                               203.0.113.0/24 via 198.51.100.1
//! ```
//!
//! All addresses are for documentation (RFC 5737, RFC 3849), so that nobody takes them for their own.
//!
//! ```no_run
//! use greetd::lab::{Topology, topology::SERVER_V4};
//! use std::net::{TcpListener, TcpStream};
//!
//! greetd::lab::isolation::enter()?; // before other threads exist, unless this is root
//! let lab = Topology::new()?;
//! let listener = lab.server().run(|| TcpListener::bind((SERVER_V4, 80)))?;
//! let stream = lab.client().run(|| TcpStream::connect((SERVER_V4, 80)))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host::Host;
use super::isolation::Unavailable;
use super::netlink::{self, Step, Via};

/// The server's first IPv4 address, on eth0.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The server's second IPv4 address, on eth0.
pub const SERVER_V4_SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The server's IPv4 address on eth1, which the client reaches over eth0.
pub const SERVER_V4_FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server's first IPv6 address, on eth0.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The server's second IPv6 address, on eth0.
pub const SERVER_V6_SECOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The server's link-local address, on eth0.
pub const SERVER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The client's IPv4 address, on eth0.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
/// The client's IPv6 address, on eth0.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100);
/// The client's link-local address, on eth0.
pub const CLIENT_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100);

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The host that listens.
    Server,
    /// The other one.
    Client,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Server => "server",
            Side::Client => "client",
        })
    }
}

/// The two hosts, joined.
#[derive(Debug)]
pub struct Topology {
    server: Host,
    client: Host,
    unset: Vec<String>,
}

/// Why the two hosts could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// No namespace is allowed.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The namespaces are there, and could not be furnished.
    #[error("the lab's network could not be set up: {0}")]
    Setup(#[from] io::Error),
}

/// What makes results steady: no limit on ICMP errors, no wait before an address is used, no address that makes
/// itself, and nothing inherited from the machine.
const STEADY: [(&str, &str); 12] = [
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.arp_ignore", "0"),
    ("net.ipv4.conf.default.arp_ignore", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
];

impl Topology {
    /// Makes the hosts. Takes a few milliseconds.
    ///
    /// # Errors
    /// [`TopologyError::Unavailable`] where this process may not have namespaces, with what would allow it.
    pub fn new() -> Result<Self, TopologyError> {
        let (server, client) = (Host::isolated("server")?, Host::isolated("client")?);
        let mut unset = Vec::new();
        for host in [&server, &client] {
            for (name, value) in STEADY {
                // A container may mount /proc/sys read-only: the lab still works, and says what may flicker.
                if let Err(error) = host.sysctl(name, value) {
                    unset.push(format!("{}: {error}", host.name()));
                }
            }
        }
        netlink::join(&server, &client, "eth0")?;
        netlink::join(&server, &client, "eth1")?;
        let on_eth0 = |ip: IpAddr, prefix| Step::Address("eth0", ip, prefix);
        netlink::set_up(
            &server,
            vec![
                Step::Up("lo"),
                Step::Up("eth0"),
                Step::Up("eth1"),
                on_eth0(SERVER_V4.into(), 24),
                on_eth0(SERVER_V4_SECOND.into(), 24),
                // Among equals, Linux answers from the IPv6 address that was added last: the first one comes last.
                on_eth0(SERVER_V6_SECOND.into(), 64),
                on_eth0(SERVER_V6.into(), 64),
                on_eth0(SERVER_LINK_LOCAL.into(), 64),
                Step::Address("eth1", SERVER_V4_FAR.into(), 24),
            ],
        )?;
        netlink::set_up(
            &client,
            vec![
                Step::Up("lo"),
                Step::Up("eth0"),
                Step::Up("eth1"),
                on_eth0(CLIENT_V4.into(), 24),
                on_eth0(CLIENT_V6.into(), 64),
                on_eth0(CLIENT_LINK_LOCAL.into(), 64),
                Step::Route(Ipv4Addr::new(203, 0, 113, 0).into(), 24, Via::Gateway(SERVER_V4.into())),
                Step::WaitUp("eth0"),
                Step::WaitUp("eth1"),
                Step::WaitUsable(CLIENT_V6),
                Step::WaitUsable(CLIENT_LINK_LOCAL),
            ],
        )?;
        netlink::set_up(
            &server,
            vec![
                Step::WaitUp("eth0"),
                Step::WaitUp("eth1"),
                Step::WaitUsable(SERVER_V6),
                Step::WaitUsable(SERVER_V6_SECOND),
                Step::WaitUsable(SERVER_LINK_LOCAL),
            ],
        )?;
        Ok(Topology { server, client, unset })
    }

    /// The host that has the addresses `SERVER_…`.
    pub fn server(&self) -> &Host {
        &self.server
    }

    /// The host that has the addresses `CLIENT_…`.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The host of that side.
    pub fn host(&self, side: Side) -> &Host {
        match side {
            Side::Server => &self.server,
            Side::Client => &self.client,
        }
    }

    /// The sysctls that could not be set, each with the reason. Where there are any, results may flicker.
    pub fn unset(&self) -> &[String] {
        &self.unset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
    use std::panic::AssertUnwindSafe;

    /// The topology, or `None` with a word about what the test leaves out.
    fn topology() -> Option<Topology> {
        crate::lab::testing::topology()
    }

    #[test]
    fn the_client_reaches_every_address_of_the_server_that_is_not_its_loopback() {
        let Some(lab) = topology() else { return };
        let eth0 = lab.client().run(|| nix::net::if_::if_nametoindex("eth0").unwrap());
        for ip in [
            IpAddr::from(SERVER_V4),
            SERVER_V4_SECOND.into(),
            SERVER_V4_FAR.into(),
            SERVER_V6.into(),
            SERVER_V6_SECOND.into(),
            SERVER_LINK_LOCAL.into(),
        ] {
            let listener = lab.server().run(|| TcpListener::bind("[::]:0").unwrap());
            let port = listener.local_addr().unwrap().port();
            let to = match ip {
                IpAddr::V6(SERVER_LINK_LOCAL) => SocketAddrV6::new(SERVER_LINK_LOCAL, port, 0, eth0).into(),
                ip => SocketAddr::new(ip, port),
            };
            let stream = lab.client().run(move || TcpStream::connect(to));
            assert!(stream.is_ok(), "{to}: {stream:?}");
            assert_eq!(sent_again(lab.client()), 0, "{to}: a first packet was lost on the way");
        }
    }

    /// How many segments a host had to send more than once.
    fn sent_again(host: &Host) -> u64 {
        let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' '));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        names.zip(values).find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
    }

    #[test]
    fn nothing_of_the_machine_is_seen_from_inside() {
        let Some(lab) = topology() else { return };
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = outside.local_addr().unwrap();
        let error = lab.server().run(move || TcpStream::connect(to)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let devices = lab.server().run(|| {
            let names = nix::net::if_::if_nameindex().unwrap();
            names.iter().map(|one| one.name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        });
        assert_eq!(devices.iter().filter(|name| name.starts_with("eth")).count(), 2, "{devices:?}");
    }

    #[test]
    fn a_port_below_1024_needs_nobody_elses_leave() {
        let Some(lab) = topology() else { return };
        lab.server().run(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    }

    #[test]
    fn a_panic_in_a_job_reaches_its_caller_and_leaves_the_host_working() {
        let Some(lab) = topology() else { return };
        let job = AssertUnwindSafe(|| lab.client().run(|| panic!("as meant by the test")));
        let caught = std::panic::catch_unwind(job);
        assert!(caught.is_err());
        assert_eq!(lab.client().run(|| 7), 7);
    }

    #[test]
    fn a_helper_works_in_the_same_namespace() {
        let Some(lab) = topology() else { return };
        let listener = lab.server().run(|| TcpListener::bind((SERVER_V4, 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let helper = lab.server().helper().unwrap();
        helper.run(move || TcpStream::connect(to)).unwrap();
    }
}
