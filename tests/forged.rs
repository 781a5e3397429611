//! Datagrams whose sources are forged, between two hosts: responders that are set upon each other fall silent, and a
//! million sources fill nothing.

#![cfg(feature = "cli")]

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;
#[expect(dead_code, reason = "the tests between two hosts each need a part of it")]
mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use command::Daemon;
use greetd::lab::Host;
use greetd::lab::topology::Topology;
use socket2::{Domain, Protocol, Socket, Type};
use support::netns::two_hosts;

/// Addresses of documentation networks: to the daemon they are strangers'.
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 40_001);
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 100), 40_002);

/// CVE-2024-2169: responders that answer whatever comes answer each other's answers for ever.
#[test]
fn one_forged_datagram_between_two_responders_dies_out() {
    let Some(hosts) = two_hosts() else { return };
    let respond = |host: &Host, at: SocketAddrV4| {
        let at = at.to_string();
        host.run(move || {
            let mut daemon = Daemon::start(&["-t", "udp", "-H", "echo", "-b", &at]);
            daemon.endpoint();
            daemon
        })
    };
    let _server = respond(hosts.server(), SERVER);
    let _client = respond(hosts.client(), CLIENT);
    let packets = || hosts.server().run(datagrams_sent) + hosts.client().run(datagrams_sent);

    let before = packets();
    let start = Instant::now();
    hosts.client().run(|| Forger::new().send(CLIENT, SERVER)).unwrap();
    // It is over when a quarter of a second brings no more.
    let mut last = before;
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let now = packets();
        if now == last {
            break;
        }
        last = now;
        assert!(start.elapsed() < Duration::from_secs(10), "they still answer each other");
    }
    let (exchanged, lasted) = (last - before, start.elapsed().saturating_sub(Duration::from_millis(250)));
    assert!(exchanged > 1, "the forged datagram was answered at all: {exchanged}");
    assert!(exchanged <= 100, "{exchanged} datagrams");
    assert!(lasted <= Duration::from_secs(2), "{lasted:?}");
}

fn datagrams_sent() -> u64 {
    udp_counter("OutDatagrams")
}

/// A counter of this host's UDP, from /proc/net/snmp.
fn udp_counter(name: &str) -> u64 {
    // Not /proc/net, which is that of the process: the network is this thread's.
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut rows = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.split(' ').position(|column| column == name).unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

/// Sends datagrams with headers of its own making; raw(7).
struct Forger(Socket);

impl Forger {
    fn new() -> Self {
        // 255 is IPPROTO_RAW: what is sent begins with the IP header.
        Forger(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap())
    }

    fn send(&self, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<usize> {
        let payload = b"tick";
        let udp_length = (8 + payload.len()) as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(from.ip().octets());
        packet.extend(to.ip().octets());
        packet.extend(from.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend(udp_length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        self.0.send_to(&packet, &SocketAddr::V4(to).into())
    }
}

/// R15: a session a peer (`chat`) and a bucket a network (`echo`), both in tables of fixed size.
#[test]
fn a_million_forged_sources_leave_memory_flat() {
    let Some(hosts) = two_hosts() else { return };
    let serve = || {
        let mut daemon = Daemon::start(&[
            "-l",
            "udp://198.51.100.1:40001=chat",
            "-l",
            "udp://198.51.100.1:40003=echo",
            "--max-sessions=1000",
            "--workers=1",
        ]);
        daemon.endpoint();
        daemon.endpoint();
        daemon
    };
    let daemon = hosts.server().run(serve);
    let flood = |numbers: std::ops::Range<u32>| {
        hosts.client().run(move || {
            let forger = Forger::new();
            for number in numbers {
                // All over 11/8 and beyond, none twice, from any high port.
                let scattered = number.wrapping_mul(0x9E37_79B1);
                let ip = Ipv4Addr::from(0x0B00_0000 | (scattered & 0x03FF_FFFF));
                let port = 1024 + (scattered >> 16) as u16 / 2;
                let to = if number % 2 == 0 { SERVER } else { SocketAddrV4::new(*SERVER.ip(), 40_003) };
                // A full queue on the way loses some; what matters is that they keep coming.
                let _ = forger.send(SocketAddrV4::new(ip, port), to);
            }
        });
    };
    flood(0..100_000);
    let before = daemon.resident_kib();
    flood(100_000..1_000_000);
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more for 900,000 sources more");
    assert!(received(&hosts) > 100_000, "they arrived");
}

/// How many datagrams the server's host has received.
fn received(hosts: &Topology) -> u64 {
    hosts.server().run(|| udp_counter("InDatagrams"))
}
