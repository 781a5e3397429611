//! What is measured: for each table a load, the reference, and who is held against it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Plan;
use crate::compile::Programs;
use crate::process::{Held, Line, On, Outcome, Server, load, load_counting_calls};

/// Into how many pieces a round is cut, in which all servers have their turn: the machine changes its speed from one second to
/// the next by more than what is to be told apart.
const PIECES: u32 = 10;
/// How long a server is loaded before it is measured in any but its first piece.
const WARM_UP_AGAIN: Duration = Duration::from_millis(20);

/// One table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What is counted: messages, or connections.
    pub(crate) unit: &'static str,
    /// What decides.
    pub(crate) decides: Decides,
    /// What greetd is to reach: at most so many times the reference's, and so many calls.
    pub(crate) goal: &'static str,
    client: Line,
    /// The reference comes first. On TCP it comes twice: how far it is from itself tells what can be told apart.
    servers: Vec<(&'static str, Line)>,
}

/// By what a server is held against the first one in its table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Decides {
    /// The processor time of the server for each unit.
    Processor,
    /// How long half of the answers take at most.
    Latency,
}

impl Decides {
    pub(crate) fn cost(self, outcome: &Outcome) -> f64 {
        match self {
            Decides::Processor => outcome.cpu_ns / outcome.messages,
            Decides::Latency => outcome.p50_us,
        }
    }
}

/// One server's measurements, a round each.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<Outcome>,
    /// System calls for each message, where they could be counted.
    pub(crate) calls: Option<f64>,
}

fn greetd(programs: &Programs, endpoint: &str, more: &[&str]) -> Line {
    let words: Vec<&str> = ["--workers", "1", "--listen", endpoint].iter().chain(more).copied().collect();
    Line::new(programs.rust("greetd"), &words)
}

/// All tables of processor time.
pub(crate) fn all(programs: &Programs) -> Vec<Scenario> {
    let c = |name, argument| Line::new(programs.c(name), &[argument]);
    let tokio = |name, argument| Line::new(programs.rust(name), &[argument]);
    let tcp = |mode, endpoint| {
        vec![
            ("C epoll", c("tcp", mode)),
            ("C epoll, a second one", c("tcp", mode)),
            ("tokio", tokio("tokio_tcp", mode)),
            ("greetd", greetd(programs, endpoint, &[])),
        ]
    };
    let udp = || {
        vec![
            ("C recvfrom, sendto", c("udp", "single")),
            ("C recvmmsg, sendmmsg", c("udp", "batch")),
            ("C mmsg with GRO and GSO", c("udp", "gso")),
            ("tokio recv_from, send_to", Line::new(programs.rust("tokio_udp"), &[])),
            ("greetd", greetd(programs, "udp://127.0.0.1:0", &[])),
        ]
    };
    let talk = |words: &[&str]| Line::new(programs.c("load_tcp"), words);
    let ask = |words: &[&str]| Line::new(programs.c("load_udp"), words);
    let per_peer = |handler| Line::new(programs.rust("embedded"), &["udp://127.0.0.1:0", handler]);
    vec![
        Scenario {
            name: "ping-pong",
            title: "TCP ping-pong, 64 connections",
            unit: "message",
            decides: Decides::Processor,
            goal: "≤ 1.00, ≤ 2.06 system calls",
            client: talk(&["talk", "PORT", "64", "1", "raw"]),
            servers: tcp("raw", "tcp://127.0.0.1:0"),
        },
        Scenario {
            name: "pipelined",
            title: "TCP pipelined, 16 connections × 16 lines in flight",
            unit: "message",
            decides: Decides::Processor,
            goal: "≤ 1.02, ≤ 0.14 system calls",
            client: talk(&["talk", "PORT", "16", "16", "lines"]),
            servers: tcp("lines", "tcp://127.0.0.1:0?framing=lines"),
        },
        Scenario {
            name: "greet",
            title: "TCP connect, greet, close, 16 at once",
            unit: "connection",
            decides: Decides::Processor,
            goal: "≤ 1.05, ≤ 8 system calls",
            client: talk(&["greet", "PORT", "16"]),
            servers: tcp("raw", "tcp://127.0.0.1:0"),
        },
        Scenario {
            name: "latency",
            title: "TCP latency, one connection, ×: of the p50",
            unit: "message",
            decides: Decides::Latency,
            goal: "≤ 0.40 with `--busy-poll`",
            client: talk(&["talk", "PORT", "1", "1", "raw"]),
            servers: vec![
                ("C epoll", c("tcp", "raw")),
                ("greetd", greetd(programs, "tcp://127.0.0.1:0", &[])),
                ("greetd --busy-poll 1ms", greetd(programs, "tcp://127.0.0.1:0", &["--busy-poll", "1ms"])),
            ],
        },
        Scenario {
            name: "udp",
            title: "UDP, 16 sockets × 32 in flight, ordinary client",
            unit: "message",
            decides: Decides::Processor,
            goal: "≤ 0.70, none lost",
            client: ask(&["sockets", "PORT", "16", "32", "single"]),
            servers: udp(),
        },
        Scenario {
            name: "udp-gso",
            title: "UDP, 16 sockets × 32 in flight, client sending with GSO",
            unit: "message",
            decides: Decides::Processor,
            goal: "≤ 0.17",
            client: ask(&["sockets", "PORT", "16", "32", "gso"]),
            servers: udp(),
        },
        Scenario {
            name: "peers",
            title: "UDP, 1,000 peers, 512 requests in flight over all of them",
            unit: "message",
            decides: Decides::Processor,
            goal: "≤ 1.15",
            client: ask(&["peers", "PORT", "1000", "512"]),
            servers: vec![
                ("one session for all", per_peer("hello")),
                ("a session for each peer", per_peer("per-peer")),
            ],
        },
    ]
}

impl Scenario {
    /// Measures each server in each round, a little at a time, in turn: so whatever disturbs the machine disturbs all.
    pub(crate) fn run(&self, plan: &Plan) -> Result<Vec<Measured>> {
        let mut all: Vec<Measured> = Vec::new();
        for (name, line) in &self.servers {
            let server = Server::start(line, On::Server)?;
            let client = complete(&self.client, &server, Duration::ZERO, plan.measured);
            let calls = load_counting_calls(&client, &server)?;
            all.push(Measured { name, rounds: Vec::new(), calls });
        }
        for round in 1..=plan.rounds {
            eprintln!("{}: round {round} of {}", self.title, plan.rounds);
            let servers: Vec<_> =
                self.servers.iter().map(|(_, line)| Server::start(line, On::Server)).collect::<Result<_>>()?;
            let mut pieces = vec![Vec::new(); servers.len()];
            for piece in 0..PIECES {
                let warm_up = if piece == 0 { plan.warm_up } else { WARM_UP_AGAIN };
                for ((server, pieces), measured) in servers.iter().zip(&mut pieces).zip(&all) {
                    let outcome = load(&complete(&self.client, server, warm_up, plan.measured / PIECES))?;
                    ensure!(outcome.wrong == 0.0, "{} gave wrong answers: {outcome:?}", measured.name);
                    pieces.push(outcome);
                }
            }
            for (measured, pieces) in all.iter_mut().zip(&pieces) {
                measured.rounds.push(Outcome::of(pieces));
            }
        }
        Ok(all)
    }
}

/// Fills in what is known only now.
pub(crate) fn complete(client: &Line, server: &Server, warm_up: Duration, measured: Duration) -> Line {
    client.with_port(server.port).and(&server.pid()).and(&warm_up.as_secs_f64()).and(&measured.as_secs_f64())
}

/// How many connections are held to see what one costs.
pub(crate) const IDLE: u32 = 10_000;

/// What each TCP server keeps in memory for an idle connection, in bytes.
pub(crate) fn idle(programs: &Programs) -> Result<Vec<(&'static str, u64)>> {
    let servers = [
        ("C epoll", Line::new(programs.c("tcp"), &["raw"])),
        ("tokio", Line::new(programs.rust("tokio_tcp"), &["raw"])),
        ("greetd", greetd(programs, "tcp://127.0.0.1:0", &[])),
    ];
    let mut rows = Vec::new();
    for (name, line) in servers {
        let server = Server::start(&line, On::Server)?;
        let before = server.memory()?;
        let client = Line::new(programs.c("load_tcp"), &["hold", "PORT"]).with_port(server.port).and(&IDLE);
        let held = Held::start(&client)?;
        rows.push((name, server.memory()?.saturating_sub(before) / u64::from(IDLE)));
        drop(held);
    }
    Ok(rows)
}

/// How long greetd takes until it listens, in each round, and the size of its binary in bytes.
pub(crate) fn start(plan: &Plan, programs: &Programs) -> Result<(Vec<Duration>, u64)> {
    let line = greetd(programs, "tcp://127.0.0.1:0", &[]);
    let taken = (0..plan.rounds).map(|_| Server::start(&line, On::Server).map(|server| server.ready_after));
    let size = fs::metadata(programs.rust("greetd")).context("failed to find greetd")?.len();
    Ok((taken.collect::<Result<_>>()?, size))
}
