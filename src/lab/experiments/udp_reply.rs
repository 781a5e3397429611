//! `udp-reply`: from which address the answer to a datagram comes, without and with `IP_PKTINFO`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::Sections;
use crate::lab::exchange::{self, Client, Server};
use crate::lab::ground::Ground;
use crate::lab::model::{Binding, Dial, Proto, Rule, arrival, reply_source};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::{Tracked, address};
use crate::lab::topology::{SERVER_V4, SERVER_V4_FAR, SERVER_V4_SECOND, SERVER_V6, SERVER_V6_SECOND, Side};

pub(super) const ABOUT: &str = "A client asks a server that is bound to a wildcard. Routing picks the address from \
    which the answer leaves, and a client that is connected to another one drops it. A second client, which is not \
    connected, shows where the answer came from. With IP_PKTINFO the server answers from the address that was asked.";

/// Whether the server uses `IP_PKTINFO`.
const MODES: [bool; 2] = [false, true];

fn questions() -> Vec<(Binding, IpAddr)> {
    let v4: [IpAddr; 3] = [SERVER_V4.into(), SERVER_V4_SECOND.into(), SERVER_V4_FAR.into()];
    let v6: [IpAddr; 2] = [SERVER_V6.into(), SERVER_V6_SECOND.into()];
    let bound = |ip: IpAddr| Binding::new(Proto::Udp, ip);
    let any4 = bound(Ipv4Addr::UNSPECIFIED.into());
    let any6 = bound(Ipv6Addr::UNSPECIFIED.into());
    let mapped = bound(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into());
    let mut all: Vec<_> = v4.map(|to| (any4.clone(), to)).into();
    all.extend(v4.into_iter().chain(v6).map(|to| (any6.clone(), to)));
    all.extend(v4.map(|to| (mapped.clone(), to)));
    all.push((bound(SERVER_V4_SECOND.into()), SERVER_V4_SECOND.into()));
    all
}

pub(super) fn predict() -> Sections {
    let rows = questions().into_iter().map(|(binding, to)| {
        let cells: Vec<_> = MODES.map(|pktinfo| Some(case(&binding, to, pktinfo))).into();
        let rule = cells[0].as_ref().map_or(Rule::PktInfo, |case| case.rule);
        Row { name: format!("{binding}, asked at {to}"), cells, why: rule.sentence().to_owned() }
    });
    let column = |name: &str| Column { group: "the answer comes from".to_owned(), name: name.to_owned() };
    vec![Section {
        title: "Where the answer comes from".to_owned(),
        about: "\"lost\": the client that is connected to the address it asked drops the answer.".to_owned(),
        shown: Shown::Words,
        summed_at: None,
        row_head: "the server is bound to",
        columns: vec![column("plain"), column("with IP_PKTINFO")],
        rows: rows.collect(),
    }]
}

fn case(binding: &Binding, to: IpAddr, pktinfo: bool) -> Case {
    let packet = arrival(Proto::Udp, Dial { from: Side::Client, to });
    let routed = packet.map_or(to, |packet| reply_source(binding, &packet));
    let (source, rule) = match routed == to {
        _ if !binding.is_wildcard() => (to, Rule::BoundSource),
        _ if pktinfo => (to, Rule::PktInfo),
        true => (to, Rule::RoutePicksAsked),
        false => (routed, Rule::ReplyFromOtherAddress),
    };
    let what = vec![("bind", json!(binding.ip)), ("to", json!(to)), ("pktinfo", json!(pktinfo))];
    Case::predicted(what, heard(Some(source), source == to), rule)
}

fn heard(source: Option<IpAddr>, is_heard: bool) -> Outcome {
    Outcome::Is(match source {
        Some(source) if is_heard => source.to_string(),
        Some(source) => format!("{source}, lost"),
        None => "nowhere".to_owned(),
    })
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    let Some(topology) = ground.topology() else { return Ok(()) };
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for (binding, to) in questions() {
        for pktinfo in MODES {
            let mut socket = Tracked::prepare(topology.server(), Side::Server, "server", &binding)?;
            socket.bind(address(topology.server(), binding.ip, 0, None)?)?;
            let at = address(topology.client(), to, socket.local()?.port(), None)?;
            servers.push(if pktinfo { Server::with_pktinfo(socket)? } else { Server::new(socket, Proto::Udp) });
            let open = |name| Tracked::open(topology.client(), Side::Client, name, Proto::Udp, to.is_ipv4());
            clients.push(Client::call(open("client")?, Proto::Udp, at));
            clients.push(Client::ask(open("other client")?, at));
        }
    }
    let made: Vec<_> = servers.iter().map(|server| server.socket.calls().to_vec()).collect();
    exchange::run(&mut servers, &mut clients)?;
    let cases = sections.iter_mut().flat_map(Section::cases_mut);
    for ((case, asked), made) in cases.zip(clients.chunks(2)).zip(made) {
        let [connected, free] = asked else { continue };
        let source = free.answered_from.map(|from| from.ip());
        let observed = heard(source, connected.outcome() == Outcome::Reply);
        case.observe(observed, [made, connected.evidence(), free.evidence()].concat());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn replies_leave_from_the_address_that_the_model_says_on_every_wildcard() {
        testing::agrees(Experiment::UdpReply, 24);
    }
}
