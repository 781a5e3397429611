//! `errno`: what stands in the way, and what it looks like to a client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use super::Sections;
use crate::lab::exchange::{self, Client, QUIET};
use crate::lab::ground::Ground;
use crate::lab::model::{Proto, Rule};
use crate::lab::netlink::{self, Step, Via};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::Tracked;
use crate::lab::topology::{SERVER_V4, SERVER_V6, Side, Topology};
use crate::lab::wait;

pub(super) const ABOUT: &str = "The client calls, and something is in the way: on the server, on a router between, \
    or in its own routing table. A refusal comes at once, silence never; most of what a router says is lost on a UDP \
    socket unless it sets IP_RECVERR. The router's filters are played by blackhole, unreachable and prohibit routes.";

/// The cable has no delay, so the first ICMP error may come while `connect` still holds the socket, which then does
/// not hear it: the one for the SYN's retransmit, a second later, is heard.
const HEARD: Duration = Duration::from_millis(1500);

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    ClosedPort,
    Dropped,
    RouterUnreachable,
    RouterProhibits,
    RouterHasNoRoute,
    SilentNeighbour,
    OwnUnreachable,
    OwnProhibits,
    OwnBlackhole,
    NoRoute,
}

/// How the client calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Tcp,
    Udp,
    UdpUnconnected,
    UdpRecverr,
}

impl Obstacle {
    const ALL: [Obstacle; 10] = [
        Obstacle::ClosedPort,
        Obstacle::Dropped,
        Obstacle::RouterUnreachable,
        Obstacle::RouterProhibits,
        Obstacle::RouterHasNoRoute,
        Obstacle::SilentNeighbour,
        Obstacle::OwnUnreachable,
        Obstacle::OwnProhibits,
        Obstacle::OwnBlackhole,
        Obstacle::NoRoute,
    ];

    fn in_words(self) -> &'static str {
        match self {
            Obstacle::ClosedPort => "nobody at that port",
            Obstacle::Dropped => "a filter drops it",
            Obstacle::RouterUnreachable => "a router says unreachable",
            Obstacle::RouterProhibits => "a router says prohibited",
            Obstacle::RouterHasNoRoute => "a router has no route",
            Obstacle::SilentNeighbour => "the host is down",
            Obstacle::OwnUnreachable => "own route: unreachable",
            Obstacle::OwnProhibits => "own route: prohibit",
            Obstacle::OwnBlackhole => "own route: blackhole",
            Obstacle::NoRoute => "no route at all",
        }
    }

    /// Where it is, on the way from the client to the server.
    fn place(self) -> &'static str {
        match self {
            Obstacle::ClosedPort => "server",
            Obstacle::Dropped
            | Obstacle::RouterUnreachable
            | Obstacle::RouterProhibits
            | Obstacle::RouterHasNoRoute => "router",
            Obstacle::SilentNeighbour => "cable",
            Obstacle::OwnUnreachable | Obstacle::OwnProhibits | Obstacle::OwnBlackhole | Obstacle::NoRoute => "client",
        }
    }

    fn why(self) -> &'static str {
        match self {
            Obstacle::ClosedPort => {
                "The host answers at once: a reset for TCP, ICMP port unreachable for UDP. A socket that is not connected never hears of it."
            }
            Obstacle::Dropped => {
                "Silence. A client cannot tell a filter that drops from a cable that is cut: only its own clock ends the wait."
            }
            Obstacle::RouterUnreachable => {
                "ICMP host unreachable (IPv6: no route). It ends a TCP connect; a UDP socket takes it for a passing trouble and says nothing without IP_RECVERR."
            }
            Obstacle::RouterProhibits => {
                "ICMP administratively prohibited. IPv4 turns it into EHOSTUNREACH, IPv6 into EACCES, and UDP sockets hear it too."
            }
            Obstacle::RouterHasNoRoute => {
                "ICMP network unreachable (IPv6: no route): like host unreachable, for a whole network."
            }
            Obstacle::SilentNeighbour => {
                "Nobody on the cable has that address. When the neighbour search fails (normally after three seconds) the client's own kernel says so."
            }
            Obstacle::OwnUnreachable => {
                "The client's own routing table says no before a packet leaves, to TCP and UDP alike."
            }
            Obstacle::OwnProhibits => {
                "The client's own routing table prohibits it; EACCES looks like a missing right, and is a route."
            }
            Obstacle::OwnBlackhole => "A blackhole route of one's own is not silent to its owner: EINVAL.",
            Obstacle::NoRoute => "No route matches, not even a default one.",
        }
    }

    fn address(self, is_v4: bool) -> IpAddr {
        let last = self as u8;
        match self {
            Obstacle::ClosedPort if is_v4 => SERVER_V4.into(),
            Obstacle::ClosedPort => SERVER_V6.into(),
            Obstacle::SilentNeighbour if is_v4 => Ipv4Addr::new(198, 51, 100, 66).into(),
            Obstacle::SilentNeighbour => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x66).into(),
            Obstacle::NoRoute if is_v4 => Ipv4Addr::new(192, 0, 2, 254).into(),
            Obstacle::NoRoute => Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1).into(),
            _ if is_v4 => Ipv4Addr::new(192, 0, 2, last).into(),
            _ => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last.into()).into(),
        }
    }

    /// The routes that make the obstacle, on the router (the server) and on the client.
    fn routes(self, is_v4: bool) -> (Vec<Step>, Vec<Step>) {
        let (to, prefix) = (self.address(is_v4), if is_v4 { 32 } else { 128 });
        let gateway = if is_v4 { IpAddr::from(SERVER_V4) } else { SERVER_V6.into() };
        let route = |via| vec![Step::Route(to, prefix, via)];
        let through_router = || route(Via::Gateway(gateway));
        match self {
            Obstacle::ClosedPort | Obstacle::SilentNeighbour | Obstacle::NoRoute => (vec![], vec![]),
            Obstacle::Dropped => (route(Via::Blackhole), through_router()),
            Obstacle::RouterUnreachable => (route(Via::Unreachable), through_router()),
            Obstacle::RouterProhibits => (route(Via::Prohibit), through_router()),
            Obstacle::RouterHasNoRoute => (vec![], through_router()),
            Obstacle::OwnUnreachable => (vec![], route(Via::Unreachable)),
            Obstacle::OwnProhibits => (vec![], route(Via::Prohibit)),
            Obstacle::OwnBlackhole => (vec![], route(Via::Blackhole)),
        }
    }
}

impl Caller {
    const ALL: [Caller; 4] = [Caller::Tcp, Caller::Udp, Caller::UdpUnconnected, Caller::UdpRecverr];

    fn in_words(self) -> &'static str {
        match self {
            Caller::Tcp => "TCP",
            Caller::Udp => "UDP",
            Caller::UdpUnconnected => "unconnected",
            Caller::UdpRecverr => "IP_RECVERR",
        }
    }
}

/// What the model says: the errno of each ICMP message is in `icmp_err_convert` and `icmpv6_err_convert`, with
/// whether it is final.
fn predict_one(obstacle: Obstacle, caller: Caller, is_v4: bool) -> (Outcome, Rule) {
    let icmp = |errno, is_final: bool| match caller {
        Caller::Tcp => (Outcome::Errno(errno), Rule::HardError),
        Caller::Udp if is_final => (Outcome::Errno(errno), Rule::HardError),
        Caller::Udp => (Outcome::Timeout, Rule::SoftForUdp),
        Caller::UdpUnconnected => (Outcome::Timeout, Rule::UnconnectedDeaf),
        Caller::UdpRecverr => (Outcome::Errno(errno), Rule::Recverr),
    };
    let own = |errno| (Outcome::Errno(errno), Rule::LocalRoute);
    match obstacle {
        Obstacle::ClosedPort if caller == Caller::UdpUnconnected => (Outcome::Timeout, Rule::UnconnectedDeaf),
        Obstacle::ClosedPort => (Outcome::Errno(Errno::ECONNREFUSED), Rule::PortUnreachable),
        Obstacle::Dropped => (Outcome::Timeout, Rule::DropIsSilence),
        Obstacle::RouterUnreachable if is_v4 => icmp(Errno::EHOSTUNREACH, false),
        Obstacle::RouterUnreachable => icmp(Errno::ENETUNREACH, false),
        Obstacle::RouterProhibits if is_v4 => icmp(Errno::EHOSTUNREACH, true),
        Obstacle::RouterProhibits => icmp(Errno::EACCES, true),
        Obstacle::RouterHasNoRoute => icmp(Errno::ENETUNREACH, false),
        Obstacle::SilentNeighbour => icmp(Errno::EHOSTUNREACH, false),
        Obstacle::OwnUnreachable => own(Errno::EHOSTUNREACH),
        Obstacle::OwnProhibits => own(Errno::EACCES),
        Obstacle::OwnBlackhole => own(Errno::EINVAL),
        Obstacle::NoRoute => own(Errno::ENETUNREACH),
    }
}

pub(super) fn predict() -> Sections {
    vec![section(true), section(false), how_often()]
}

/// The calls that a UDP client makes one after the other to a port where nobody is.
const CALLS: [&str; 3] = ["send", "first recv", "second recv"];

fn how_often() -> Section {
    let nothing = || Outcome::Errno(Errno::EAGAIN);
    let heard = [
        (Outcome::Ok, Rule::HeardOnce),
        (Outcome::Errno(Errno::ECONNREFUSED), Rule::HeardOnce),
        (nothing(), Rule::HeardOnce),
    ];
    let unheard =
        [(Outcome::Ok, Rule::UnconnectedDeaf), (nothing(), Rule::UnconnectedDeaf), (nothing(), Rule::UnconnectedDeaf)];
    let row = |name: &str, outcomes: [(Outcome, Rule); 3]| Row {
        name: name.to_owned(),
        why: outcomes[0].1.sentence().to_owned(),
        cells: outcomes
            .into_iter()
            .zip(CALLS)
            .map(|((outcome, rule), call)| {
                Some(Case::predicted(vec![("socket", json!(name)), ("call", json!(call))], outcome, rule))
            })
            .collect(),
    };
    Section {
        title: "How often a UDP client hears that nobody is there".to_owned(),
        about: "EAGAIN: the kernel has nothing to tell.".to_owned(),
        shown: Shown::Words,
        summed_at: None,
        row_head: "the socket is",
        columns: CALLS.map(|call| Column { group: String::new(), name: call.to_owned() }).into(),
        rows: vec![row("connected", heard), row("not connected", unheard)],
    }
}

fn section(is_v4: bool) -> Section {
    let rows = Obstacle::ALL.into_iter().map(|obstacle| {
        let cells = Caller::ALL.map(|caller| {
            let (outcome, rule) = predict_one(obstacle, caller, is_v4);
            let what = vec![
                ("obstacle", json!(obstacle.in_words())),
                ("where", json!(obstacle.place())),
                ("to", json!(obstacle.address(is_v4))),
                ("caller", json!(caller.in_words())),
            ];
            Some(Case::predicted(what, outcome, rule))
        });
        Row { name: obstacle.in_words().to_owned(), cells: cells.into(), why: obstacle.why().to_owned() }
    });
    Section {
        title: if is_v4 { "IPv4" } else { "IPv6" }.to_owned(),
        about: String::new(),
        shown: Shown::Words,
        summed_at: None,
        row_head: "in the way",
        columns: Caller::ALL
            .map(|caller| Column { group: "what the client hears".to_owned(), name: caller.in_words().to_owned() })
            .into(),
        rows: rows.collect(),
    }
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    if ground.topology().is_none() {
        return Ok(());
    }
    // A router tells one client no more than five times in a row that there is no way, and there is no setting for
    // it in a namespace: each obstacle gets hosts of its own.
    let hosts: Vec<(Topology, Obstacle)> = Obstacle::ALL
        .into_iter()
        .map(|obstacle| Topology::new().map(|topology| (topology, obstacle)).map_err(io::Error::other))
        .collect::<Result<_, _>>()?;
    let mut clients = Vec::new();
    for is_v4 in [true, false] {
        for (topology, obstacle) in &hosts {
            put_in_the_way(topology, *obstacle, is_v4)?;
            for caller in Caller::ALL {
                clients.push(call(topology, *obstacle, caller, is_v4)?);
            }
        }
    }
    exchange::run_until_quiet(&mut [], &mut clients, HEARD)?;
    for (case, client) in sections.iter_mut().flat_map(Section::cases_mut).zip(&clients) {
        case.observe(client.outcome(), client.evidence());
    }
    match (&hosts[..], sections.last_mut()) {
        ([(topology, _), ..], Some(section)) => ask_thrice(topology, section),
        _ => Ok(()),
    }
}

fn ask_thrice(topology: &Topology, section: &mut Section) -> io::Result<()> {
    let nobody = (SERVER_V4, 9).into();
    for (row, connected) in section.rows.iter_mut().zip([true, false]) {
        let mut socket = Tracked::open(topology.client(), Side::Client, "client", Proto::Udp, true)?;
        if connected {
            socket.connect(nobody)?;
        }
        let sent = if connected { socket.send(b"?") } else { socket.send_to(b"?", nobody) };
        let mut heard = vec![Outcome::of_call(&sent)];
        // Nothing is the answer of a socket that is never told: it is given the time.
        wait::readable(&socket, QUIET);
        for _ in 1..CALLS.len() {
            heard.push(Outcome::of_call(&socket.receive(&mut [0; 8])));
        }
        for (case, outcome) in row.cells.iter_mut().flatten().zip(heard) {
            case.observe(outcome, socket.calls().to_vec());
        }
    }
    Ok(())
}

fn put_in_the_way(topology: &Topology, obstacle: Obstacle, is_v4: bool) -> io::Result<()> {
    let (router, client) = obstacle.routes(is_v4);
    let family = if is_v4 { "ipv4" } else { "ipv6" };
    topology.server().sysctl(&format!("net.{family}.conf.all.forwarding"), "1")?;
    if obstacle == Obstacle::SilentNeighbour {
        // One question and a tenth of a second are enough to learn that nobody answers here.
        topology.client().sysctl(&format!("net.{family}.neigh.eth0.mcast_solicit"), "1")?;
        topology.client().sysctl(&format!("net.{family}.neigh.eth0.retrans_time_ms"), "100")?;
    }
    netlink::set_up(topology.server(), router)?;
    netlink::set_up(topology.client(), client)
}

fn call(topology: &Topology, obstacle: Obstacle, caller: Caller, is_v4: bool) -> io::Result<Client> {
    let proto = if caller == Caller::Tcp { Proto::Tcp } else { Proto::Udp };
    let mut socket = Tracked::open(topology.client(), Side::Client, "client", proto, is_v4)?;
    if caller == Caller::UdpRecverr {
        let (name, result) = if is_v4 {
            ("IP_RECVERR", setsockopt(socket.inner(), sockopt::Ipv4RecvErr, &true))
        } else {
            ("IPV6_RECVERR", setsockopt(socket.inner(), sockopt::Ipv6RecvErr, &true))
        };
        let result = result.map_err(io::Error::from);
        socket.note(format!("setsockopt(client, {name}, 1)"), &result);
        result?;
    }
    // Nobody listens on any port of these hosts.
    let to = (obstacle.address(is_v4), 7).into();
    Ok(if caller == Caller::UdpUnconnected { Client::ask(socket, to) } else { Client::call(socket, proto, to) })
}

#[cfg(test)]
mod tests {
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn each_obstacle_looks_to_a_client_as_the_model_says() {
        testing::agrees(Experiment::Errno, 2 * 10 * 4 + 2 * 3);
    }
}
