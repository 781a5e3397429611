//! What other hosts would meet: a stand-in, bound as the server of this machine is, called from the lab's second host.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::{Diagnosis, Finding, Health, Layer};
use crate::lab::exchange::{self, Client, Server};
use crate::lab::model::{Binding, Proto};
use crate::lab::outcome::Outcome;
use crate::lab::socket::{Tracked, address};
use crate::lab::topology::{SERVER_V4, SERVER_V4_SECOND, SERVER_V6, Side, Topology};
use crate::lab::why::Standing;
use crate::machine;
use crate::machine::sockets::Protocol;
use crate::verdict::Verdict;

/// The sockets of this machine on a port, to be asked for before the process enters a namespace.
pub fn servers(proto: Proto, port: u16) -> Vec<Binding> {
    let protocol = match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    };
    let here = machine::servers(protocol, port).unwrap_or_default();
    here.iter().map(|server| Standing::of(server).binding).collect()
}

/// Adds to a diagnosis what the second host would meet: each server of the port on this machine has a stand-in on the
/// lab's server, whose own addresses take the place of this machine's.
///
/// # Errors
/// Where the stand-in could not be made.
pub fn from_the_other_host(topology: &Topology, servers: &[Binding], diagnosis: &mut Diagnosis) -> io::Result<()> {
    for server in servers {
        let binding = Binding { ip: translated(server.ip), device: None, ..server.clone() };
        diagnosis.findings.push(call(topology, server, &binding)?);
    }
    Ok(())
}

/// A wildcard and a loopback address stay what they are; any other address becomes the lab's of its family.
fn translated(ip: IpAddr) -> IpAddr {
    match ip {
        ip if ip.is_unspecified() || ip.to_canonical().is_loopback() || ip.to_canonical().is_unspecified() => ip,
        IpAddr::V4(_) => SERVER_V4.into(),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => SERVER_V4.to_ipv6_mapped().into(),
        IpAddr::V6(_) => SERVER_V6.into(),
    }
}

fn call(topology: &Topology, original: &Binding, binding: &Binding) -> io::Result<Finding> {
    let host = topology.server();
    let mut socket = Tracked::prepare(host, Side::Server, "stand-in", binding)?;
    socket.bind(address(host, binding.ip, 0, None)?)?;
    let port = socket.local()?.port();
    if binding.listening {
        socket.listen(8)?;
    }
    let mut servers = [Server::new(socket, binding.proto)];
    let asked: [IpAddr; 3] = [SERVER_V4.into(), SERVER_V4_SECOND.into(), SERVER_V6.into()];
    let mut clients = Vec::new();
    for to in asked {
        let socket = Tracked::open(topology.client(), Side::Client, "client", binding.proto, to.is_ipv4())?;
        clients.push(Client::call(socket, binding.proto, address(topology.client(), to, port, None)?));
    }
    exchange::run(&mut servers, &mut clients)?;
    let outcomes: Vec<Outcome> = clients.iter().map(Client::outcome).collect();
    let reached = |outcome: &Outcome| matches!(outcome, Outcome::Connected | Outcome::Reply);
    let evidence: Vec<String> = asked
        .iter()
        .zip(&outcomes)
        .map(|(to, outcome)| format!("a stand-in bound to {binding}, {to} dialled: {outcome}"))
        .collect();
    let families = [(reached(&outcomes[0]), "IPv4"), (reached(&outcomes[2]), "IPv6")];
    let open: Vec<&str> = families.into_iter().filter_map(|(is_open, family)| is_open.then_some(family)).collect();
    let is_loopback = binding.ip.to_canonical().is_loopback();
    let finding = if outcomes.contains(&Outcome::ReplyLost) {
        let says = format!("{original} is reached, but clients of a second address never get its replies");
        Finding::new(Layer::OtherHost, Health::Warns, says)
    } else if open.is_empty() && is_loopback {
        let says =
            format!("{original} is a loopback address: no other host reaches it. Bind {} for that", wider(binding));
        // Whoever asked for a loopback address may want just that.
        Finding::new(Layer::OtherHost, Health::Warns, says)
    } else if open.is_empty() {
        Finding::fails(Layer::OtherHost, Verdict::Refused, format!("no other host reaches {original}"))
    } else {
        let says =
            format!("other hosts reach {original} by {}, as far as routes and filters let them", open.join(" and "));
        Finding::new(Layer::OtherHost, Health::Fine, says)
    };
    Ok(Finding { evidence, ..finding })
}

fn wider(binding: &Binding) -> &'static str {
    if binding.ip.to_canonical() == IpAddr::from(Ipv4Addr::LOCALHOST) || binding.ip.is_ipv4() {
        "0.0.0.0 or [::]"
    } else {
        "[::]"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::testing;
    use std::net::Ipv6Addr;

    fn seen(binding: &Binding) -> Option<Finding> {
        let topology = testing::topology()?;
        let mut diagnosis = Diagnosis { findings: Vec::new() };
        from_the_other_host(&topology, std::slice::from_ref(binding), &mut diagnosis).unwrap();
        diagnosis.findings.pop()
    }

    #[test]
    fn a_loopback_server_is_said_to_be_out_of_reach_and_a_wildcard_within() {
        let Some(finding) = seen(&Binding::new(Proto::Tcp, Ipv4Addr::LOCALHOST).listening()) else { return };
        assert_eq!(finding.health, Health::Warns);
        assert!(finding.says.contains("Bind 0.0.0.0"), "{}", finding.says);
        let finding = seen(&Binding::new(Proto::Tcp, Ipv6Addr::UNSPECIFIED).listening()).unwrap();
        assert!(finding.says.contains("by IPv4 and IPv6"), "{}", finding.says);
    }

    #[test]
    fn a_server_that_is_bound_and_does_not_listen_is_said_to_be_out_of_reach() {
        let Some(finding) = seen(&Binding::new(Proto::Tcp, Ipv4Addr::UNSPECIFIED)) else { return };
        assert_eq!(finding.health, Health::Fails);
    }

    #[test]
    fn a_udp_wildcard_is_warned_of() {
        let Some(finding) = seen(&Binding::new(Proto::Udp, Ipv4Addr::UNSPECIFIED)) else { return };
        assert_eq!(finding.health, Health::Warns);
    }
}
