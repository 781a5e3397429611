//! What a message costs as there are more and more connections, and more and more peers.

use anyhow::Result;

use crate::Plan;
use crate::compile::Programs;
use crate::process::{Line, On, Server, load};
use crate::scenario::complete;
use crate::statistics::Summary;

/// Processor time for each message, in nanoseconds, at each size.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What there is more and more of.
    pub(crate) of: &'static str,
    pub(crate) lines: Vec<(&'static str, Vec<(u32, Summary)>)>,
}

/// A curve is rather long: a third of the rounds each.
fn rounds(plan: &Plan) -> usize {
    plan.rounds.div_ceil(3)
}

/// Both curves.
pub(crate) fn all(plan: &Plan, programs: &Programs) -> Result<Vec<Curve>> {
    let greetd = Line::new(programs.rust("greetd"), &["--workers", "1", "--listen", "tcp://127.0.0.1:0"]);
    let connections = |server: &Line| {
        measure(plan, server, &[1, 10, 100, 1_000, 10_000], |many| {
            Line::new(programs.c("load_tcp"), &["talk", "PORT", &many.to_string(), "1", "raw"])
        })
    };
    // A table of peers that has room for all of them.
    let endpoint = "udp://127.0.0.1:0?max-sessions=200000";
    let peers = |handler| {
        let server = Line::new(programs.rust("embedded"), &[endpoint, handler]);
        measure(plan, &server, &[1, 100, 10_000, 100_000], |many| {
            Line::new(programs.c("load_udp"), &["peers", "PORT", &many.to_string(), "256"])
        })
    };
    Ok(vec![
        Curve {
            name: "connections",
            title: "TCP ping-pong, processor time of the server for each message",
            of: "connections",
            lines: vec![
                ("C epoll", connections(&Line::new(programs.c("tcp"), &["raw"]))?),
                ("greetd", connections(&greetd)?),
            ],
        },
        Curve {
            name: "peers",
            title: "UDP, 256 in flight, processor time of the server for each message",
            of: "peers",
            lines: vec![("one session for all", peers("hello")?), ("a session for each peer", peers("per-peer")?)],
        },
    ])
}

fn measure(plan: &Plan, server: &Line, sizes: &[u32], client: impl Fn(u32) -> Line) -> Result<Vec<(u32, Summary)>> {
    let mut points = Vec::new();
    for &many in sizes {
        eprintln!("growth: {many}");
        let mut costs = Vec::new();
        for _ in 0..rounds(plan) {
            let server = Server::start(server, On::Server)?;
            let outcome = load(&complete(&client(many), &server, plan.warm_up, plan.measured))?;
            costs.push(outcome.cpu_ns / outcome.messages);
        }
        points.push((many, Summary::of(costs)));
    }
    Ok(points)
}
