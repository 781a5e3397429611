//! `reach`: every kind of bind, dialled on every address, from the same host and from the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::Sections;
use crate::lab::exchange::{self, Client, Server};
use crate::lab::ground::Ground;
use crate::lab::model::{Binding, Dial, Proto, Reach, reach};
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::{Tracked, address};
use crate::lab::topology::{
    SERVER_LINK_LOCAL, SERVER_V4, SERVER_V4_FAR, SERVER_V4_SECOND, SERVER_V6, SERVER_V6_SECOND, Side,
};

pub(super) const ABOUT: &str = "A server on one host is bound in every way there is. Every address is dialled from \
    the same host and from the other one. A wildcard means every address of the host, loopback means the dialling \
    host itself, and a device means where packets arrive, not who has the address.";

/// The second address of the loopback network: any of 127/8 works.
pub(super) const LOOPBACK_SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a server can be bound to.
pub(super) fn bindings(proto: Proto) -> Vec<Binding> {
    let new = |ip: IpAddr| Binding { listening: proto == Proto::Tcp, ..Binding::new(proto, ip) };
    let dual = || new(Ipv6Addr::UNSPECIFIED.into());
    vec![
        new(Ipv4Addr::LOCALHOST.into()),
        new(LOOPBACK_SECOND.into()),
        new(Ipv4Addr::UNSPECIFIED.into()),
        new(Ipv6Addr::LOCALHOST.into()),
        dual().v6_only(),
        dual(),
        new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()),
        new(SERVER_V4.into()),
        new(SERVER_V6.into()),
        new(SERVER_LINK_LOCAL.into()).on("eth0"),
        dual().on("lo"),
        dual().on("eth0"),
        dual().on("eth1"),
    ]
}

/// What can be dialled, from one host and from the other.
pub(super) fn dials() -> Vec<Dial> {
    let addresses: [IpAddr; 9] = [
        Ipv4Addr::LOCALHOST.into(),
        LOOPBACK_SECOND.into(),
        SERVER_V4.into(),
        SERVER_V4_SECOND.into(),
        SERVER_V4_FAR.into(),
        Ipv6Addr::LOCALHOST.into(),
        SERVER_V6.into(),
        SERVER_V6_SECOND.into(),
        SERVER_LINK_LOCAL.into(),
    ];
    [Side::Server, Side::Client].into_iter().flat_map(|from| addresses.map(|to| Dial { from, to })).collect()
}

pub(super) fn predict() -> Sections {
    let columns: Vec<Column> = dials()
        .iter()
        .map(|dial| Column { group: format!("from the {}", dial.from), name: in_words(dial.to) })
        .collect();
    [Proto::Tcp, Proto::Udp]
        .map(|proto| Section {
            title: proto.to_string().to_uppercase(),
            about: String::new(),
            shown: Shown::Glyphs,
            summed_at: None,
            row_head: "the server is bound to",
            columns: columns.clone(),
            rows: bindings(proto).iter().map(row).collect(),
        })
        .into()
}

fn row(binding: &Binding) -> Row {
    let cells = dials().into_iter().map(|dial| {
        let Reach { outcome, rule } = reach(binding, dial);
        let what = vec![
            ("proto", json!(binding.proto)),
            ("bind", json!(binding.ip)),
            ("v6_only", json!(binding.v6_only)),
            ("device", json!(binding.device)),
            ("from", json!(dial.from)),
            ("to", json!(in_words(dial.to))),
        ];
        Some(Case::predicted(what, outcome, rule))
    });
    Row { name: binding.to_string(), cells: cells.collect(), why: why(binding).to_owned() }
}

/// Link-local addresses are dialled on eth0.
pub(super) fn in_words(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(link_local) if link_local.is_unicast_link_local() => format!("{ip}%eth0"),
        ip => ip.to_string(),
    }
}

fn why(binding: &Binding) -> &'static str {
    let udp = binding.proto == Proto::Udp;
    match (binding.ip, binding.device.as_deref()) {
        (_, Some("lo")) => {
            "Bound to lo: only what is sent to a loopback address arrives there. What a host sends to its other addresses counts as arriving on their device."
        }
        (IpAddr::V6(ip), Some("eth0")) if ip.is_unspecified() => {
            "Bound to eth0: whatever comes over that cable, eth1's address too, and what this host sends to eth0's addresses."
        }
        (_, Some("eth1")) => {
            "Bound to eth1: nothing comes over that cable, because the client's route to 203.0.113.1 leads over eth0. Only this host itself gets there."
        }
        (ip, None) if ip == IpAddr::from(Ipv4Addr::LOCALHOST) => {
            "One loopback address: this host alone, by this address alone."
        }
        (ip, None) if ip == IpAddr::from(LOOPBACK_SECOND) => {
            "All of 127.0.0.0/8 is loopback, and each address of it is another one: 127.0.0.1 does not lead here."
        }
        (ip, None) if ip == IpAddr::from(Ipv4Addr::UNSPECIFIED) && udp => {
            "Every IPv4 address arrives; the reply leaves from the address that routing picks, so whoever asked another one drops it."
        }
        (ip, None) if ip == IpAddr::from(Ipv4Addr::UNSPECIFIED) => {
            "Every IPv4 address of this host, from anywhere, and no IPv6."
        }
        (ip, None) if ip == IpAddr::from(Ipv6Addr::LOCALHOST) => {
            "The IPv6 loopback: this host alone. localhost may mean this one or 127.0.0.1."
        }
        (ip, None) if ip == IpAddr::from(Ipv6Addr::UNSPECIFIED) && binding.v6_only && udp => {
            "Every IPv6 address arrives, and no IPv4; a client of the second address hears from the first, and drops it."
        }
        (ip, None) if ip == IpAddr::from(Ipv6Addr::UNSPECIFIED) && binding.v6_only => {
            "Every IPv6 address of this host, from anywhere, and no IPv4."
        }
        (ip, None) if ip == IpAddr::from(Ipv6Addr::UNSPECIFIED) && udp => {
            "Every address of both families arrives; replies leave from the address that routing picks, as on 0.0.0.0."
        }
        (ip, None) if ip == IpAddr::from(Ipv6Addr::UNSPECIFIED) => {
            "Every address of both families, from anywhere: what a bare port means."
        }
        (IpAddr::V6(ip), None) if ip.to_ipv4_mapped().is_some() => {
            "An IPv6 socket with an IPv4 address: it behaves as 127.0.0.1 does."
        }
        (IpAddr::V6(ip), _) if ip.is_unicast_link_local() => {
            "A link-local address: the hosts on that cable, and this one, if they name the device."
        }
        _ => "One address of this host: from anywhere, by this address alone, and never by localhost.",
    }
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    for (section, proto) in sections.iter_mut().zip([Proto::Tcp, Proto::Udp]) {
        let mut servers = Vec::new();
        let mut clients = Vec::new();
        let mut places = Vec::new();
        for (row, binding) in bindings(proto).iter().enumerate().filter(|(_, binding)| ground.may_bind(binding)) {
            let (server, at) = serve(ground, binding)?;
            for (column, dial) in dials().into_iter().enumerate().filter(|(_, dial)| ground.may_dial(*dial)) {
                let Some(host) = ground.host(dial.from) else { continue };
                let socket = Tracked::open(host, dial.from, "client", proto, dial.to.is_ipv4())?;
                clients.push(Client::call(socket, proto, address(host, dial.to, at, Some("eth0"))?));
                places.push((row, column, server.socket.calls().to_vec()));
            }
            servers.push(server);
        }
        exchange::run(&mut servers, &mut clients)?;
        for (client, (row, column, made)) in clients.iter().zip(places) {
            if let Some(case) = &mut section.rows[row].cells[column] {
                case.observe(client.outcome(), [made, client.evidence()].concat());
            }
        }
    }
    Ok(())
}

/// A server on a port that the kernel chooses.
fn serve(ground: &Ground, binding: &Binding) -> io::Result<(Server, u16)> {
    let host = ground.host(Side::Server).ok_or(io::ErrorKind::NotFound)?;
    let mut socket = Tracked::prepare(host, Side::Server, "server", binding)?;
    socket.bind(address(host, binding.ip, 0, binding.device.as_deref())?)?;
    if binding.listening {
        socket.listen(64)?;
    }
    let port = socket.local()?.port();
    Ok((Server::new(socket, binding.proto), port))
}

#[cfg(test)]
mod tests {
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn every_bind_is_reached_from_both_hosts_as_the_model_says() {
        testing::agrees(Experiment::Reach, 2 * 13 * 18);
    }
}
