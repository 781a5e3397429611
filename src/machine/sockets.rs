//! The kernel's own table of sockets, through `sock_diag(7)`.
//!
//! Unlike `/proc/net/tcp` it also tells of sockets that are bound and do not listen, which hold a port just as well,
//! and whether an IPv6 socket takes IPv4 too. What it shows belongs to the network namespace of the calling thread.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, TCP_LISTEN};
use netlink_packet_sock_diag::inet::nlas::Nla as InetAttribute;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::unix::nlas::UnixDiagName;
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags as UnixStateFlags, UnixRequest, UnixResponse};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use serde::Serialize;

use crate::address::Address;

/// The largest datagram that the kernel puts an answer in (`NLMSG_GOODSIZE` and `min_dump_alloc` stay below it).
const ANSWER_SIZE: usize = 64 * 1024;
/// `TCP_BOUND_INACTIVE`: asks for sockets that are bound and neither listen nor are connected; Linux 6.8 and later.
const BOUND_INACTIVE: u8 = 13;

/// A protocol whose ports the kernel keeps apart from the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// The address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    Inet,
    /// `AF_INET6`.
    Inet6,
}

/// A socket of the internet protocols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// Its protocol.
    pub protocol: Protocol,
    /// The family that it was made with: an `AF_INET6` socket may have an IPv4-mapped address.
    pub family: Family,
    /// The address that it is bound to.
    pub local: SocketAddr,
    /// The address that it is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// What it is doing.
    pub state: State,
    /// Whether an IPv6 socket refuses IPv4; where the kernel tells (it does not for connections).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6_only: Option<bool>,
    /// The only interface that it is open to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The connections that wait to be accepted, and how many may, of a listening socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// How many milliseconds are left of `TIME_WAIT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_in_ms: Option<u32>,
    /// The user that owns it; `None` where no process does any more, as in `TIME_WAIT`.
    pub uid: Option<u32>,
    /// Its inode, by which it is found among the descriptors of processes; 0 where no process has it any more.
    pub inode: u32,
}

/// The queue of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// The connections that wait to be accepted.
    pub waiting: u32,
    /// The most that may wait, as the kernel clamped it.
    pub limit: u32,
}

/// What a socket is doing; the names of tcp(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Connected.
    Established,
    /// Calling.
    SynSent,
    /// Being called.
    SynReceived,
    /// Closed here, not yet acknowledged.
    FinWait1,
    /// Closed here, not yet by the peer.
    FinWait2,
    /// Over, and kept for a minute so that stray segments find no new connection.
    TimeWait,
    /// UDP: open, without a fixed peer.
    Unconnected,
    /// Closed by the peer, not yet here.
    CloseWait,
    /// Closed by both, not yet acknowledged.
    LastAck,
    /// Waiting for connections.
    Listening,
    /// Closed by both at once.
    Closing,
    /// Bound, and neither listening nor connected: no row of `ss -ltn` shows it.
    Bound,
    /// Something that this version does not know.
    Unknown,
}

impl State {
    fn of(protocol: Protocol, number: u8) -> Self {
        match number {
            1 => State::Established,
            2 => State::SynSent,
            // 12 is TCP_NEW_SYN_RECV, the same before a full socket is made.
            3 | 12 => State::SynReceived,
            4 => State::FinWait1,
            5 => State::FinWait2,
            6 => State::TimeWait,
            7 if protocol == Protocol::Udp => State::Unconnected,
            7 | BOUND_INACTIVE => State::Bound,
            8 => State::CloseWait,
            9 => State::LastAck,
            10 => State::Listening,
            11 => State::Closing,
            _ => State::Unknown,
        }
    }

    /// Whether the socket is there to be called: listening, bound, or open to datagrams.
    pub fn is_server(self) -> bool {
        matches!(self, State::Listening | State::Bound | State::Unconnected)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Established => "established",
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::FinWait1 => "fin-wait-1",
            State::FinWait2 => "fin-wait-2",
            State::TimeWait => "time-wait",
            State::Unconnected => "unconnected",
            State::CloseWait => "close-wait",
            State::LastAck => "last-ack",
            State::Listening => "listening",
            State::Closing => "closing",
            State::Bound => "bound",
            State::Unknown => "unknown",
        })
    }
}

/// A Unix socket with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnixSocket {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub local: Address,
    /// Whether it listens for connections.
    pub listening: bool,
    /// Its inode, by which it is found among the descriptors of processes.
    pub inode: u32,
}

fn as_text<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// All sockets of a protocol, of both address families, that are bound to the port.
pub fn sockets(protocol: Protocol, port: u16) -> io::Result<Vec<Socket>> {
    let number = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    let mut found = Vec::new();
    for (family, mut id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        // The kernel compares the port itself, so that a busy machine's table need not be carried over.
        id.source_port = port;
        let request = |states| {
            SockDiagMessage::InetRequest(InetRequest {
                family,
                protocol: number,
                extensions: ExtensionFlags::empty(),
                states,
                socket_id: id.clone(),
            })
        };
        let mut keep = |message, bytes: &[u8]| {
            if let SockDiagMessage::InetResponse(answer) = message
                && answer.header.socket_id.source_port == port
            {
                found.push(read_inet(protocol, &answer, bytes));
            }
        };
        dump(request(StateFlags::from_bits_retain(u32::MAX)), &mut keep)?;
    }
    Ok(found)
}

/// All Unix sockets that have a name.
pub fn unix_sockets() -> io::Result<Vec<UnixSocket>> {
    let mut found = Vec::new();
    let request = SockDiagMessage::UnixRequest(UnixRequest {
        state_flags: UnixStateFlags::from_bits_retain(u32::MAX),
        inode: 0,
        show_flags: ShowFlags::NAME,
        cookie: [0xff; 8],
    });
    dump(request, &mut |message, _| {
        if let SockDiagMessage::UnixResponse(answer) = message {
            found.extend(read_unix(&answer));
        }
    })?;
    Ok(found)
}

/// Asks for a table and hands on each row, as read and as it came.
fn dump(request: SockDiagMessage, row: &mut impl FnMut(SockDiagMessage, &[u8])) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;

    let garbled = |error| io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag's answer: {error}"));
    let mut answer = Vec::with_capacity(ANSWER_SIZE);
    loop {
        answer.clear();
        if socket.recv(&mut answer, 0)? == 0 {
            return Ok(());
        }
        let mut left = answer.as_slice();
        while !left.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(left).map_err(garbled)?;
            // Messages are aligned to four bytes; see netlink(7).
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            let bytes = left.get(..length).unwrap_or(left);
            left = left.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => row(inner, bytes),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

fn read_inet(protocol: Protocol, answer: &InetResponse, bytes: &[u8]) -> Socket {
    let id = &answer.header.socket_id;
    let state = State::of(protocol, answer.header.state);
    let remote = SocketAddr::new(id.destination_address, id.destination_port);
    Socket {
        protocol,
        local: scoped(id.source_address, id.source_port, id.interface_id),
        remote: (id.destination_port != 0).then_some(remote),
        state,
        v6_only: answer.nlas.iter().find_map(|attribute| match attribute {
            InetAttribute::SkV6Only(value) => Some(*value),
            _ => None,
        }),
        device: (id.interface_id != 0).then(|| interface_name(id.interface_id)),
        backlog: (state == State::Listening)
            .then_some(Backlog { waiting: answer.header.recv_queue, limit: answer.header.send_queue }),
        family: if answer.header.family == AF_INET { Family::Inet } else { Family::Inet6 },
        ends_in_ms: (state == State::TimeWait).then(|| expires(bytes)).flatten(),
        // What nobody has open belongs to nobody: the kernel's answer, 0, would be root.
        uid: (answer.header.inode != 0).then_some(answer.header.uid),
        inode: answer.header.inode,
    }
}

/// `idiag_expires` of `struct inet_diag_msg`, which the parser leaves out for `TIME_WAIT`: behind the netlink header,
/// four bytes and the socket's addresses.
fn expires(bytes: &[u8]) -> Option<u32> {
    const AT: usize = 16 + 4 + 48;
    Some(u32::from_ne_bytes(bytes.get(AT..AT + 4)?.try_into().ok()?))
}

fn read_unix(answer: &UnixResponse) -> Option<UnixSocket> {
    let local = match answer.name()? {
        UnixDiagName::Abstract(name) => Address::UnixAbstract(name.as_slice().into()),
        UnixDiagName::Pathname(path) => Address::UnixPath(std::path::Path::new(path).into()),
    };
    Some(UnixSocket { local, listening: answer.header.state == TCP_LISTEN, inode: answer.header.inode })
}

/// A link-local IPv6 address means something only together with its interface (RFC 4007).
fn scoped(ip: IpAddr, port: u16, interface: u32) -> SocketAddr {
    let mut address = SocketAddr::new(ip, port);
    if let SocketAddr::V6(v6) = &mut address
        && v6.ip().is_unicast_link_local()
    {
        v6.set_scope_id(interface);
    }
    address
}

fn interface_name(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .map_or_else(|_| format!("interface {index}"), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket as RawSocket, Type};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn at(protocol: Protocol, address: SocketAddr) -> Vec<Socket> {
        let rows = sockets(protocol, address.port()).unwrap();
        rows.into_iter().filter(|socket| socket.local == address).collect()
    }

    #[test]
    fn a_listening_socket_is_found_with_its_backlog() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let found = at(Protocol::Tcp, address);
        let listening: Vec<_> = found.iter().filter(|socket| socket.state == State::Listening).collect();
        assert_eq!(listening.len(), 1, "{found:?}");
        assert_eq!(listening[0].backlog.unwrap().waiting, 1);
        assert_eq!(listening[0].device, None);
        assert!(listening[0].inode > 0);
        assert!(found.iter().any(|socket| socket.state == State::Established), "{found:?}");
    }

    #[test]
    fn a_connection_that_the_server_closed_first_is_found_after_its_end() {
        use std::io::Read as _;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        drop(listener);
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);
        // Under load the last segments take their time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let found = loop {
            let found = at(Protocol::Tcp, address);
            let is_over = found.iter().all(|socket| socket.state == State::TimeWait);
            if is_over || std::time::Instant::now() > deadline {
                break found;
            }
            std::thread::yield_now();
        };
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].state, found[0].inode, found[0].uid), (State::TimeWait, 0, None));
        let left = found[0].ends_in_ms.unwrap();
        assert!((1..=60_000).contains(&left), "{left} ms of a minute are left");
    }

    #[test]
    fn a_socket_that_is_bound_and_does_not_listen_is_found() {
        let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let found = at(Protocol::Tcp, address);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].state, State::Bound);
        assert_eq!(found[0].remote, None);
    }

    #[test]
    fn an_ipv6_socket_says_whether_it_takes_ipv4_too() {
        for v6_only in [false, true] {
            let socket = RawSocket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_only_v6(v6_only).unwrap();
            socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            let found = at(Protocol::Udp, socket.local_addr().unwrap().as_socket().unwrap());
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].state, found[0].v6_only), (State::Unconnected, Some(v6_only)));
        }
    }

    #[test]
    fn a_connected_udp_socket_shows_its_peer() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let found = at(Protocol::Udp, client.local_addr().unwrap());
        assert_eq!(found[0].remote, server.local_addr().ok());
    }

    #[test]
    fn a_unix_socket_is_found_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let wanted = Address::UnixPath(path.as_path().into());
        let rows = unix_sockets().unwrap();
        let found = rows.iter().find(|socket| socket.local == wanted).unwrap();
        assert!(found.listening);
    }
}
