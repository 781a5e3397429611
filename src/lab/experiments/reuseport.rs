//! `reuseport`: a group of sockets on one port: the spread, a flow's loyalty, a stalled member, a closed one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use socket2::Socket;

use super::Sections;
use crate::lab::exchange::{self, Client, Server};
use crate::lab::ground::Ground;
use crate::lab::model::{Binding, Proto, Rule};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Section};
use crate::lab::socket::{Call, Tracked, canonical};
use crate::lab::topology::{SERVER_V4, Side, Topology};
use crate::lab::wait;

pub(super) const ABOUT: &str = "Four sockets with SO_REUSEPORT share a port. The kernel hashes the addresses and ports \
    of a flow to choose one, so the spread is even over many flows and fixed for each of them. It does not know who \
    is busy. Closing a member loses what waits in its queue, unless tcp_migrate_req is set.";

/// The members of the group.
const MEMBERS: usize = 4;
/// So many flows that a member stays without any once in 10^15 runs.
const FLOWS: usize = 128;
/// How many datagrams one flow sends.
const REPEATS: usize = 16;
/// Within the kernel everything takes microseconds.
const SOON: Duration = Duration::from_millis(200);

/// What is tried, and what the model says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Spread(Proto),
    Sticky,
    Stalled,
    Closed { migrate: bool },
}

impl Trial {
    const ALL: [Trial; 6] = [
        Trial::Spread(Proto::Tcp),
        Trial::Spread(Proto::Udp),
        Trial::Sticky,
        Trial::Stalled,
        Trial::Closed { migrate: false },
        Trial::Closed { migrate: true },
    ];

    fn in_words(self) -> String {
        match self {
            Trial::Spread(proto) => format!("{FLOWS} flows of {proto}"),
            Trial::Sticky => format!("{REPEATS} datagrams of one flow"),
            Trial::Stalled => "one member never accepts".to_owned(),
            Trial::Closed { migrate: false } => "a member closes, its queue full".to_owned(),
            Trial::Closed { migrate: true } => "the same, with tcp_migrate_req=1".to_owned(),
        }
    }

    fn predict(self) -> (&'static str, Rule) {
        match self {
            Trial::Spread(_) => ("every member gets some", Rule::Spread),
            Trial::Sticky => ("one member gets all", Rule::Sticky),
            Trial::Stalled => ("its clients connect and wait", Rule::StalledMember),
            Trial::Closed { migrate: false } => ("its clients are reset", Rule::CloseLosesQueue),
            Trial::Closed { migrate: true } => ("the others serve its clients", Rule::QueueMigrates),
        }
    }
}

pub(super) fn predict() -> Sections {
    let rows = Trial::ALL.map(|trial| {
        let (words, rule) = trial.predict();
        let what = vec![("trial", json!(trial.in_words())), ("members", json!(MEMBERS))];
        (trial.in_words(), Case::predicted(what, Outcome::Is(words.to_owned()), rule))
    });
    vec![Section::list("A group of four", "", "what happens", "what comes of it", rows.into())]
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    let Some(topology) = ground.topology() else { return Ok(()) };
    for (case, trial) in sections.iter_mut().flat_map(Section::cases_mut).zip(Trial::ALL) {
        let (words, evidence) = match trial {
            Trial::Spread(proto) => spread(topology, proto)?,
            Trial::Sticky => stick(topology)?,
            Trial::Stalled => stall(topology)?,
            Trial::Closed { migrate } => close(topology, migrate)?,
        };
        case.observe(Outcome::Is(words), evidence);
    }
    Ok(())
}

/// A group on a fresh port, and where to call it.
fn group(topology: &Topology, proto: Proto) -> io::Result<(Vec<Tracked>, SocketAddr)> {
    let binding = Binding::new(proto, SERVER_V4).reusing(false, true);
    let mut members: Vec<Tracked> = Vec::new();
    let mut at = SocketAddr::from((SERVER_V4, 0));
    for number in 1..=MEMBERS {
        let mut member = Tracked::prepare(topology.server(), Side::Server, &format!("member {number}"), &binding)?;
        member.bind(at)?;
        if proto == Proto::Tcp {
            member.listen(FLOWS as u32)?;
        }
        at = member.local()?;
        members.push(member);
    }
    Ok((members, at))
}

fn spread(topology: &Topology, proto: Proto) -> io::Result<(String, Vec<Call>)> {
    let (members, at) = group(topology, proto)?;
    let mut evidence: Vec<Call> = members.iter().flat_map(|member| member.calls().to_vec()).collect();
    let mut servers: Vec<Server> = members.into_iter().map(|member| Server::new(member, proto)).collect();
    let mut clients = Vec::new();
    for _ in 0..FLOWS {
        let socket = Tracked::open(topology.client(), Side::Client, "client", proto, true)?;
        clients.push(Client::call(socket, proto, at));
    }
    exchange::run(&mut servers, &mut clients)?;
    let count = |member| clients.iter().filter(|client| client.server == Some(member)).count();
    let counts: Vec<usize> = (0..MEMBERS).map(count).collect();
    evidence.push(remark(format!("{FLOWS} flows from {} ports", clients.len()), format!("{counts:?}")));
    let words = match counts.iter().filter(|count| **count > 0).count() {
        MEMBERS => "every member gets some".to_owned(),
        some => format!("{some} members of {MEMBERS} get some"),
    };
    Ok((words, evidence))
}

fn stick(topology: &Topology) -> io::Result<(String, Vec<Call>)> {
    let (mut members, at) = group(topology, Proto::Udp)?;
    let mut client = Tracked::open(topology.client(), Side::Client, "client", Proto::Udp, true)?;
    client.connect(at)?;
    for _ in 0..REPEATS {
        client.send(b"again")?;
    }
    let mut counts = [0; MEMBERS];
    for (member, count) in members.iter_mut().zip(&mut counts) {
        while member.receive_from(&mut [0; 8]).is_ok() {
            *count += 1;
        }
    }
    let words = if counts.contains(&REPEATS) { "one member gets all" } else { "several members get some" };
    let evidence = [client.calls(), &[remark("received by each".to_owned(), format!("{counts:?}"))]].concat();
    Ok((words.to_owned(), evidence))
}

/// Clients that are connected to a group of which the first member does not accept: those of the others are served.
struct Stalled {
    members: Vec<Tracked>,
    /// By the clients' own addresses.
    clients: BTreeMap<SocketAddr, Tracked>,
    served: Vec<Socket>,
}

fn stalled(topology: &Topology) -> io::Result<Stalled> {
    let (mut members, at) = group(topology, Proto::Tcp)?;
    let mut clients = BTreeMap::new();
    for _ in 0..FLOWS {
        let mut client = Tracked::open(topology.client(), Side::Client, "client", Proto::Tcp, true)?;
        client.connect(at)?;
        wait::writable(&client, SOON);
        client.connected()?;
        clients.insert(client.local()?, client);
    }
    let mut served = Vec::new();
    for member in &mut members[1..] {
        while wait::readable(member, Duration::ZERO) {
            let (connection, peer) = member.accept()?;
            clients.remove(&canonical(peer));
            served.push(connection);
        }
    }
    Ok(Stalled { members, clients, served })
}

fn stall(topology: &Topology) -> io::Result<(String, Vec<Call>)> {
    let Stalled { members, clients, served } = stalled(topology)?;
    let evidence = vec![
        remark("members 2 to 4 accept all they have".to_owned(), format!("{} connections", served.len())),
        remark("connected clients that nobody serves".to_owned(), clients.len().to_string()),
    ];
    drop(members);
    let words = if clients.is_empty() { "its share goes to the others" } else { "its clients connect and wait" };
    Ok((words.to_owned(), evidence))
}

fn close(topology: &Topology, migrate: bool) -> io::Result<(String, Vec<Call>)> {
    topology.server().sysctl("net.ipv4.tcp_migrate_req", if migrate { "1" } else { "0" })?;
    let Stalled { mut members, clients, served } = stalled(topology)?;
    drop(members.remove(0));
    let mut taken_over = Vec::new();
    for member in &mut members {
        while wait::readable(member, Duration::ZERO) {
            taken_over.push(member.accept()?.0);
        }
    }
    let waited = clients.len();
    let reset = clients.into_values().filter(|client| wait::readable(client, Duration::ZERO)).count();
    let evidence = vec![
        remark(format!("setting tcp_migrate_req to {}", u8::from(migrate)), "0".to_owned()),
        remark("close(member 1), with connections in its queue".to_owned(), waited.to_string()),
        remark("of those, reset".to_owned(), reset.to_string()),
        remark("of those, accepted by the others".to_owned(), taken_over.len().to_string()),
    ];
    drop(served);
    let words = match (reset, taken_over.len()) {
        (reset, 0) if reset == waited => "its clients are reset".to_owned(),
        (0, taken) if taken == waited => "the others serve its clients".to_owned(),
        (reset, taken) => format!("{reset} of {waited} are reset, {taken} served"),
    };
    Ok((words, evidence))
}

fn remark(call: String, result: String) -> Call {
    Call { host: Side::Server, call, result }
}

#[cfg(test)]
mod tests {
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn a_group_spreads_sticks_stalls_and_loses_as_the_model_says() {
        testing::agrees(Experiment::ReusePort, 6);
    }
}
