//! `delivery`: several sockets take in the same packet; who gets it?

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::Sections;
use crate::lab::exchange::{self, Client, Server};
use crate::lab::ground::Ground;
use crate::lab::model::{Binding, Delivery, Dial, Proto, arrival, deliver};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Section};
use crate::lab::socket::{Tracked, address};
use crate::lab::topology::{SERVER_V4, SERVER_V6, Side};

pub(super) const ABOUT: &str = "Two sockets share a port and both take in the packet. The more specific address \
    wins, then the device, then IPv4 over dual-stack. Equals are told apart by the option that let them share: \
    SO_REUSEADDR gives everything to the last, SO_REUSEPORT spreads.";

/// So many flows that a group of two is hit on one side alone once in 10^19 runs.
const FLOWS: usize = 64;

/// Two sockets, in the order in which they are bound, and what the client dials.
struct Duel {
    sockets: [Binding; 2],
    to: IpAddr,
}

fn duels(proto: Proto) -> Vec<Duel> {
    // Two TCP sockets that overlap both listen only with SO_REUSEPORT.
    let shared = |ip: IpAddr| {
        let listening = proto == Proto::Tcp;
        Binding { listening, ..Binding::new(proto, ip).reusing(!listening, listening) }
    };
    let any4 = || shared(Ipv4Addr::UNSPECIFIED.into());
    let any6 = || shared(Ipv6Addr::UNSPECIFIED.into());
    let duel = |one: Binding, two: Binding, to: IpAddr| Duel { sockets: [one, two], to };
    let (v4, v6) = (IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6));
    let grouped = |binding: Binding| binding.reusing(false, true);
    let mut all = vec![
        duel(shared(v4), any4(), v4),
        duel(any4(), shared(v4), v4),
        duel(shared(v6), any6(), v6),
        duel(any4(), any6(), v4),
        duel(any6(), any4(), v4),
        duel(any4(), any6(), v6),
        duel(any6(), shared(SERVER_V4.to_ipv6_mapped().into()), v4),
        duel(shared(SERVER_V4.to_ipv6_mapped().into()), any4(), v4),
        duel(any4().on("eth0"), shared(v4), v4),
        duel(grouped(any4()), grouped(any4()), v4),
        duel(grouped(any6()), grouped(any6()), v4),
        duel(grouped(any4()), grouped(any4()).on("eth0"), v4),
        duel(grouped(any4()).on("eth0"), grouped(any4()), v4),
        duel(grouped(any6()), grouped(any6()).on("eth0"), v6),
        duel(grouped(any6()).on("eth0"), grouped(any6()), v6),
        duel(grouped(any6()).on("eth0"), grouped(any4()), v4),
        duel(any4().on("eth0"), any4().on("eth1"), v4),
    ];
    if proto == Proto::Udp {
        all.extend([
            duel(any4(), any4(), v4),
            duel(any6(), any6(), v6),
            duel(any4().on("eth0"), any4(), v4),
            duel(any4(), any4().on("eth0"), v4),
            duel(any6().on("eth0"), any4(), v4),
        ]);
    }
    all
}

pub(super) fn predict() -> Sections {
    [Proto::Tcp, Proto::Udp]
        .map(|proto| {
            let rows = duels(proto).into_iter().map(|duel| (in_words(&duel), case(proto, &duel)));
            Section::list(
                &format!(
                    "{}: the client sends to an address that both sockets take in",
                    proto.to_string().to_uppercase()
                ),
                "",
                "bound first + second, and what is dialled",
                "who gets it",
                rows.collect(),
            )
        })
        .into()
}

fn in_words(duel: &Duel) -> String {
    let [one, two] = &duel.sockets;
    let shared = if one.reuse_port { "reuse-port" } else { "reuse-addr" };
    format!("{one} + {two}, {shared}, to {}", duel.to)
}

fn case(proto: Proto, duel: &Duel) -> Case {
    let packet = arrival(proto, Dial { from: Side::Client, to: duel.to });
    let Delivery { to, rule } = packet.map_or_else(Delivery::to_nobody, |packet| deliver(&duel.sockets, &packet));
    let bound = |binding: &Binding| {
        json!({
            "address": binding.ip, "device": binding.device,
            "reuse_addr": binding.reuse_addr, "reuse_port": binding.reuse_port,
        })
    };
    let what = vec![
        ("proto", json!(proto)),
        ("first", bound(&duel.sockets[0])),
        ("second", bound(&duel.sockets[1])),
        ("to", json!(duel.to)),
    ];
    Case::predicted(what, winner(&to.into_iter().collect()), rule)
}

fn winner(places: &BTreeSet<usize>) -> Outcome {
    let word = match places.iter().collect::<Vec<_>>()[..] {
        [] => "nobody",
        [0] => "the first",
        [1] => "the second",
        _ => "both, by flow",
    };
    Outcome::Is(word.to_owned())
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    let Some(topology) = ground.topology() else { return Ok(()) };
    for (section, proto) in sections.iter_mut().zip([Proto::Tcp, Proto::Udp]) {
        for (case, duel) in section.cases_mut().zip(duels(proto)) {
            let mut servers = Vec::new();
            let mut port = 0;
            let mut evidence = Vec::new();
            for (binding, name) in duel.sockets.iter().zip(["first", "second"]) {
                let mut socket = Tracked::prepare(topology.server(), Side::Server, name, binding)?;
                socket.bind(address(topology.server(), binding.ip, port, None)?)?;
                if binding.listening {
                    socket.listen(FLOWS as u32)?;
                }
                port = socket.local()?.port();
                evidence.extend_from_slice(socket.calls());
                servers.push(Server::new(socket, proto));
            }
            let flows = if duel.sockets.iter().all(|socket| socket.reuse_port) { FLOWS } else { 1 };
            let mut clients = Vec::new();
            for _ in 0..flows {
                let socket = Tracked::open(topology.client(), Side::Client, "client", proto, duel.to.is_ipv4())?;
                clients.push(Client::call(socket, proto, address(topology.client(), duel.to, port, None)?));
            }
            exchange::run(&mut servers, &mut clients)?;
            let reached = clients.iter().filter_map(|client| client.server).collect();
            evidence.extend(clients.iter().take(4).flat_map(Client::evidence));
            case.observe(winner(&reached), evidence);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn of_two_sockets_that_take_in_a_packet_the_kernel_prefers_the_one_the_model_says() {
        testing::agrees(Experiment::Delivery, 17 + 22);
    }
}
