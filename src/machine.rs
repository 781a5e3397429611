//! What this machine says of its sockets, processes and addresses: the evidence behind an error message.
//!
//! It is read now, from the kernel, in the network namespace of the calling thread, and is as good as the rights of
//! this process: without root the processes of other users stay unnamed.
//!
//! ```no_run
//! use greetd::machine::{self, Claim, sockets::Protocol};
//! let claim = Claim::new(Protocol::Tcp, "0.0.0.0:8080".parse()?);
//! for holder in machine::holders(&claim)? {
//!     println!("{} {} {:?}", holder.socket.local, holder.socket.state, holder.processes);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod addresses;
pub mod processes;
pub mod settings;
pub mod sockets;
pub mod trial;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::address::Address;
use processes::{Process, SharingOptions};
use sockets::{Protocol, Socket, UnixSocket};

/// So many connections are asked for their options: there may be thousands, and those of one listener are alike.
const ASKED_CONNECTIONS: usize = 64;

/// An address that somebody wants to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: SocketAddr,
    /// Whether an IPv6 socket is to refuse IPv4.
    pub v6_only: bool,
    /// The only interface that it is to be open to.
    pub device: Option<String>,
}

/// A socket that stands in the way of a claim, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The socket.
    #[serde(flatten)]
    pub socket: Socket,
    /// The processes that have it open; empty where none does (`TIME_WAIT`), or where this process may not know.
    pub processes: Vec<Process>,
    /// The name of the user that it belongs to, where it belongs to one.
    pub user: Option<String>,
    /// Whether it lets others share its address; `None` where the kernel does not tell.
    pub options: Option<SharingOptions>,
}

/// A Unix socket in the way of another, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnixHolder {
    /// The socket.
    #[serde(flatten)]
    pub socket: UnixSocket,
    /// The processes that have it open.
    pub processes: Vec<Process>,
}

impl Claim {
    /// A claim to an address on every interface, IPv4 included where it is `::`.
    pub fn new(protocol: Protocol, address: SocketAddr) -> Self {
        Claim { protocol, address, v6_only: false, device: None }
    }

    /// Whether the kernel takes the claim and the socket for the same address: the same protocol and port, interfaces
    /// that meet, and addresses of which one covers the other. Whether they may share it is another question.
    pub fn overlaps(&self, socket: &Socket) -> bool {
        let devices_meet = match (&self.device, &socket.device) {
            (Some(wanted), Some(held)) => wanted == held,
            _ => true,
        };
        self.protocol == socket.protocol
            && self.address.port() == socket.local.port()
            && devices_meet
            && addresses_meet((self.address.ip(), self.v6_only), (socket.local.ip(), socket.v6_only.unwrap_or(false)))
    }
}

/// Every socket that overlaps the claim, those that serve before those that are mere connections, each with its owners.
pub fn holders(claim: &Claim) -> io::Result<Vec<Holder>> {
    let mut sockets = sockets::sockets(claim.protocol, claim.address.port())?;
    sockets.retain(|socket| claim.overlaps(socket));
    Ok(with_owners(sockets))
}

/// The sockets that wait to be called on a port, whatever their address.
pub fn servers(protocol: Protocol, port: u16) -> io::Result<Vec<Holder>> {
    let mut sockets = sockets::sockets(protocol, port)?;
    sockets.retain(|socket| socket.state.is_server() && socket.remote.is_none());
    Ok(with_owners(sockets))
}

/// The Unix sockets of that name.
pub fn unix_holders(name: &Address) -> io::Result<Vec<UnixHolder>> {
    let mut sockets = sockets::unix_sockets()?;
    sockets.retain(|socket| socket.local == *name);
    let inodes = sockets.iter().map(|socket| u64::from(socket.inode)).collect();
    let mut owners = processes::owners(&inodes);
    let owned = |socket: UnixSocket| UnixHolder {
        processes: owners.remove(&u64::from(socket.inode)).unwrap_or_default(),
        socket,
    };
    Ok(sockets.into_iter().map(owned).collect())
}

fn with_owners(mut sockets: Vec<Socket>) -> Vec<Holder> {
    sockets.sort_by_key(|socket| (!socket.state.is_server(), socket.local));
    let inodes: BTreeSet<u64> = sockets.iter().map(|s| u64::from(s.inode)).filter(|inode| *inode != 0).collect();
    let mut owners = processes::owners(&inodes);
    let mut connections = 0;
    let owned = |socket: Socket| {
        let processes = owners.remove(&u64::from(socket.inode)).unwrap_or_default();
        connections += usize::from(!socket.state.is_server());
        let is_asked = connections <= ASKED_CONNECTIONS;
        let options = if is_asked { processes.iter().find_map(processes::sharing_options) } else { None };
        let user = socket.uid.map(processes::user);
        Holder { socket, processes, user, options }
    };
    sockets.into_iter().map(owned).collect()
}

/// IPv4 and IPv4-mapped addresses are one space; a wildcard covers its family, and `::` both unless it is for IPv6
/// alone. See ip(7) and ipv6(7).
fn addresses_meet((one, one_v6_only): (IpAddr, bool), (other, other_v6_only): (IpAddr, bool)) -> bool {
    let covers = |wide: IpAddr, v6_only: bool, narrow: IpAddr| match wide {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => narrow.is_ipv4(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => narrow.is_ipv6() || !v6_only,
        specific => specific == narrow,
    };
    let (one, other) = (one.to_canonical(), other.to_canonical());
    covers(one, one_v6_only, other) || covers(other, other_v6_only, one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn addresses_meet_as_the_kernel_sees_it() {
        let meet = |one: &str, other: &str| {
            let read = |text: &str| {
                let (ip, v6_only) = text.strip_suffix(" only").map_or((text, false), |ip| (ip, true));
                (ip.parse().unwrap(), v6_only)
            };
            let forth = addresses_meet(read(one), read(other));
            assert_eq!(forth, addresses_meet(read(other), read(one)), "{one} and {other} differ by order");
            forth
        };
        for (one, other) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:0.0.0.0", "192.0.2.1"),
            ("::", "127.0.0.1"),
            ("::", "0.0.0.0"),
            ("::", "::1"),
            (":: only", "::1"),
        ] {
            assert!(meet(one, other), "{one} and {other}");
        }
        for (one, other) in [
            ("127.0.0.1", "127.0.0.2"),
            (":: only", "0.0.0.0"),
            ("::1", "127.0.0.1"),
            ("::1", "0.0.0.0"),
            ("::1", "::2"),
        ] {
            assert!(!meet(one, other), "{one} and {other}");
        }
    }

    #[test]
    fn the_holder_of_a_port_is_found_from_any_address_that_covers_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = listener.local_addr().unwrap();
        let held = |text: String| {
            let claim = Claim::new(Protocol::Tcp, text.parse().unwrap());
            let mine = |holder: &Holder| holder.socket.local == bound;
            holders(&claim).unwrap().into_iter().find(mine)
        };
        let port = bound.port();
        for covering in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
            let holder = held(covering.clone()).unwrap_or_else(|| panic!("{covering}"));
            assert!(holder.processes.iter().any(|process| process.pid == std::process::id().cast_signed()));
            assert_eq!(holder.options.map(|options| options.reuse_addr), Some(true));
        }
        assert_eq!(held(format!("127.0.0.2:{port}")), None);
    }

    #[test]
    fn a_claim_to_another_protocol_meets_nothing() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bound = socket.local_addr().unwrap();
        let tcp = holders(&Claim::new(Protocol::Tcp, bound)).unwrap();
        assert!(tcp.iter().all(|holder| holder.socket.protocol == Protocol::Tcp), "{tcp:?}");
        assert!(servers(Protocol::Udp, bound.port()).unwrap().iter().any(|holder| holder.socket.local == bound));
    }

    #[test]
    fn sockets_of_different_interfaces_do_not_meet() {
        let mut claim = Claim::new(Protocol::Udp, "0.0.0.0:1".parse().unwrap());
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bound = listener.local_addr().unwrap();
        claim.address.set_port(bound.port());
        let mut socket = sockets::sockets(Protocol::Udp, bound.port()).unwrap().remove(0);
        claim.device = Some("eth0".into());
        assert!(claim.overlaps(&socket));
        socket.device = Some("eth1".into());
        assert!(!claim.overlaps(&socket));
    }
}
