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
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::{Call, Tracked, canonical};
use crate::lab::topology::{SERVER_V4, Side, Topology};
use crate::lab::wait;

pub(super) const ABOUT: &str = "Four sockets with SO_REUSEPORT share a port. The kernel hashes the addresses and ports \
    of a flow to choose one, so the spread is even over many flows and fixed for each of them. It does not know who \
    is busy. Closing a member loses what waits in its queue, unless tcp_migrate_req is set (TCP alone).";

/// The members of the group.
const MEMBERS: usize = 4;
/// So many flows that a member stays without any once in 10^15 runs.
const FLOWS: usize = 128;
/// How many datagrams one flow sends.
const REPEATS: usize = 16;
/// Within the kernel everything takes microseconds.
const SOON: Duration = Duration::from_millis(200);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Spread,
    Sticky,
    Stalled,
    Closed { migrate: bool },
}

/// What came of a trial: in words, for each member how many it got, and the calls.
type Found = (String, Vec<usize>, Vec<Call>);

impl Trial {
    const ALL: [Trial; 5] = [
        Trial::Spread,
        Trial::Sticky,
        Trial::Stalled,
        Trial::Closed { migrate: false },
        Trial::Closed { migrate: true },
    ];

    fn in_words(self) -> String {
        match self {
            Trial::Spread => format!("{FLOWS} flows"),
            Trial::Sticky => format!("{REPEATS} datagrams of one flow"),
            Trial::Stalled => "the first is stalled".to_owned(),
            Trial::Closed { migrate: false } => "the first closes".to_owned(),
            Trial::Closed { migrate: true } => "and tcp_migrate_req=1".to_owned(),
        }
    }

    fn why(self) -> &'static str {
        match self {
            Trial::Closed { migrate: false } => {
                "Closing a member loses what waits for it: TCP clients are reset, datagrams vanish without a word."
            }
            other => other.predict(Proto::Tcp).or(other.predict(Proto::Udp)).map_or("", |(_, rule)| rule.sentence()),
        }
    }

    /// What the model says; nothing where the question makes no sense: a TCP connection is one flow by itself, and UDP
    /// has no connections that could move.
    fn predict(self, proto: Proto) -> Option<(&'static str, Rule)> {
        Some(match (self, proto) {
            (Trial::Spread, _) => ("every member gets some", Rule::Spread),
            (Trial::Sticky, Proto::Tcp) | (Trial::Closed { migrate: true }, Proto::Udp) => return None,
            (Trial::Sticky, Proto::Udp) => ("one member gets all", Rule::Sticky),
            (Trial::Stalled, Proto::Tcp) => ("its clients wait", Rule::StalledMember),
            (Trial::Stalled, Proto::Udp) => ("its clients hear nothing", Rule::StalledMember),
            (Trial::Closed { migrate: false }, Proto::Tcp) => ("its clients are reset", Rule::CloseLosesQueue),
            (Trial::Closed { migrate: false }, Proto::Udp) => ("what waits is lost", Rule::CloseLosesDatagrams),
            (Trial::Closed { migrate: true }, Proto::Tcp) => ("the others take over", Rule::QueueMigrates),
        })
    }

    fn run(self, topology: &Topology, proto: Proto) -> io::Result<Found> {
        match (self, proto) {
            (Trial::Spread, _) => spread(topology, proto),
            (Trial::Sticky, _) => stick(topology),
            (Trial::Stalled, Proto::Tcp) => stall(topology),
            (Trial::Stalled, Proto::Udp) => stall_datagrams(topology),
            (Trial::Closed { migrate }, Proto::Tcp) => close(topology, migrate),
            (Trial::Closed { .. }, Proto::Udp) => close_datagrams(topology),
        }
    }
}

const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];

pub(super) fn predict() -> Sections {
    let rows = Trial::ALL.map(|trial| {
        let cells = PROTOS.map(|proto| {
            trial.predict(proto).map(|(words, rule)| {
                let what =
                    vec![("trial", json!(trial.in_words())), ("proto", json!(proto)), ("members", json!(MEMBERS))];
                Case::predicted(what, Outcome::Is(words.to_owned()), rule)
            })
        });
        Row { name: trial.in_words(), cells: cells.into(), why: trial.why().to_owned() }
    });
    vec![Section {
        title: "A group of four".to_owned(),
        about: "\"-\": a TCP connection is one flow by itself, and UDP has no connections that could move.".to_owned(),
        shown: Shown::Words,
        summed_at: None,
        row_head: "what happens",
        columns: PROTOS
            .map(|proto| Column { group: "what comes of it".to_owned(), name: proto.to_string().to_uppercase() })
            .into(),
        rows: rows.into(),
    }]
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    let Some(topology) = ground.topology() else { return Ok(()) };
    for (row, trial) in sections.iter_mut().flat_map(|section| &mut section.rows).zip(Trial::ALL) {
        for (cell, proto) in row.cells.iter_mut().zip(PROTOS) {
            if let Some(case) = cell {
                let (words, counts, evidence) = trial.run(topology, proto)?;
                case.what.push(("counts", json!(counts)));
                case.observe(Outcome::Is(words), evidence);
            }
        }
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

fn spread(topology: &Topology, proto: Proto) -> io::Result<Found> {
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
    Ok((words, counts, evidence))
}

fn stick(topology: &Topology) -> io::Result<Found> {
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
    Ok((words.to_owned(), counts.to_vec(), evidence))
}

/// Clients that are connected to a group of which the first member does not accept: those of the others are served.
struct Stalled {
    members: Vec<Tracked>,
    /// By the clients' own addresses.
    clients: BTreeMap<SocketAddr, Tracked>,
    served: Vec<Socket>,
    /// How many each member has or could have.
    counts: Vec<usize>,
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
    let (mut served, mut counts) = (Vec::new(), vec![0; MEMBERS]);
    for (member, count) in members.iter_mut().zip(&mut counts).skip(1) {
        while wait::readable(member, Duration::ZERO) {
            let (connection, peer) = member.accept()?;
            clients.remove(&canonical(peer));
            served.push(connection);
            *count += 1;
        }
    }
    counts[0] = clients.len();
    Ok(Stalled { members, clients, served, counts })
}

fn stall(topology: &Topology) -> io::Result<Found> {
    let Stalled { members, clients, served, counts } = stalled(topology)?;
    let evidence = vec![
        remark("members 2 to 4 accept all they have".to_owned(), format!("{} connections", served.len())),
        remark("connected clients that nobody serves".to_owned(), clients.len().to_string()),
    ];
    drop(members);
    let words = if clients.is_empty() { "its share goes to the others" } else { "its clients wait" };
    Ok((words.to_owned(), counts, evidence))
}

fn close(topology: &Topology, migrate: bool) -> io::Result<Found> {
    topology.server().sysctl("net.ipv4.tcp_migrate_req", if migrate { "1" } else { "0" })?;
    let Stalled { mut members, clients, served, counts } = stalled(topology)?;
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
        (0, taken) if taken == waited => "the others take over".to_owned(),
        (reset, taken) => format!("{reset} of {waited} are reset, {taken} served"),
    };
    Ok((words, counts, evidence))
}

/// Clients that have each sent one datagram to a group of which the first member does not read: those of the others
/// have their answer.
fn stalled_datagrams(topology: &Topology) -> io::Result<Stalled> {
    let (mut members, at) = group(topology, Proto::Udp)?;
    let mut clients = BTreeMap::new();
    for _ in 0..FLOWS {
        let mut client = Tracked::open(topology.client(), Side::Client, "client", Proto::Udp, true)?;
        client.connect(at)?;
        client.send(b"one")?;
        clients.insert(client.local()?, client);
    }
    let mut counts = vec![0; MEMBERS];
    for (member, count) in members.iter_mut().zip(&mut counts).skip(1) {
        while let Ok((_, peer)) = member.receive_from(&mut [0; 8]) {
            member.send_to(b"yes", peer)?;
            clients.remove(&peer);
            *count += 1;
        }
    }
    counts[0] = clients.len();
    Ok(Stalled { members, clients, served: Vec::new(), counts })
}

fn stall_datagrams(topology: &Topology) -> io::Result<Found> {
    let Stalled { members, clients, counts, .. } = stalled_datagrams(topology)?;
    let answered = clients.values().filter(|client| wait::readable(*client, Duration::ZERO)).count();
    let evidence = vec![
        remark("members 2 to 4 answer all they get".to_owned(), format!("{} datagrams", FLOWS - clients.len())),
        remark("clients of member 1, of which hear anything".to_owned(), format!("{}, {answered}", clients.len())),
    ];
    drop(members);
    let words =
        if !clients.is_empty() && answered == 0 { "its clients hear nothing" } else { "its clients are answered" };
    Ok((words.to_owned(), counts, evidence))
}

fn close_datagrams(topology: &Topology) -> io::Result<Found> {
    let Stalled { mut members, mut clients, counts, .. } = stalled_datagrams(topology)?;
    drop(members.remove(0));
    let taken = |members: &mut [Tracked]| {
        let all = members.iter_mut().map(|member| std::iter::from_fn(|| member.receive_from(&mut [0; 8]).ok()).count());
        all.sum::<usize>()
    };
    let moved = taken(&mut members);
    let told = clients.values().filter(|client| wait::readable(*client, Duration::ZERO)).count();
    for client in clients.values_mut() {
        client.send(b"two")?;
    }
    let next = taken(&mut members);
    let evidence = vec![
        remark("close(member 1), with datagrams in its buffer".to_owned(), clients.len().to_string()),
        remark("of those, moved to the others".to_owned(), moved.to_string()),
        remark("of their senders, told".to_owned(), told.to_string()),
        remark("of their senders' next datagrams, taken by the others".to_owned(), next.to_string()),
    ];
    let words = match (moved, told) {
        (0, 0) if next == clients.len() => "what waits is lost".to_owned(),
        _ => format!("{moved} are moved, {told} told, {next} served later"),
    };
    Ok((words, counts, evidence))
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
        testing::agrees(Experiment::ReusePort, 8);
    }
}
