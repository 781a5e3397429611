//! Why an endpoint could not be bound.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use super::{NAMES, as_json, describe, describe_unix, interfaces, own_addresses, protocol};
use crate::address::Address;
use crate::cli::failure::Failure;
use crate::endpoint::{Authority, Endpoint};
use crate::machine::settings::{may_bind_low_ports, unprivileged_port_start};
use crate::machine::sockets::Protocol;
use crate::machine::{self, Claim, Holder};
use crate::transport::BindError;
use crate::verdict::Verdict;

/// What failed, why, and what to change. `endpoints` are all that were to be bound, with their options.
pub(in crate::cli) fn bind_failed(error: &BindError, endpoints: &[Endpoint]) -> Failure {
    let verdict = Verdict::of_bind(&error.source);
    let failure = Failure::new(verdict, error.to_string())
        .with_fact("endpoint", &error.endpoint)
        .with_fact("failed", as_json(&error.call, &error.source));
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.brief() == error.endpoint) else { return failure };
    match (verdict, error.ip(), protocol(endpoint)) {
        (Verdict::InUse, Some(address), Some(protocol)) => {
            let siblings = siblings(endpoint, endpoints, protocol, address.port());
            in_use(failure, &claim(protocol, address, endpoint), &siblings)
        }
        (Verdict::InUse, ..) => in_use_by_name(failure, endpoint),
        (Verdict::NotLocal, Some(address), _) => not_local(failure, address.ip()),
        (Verdict::Permission, address, _) => permission(failure, &error.call, address, endpoint),
        (Verdict::Unresolved, ..) => failure.with_remedies([NAMES.to_owned()]),
        (_, address, _) => other(failure, &error.source, address),
    }
}

fn claim(protocol: Protocol, address: SocketAddr, endpoint: &Endpoint) -> Claim {
    let option = |name| endpoint.options.get(name);
    let yes = |name| matches!(option(name), Some("yes" | "true" | "on" | "1"));
    Claim { protocol, address, v6_only: yes("v6-only") || yes("ipv6"), device: option("device").map(str::to_owned) }
}

/// The other endpoints of the same command on that port. They were closed again when the bind failed, so the kernel
/// shows them no more.
fn siblings(endpoint: &Endpoint, endpoints: &[Endpoint], of: Protocol, port: u16) -> Vec<String> {
    let others = endpoints.iter().filter(|other| !std::ptr::eq(*other, endpoint));
    others
        .filter(|other| protocol(other) == Some(of) && other.authority.port() == Some(port))
        .map(Endpoint::brief)
        .collect()
}

fn in_use(failure: Failure, claim: &Claim, siblings: &[String]) -> Failure {
    let holders = match machine::holders(claim) {
        Ok(holders) => holders,
        Err(error) => return failure.with_causes([format!("the kernel does not tell who has it: {error}")]),
    };
    // Next to a server its connections are no news.
    let (servers, connections): (Vec<Holder>, Vec<Holder>) =
        holders.into_iter().partition(|holder| holder.socket.state.is_server() && holder.socket.remote.is_none());
    if !servers.is_empty() {
        return failure
            .with_causes(servers.iter().map(describe))
            .with_remedies(instead_of(&servers))
            .with_fact("holders", &servers);
    }
    let (cause, remedy) = if let Some(counted) = count(&connections) {
        let remedy = "wait until they are over (a minute for time-wait), or bind beside them: that takes SO_REUSEADDR \
                      here (--reuse-addr) and on the listener that they came from";
        (counted, remedy)
    } else if siblings.is_empty() {
        let cause = "this kernel shows nobody who has it: it was given up just now, or it is a socket that does not \
                     listen, which Linux shows from 6.8 on";
        (cause.to_owned(), "try again")
    } else {
        let cause = format!("another listener of this command has it: {}", siblings.join(", "));
        (cause, "give each listener an address or a port of its own")
    };
    failure.with_causes([cause]).with_remedies([remedy.to_owned()]).with_fact("holders", &connections)
}

fn instead_of(servers: &[Holder]) -> Vec<String> {
    let another = "bind another address or port; port 0 lets the kernel choose a free one";
    let owners = servers.iter().filter_map(|holder| holder.processes.first());
    let pids: Vec<String> = owners.map(|process| process.pid.to_string()).collect();
    let mut remedies = match pids.as_slice() {
        [] => vec![another.to_owned()],
        pids => vec![format!("stop it (kill {}), or {another}", pids.join(" "))],
    };
    if servers.iter().all(|holder| holder.options.is_some_and(|options| options.reuse_port)) {
        remedies.push("or share the port with it, which it allows to its own user: --reuse-port".to_owned());
    }
    remedies
}

/// `12 connections have the port: 1 established, 11 time-wait`.
fn count(connections: &[Holder]) -> Option<String> {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for holder in connections {
        *states.entry(holder.socket.state.to_string()).or_default() += 1;
    }
    let each: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let have = match connections.len() {
        0 => return None,
        1 => "1 connection has".to_owned(),
        count => format!("{count} connections have"),
    };
    Some(format!("{have} the port, of a listener that is no more: {}", each.join(", ")))
}

fn in_use_by_name(failure: Failure, endpoint: &Endpoint) -> Failure {
    let name = match &endpoint.authority {
        Authority::Path(path) => Address::UnixPath(path.as_path().into()),
        Authority::Abstract(name) => Address::UnixAbstract(name.as_bytes().into()),
        _ => return failure,
    };
    let holders = machine::unix_holders(&name).unwrap_or_default();
    let causes: Vec<_> = holders.iter().map(describe_unix).collect();
    let nobody = causes.is_empty().then(|| "there is a file of that name, and no socket listens there".to_owned());
    failure
        .with_causes(causes.into_iter().chain(nobody))
        .with_remedies(["stop it, or bind another name".to_owned()])
        .with_fact("holders", &holders)
}

fn not_local(failure: Failure, ip: IpAddr) -> Failure {
    let (addresses, words) = own_addresses();
    failure
        .with_causes([format!("{ip} is no address of this machine, which has {words}")])
        .with_remedies([
            "bind one of these, or all of them: a port alone stands for every address".to_owned(),
            "--freebind binds it all the same, for an address that comes later".to_owned(),
        ])
        .with_fact("addresses", &addresses)
}

fn permission(failure: Failure, call: &str, address: Option<SocketAddr>, endpoint: &Endpoint) -> Failure {
    if let Authority::Path(path) = &endpoint.authority {
        let folder = path.parent().map_or_else(|| ".".into(), |folder| folder.display().to_string());
        return failure
            .with_causes([format!("user {} may not make a socket in {folder}", nix::unistd::geteuid())])
            .with_remedies(["bind a path in a folder of its own, such as one below /run/user".to_owned()]);
    }
    if call.contains("SO_BINDTODEVICE") {
        return failure.with_remedies(["leave --device out, or give greetd CAP_NET_RAW".to_owned()]);
    }
    match (address, unprivileged_port_start()) {
        (Some(address), Some(start)) if address.port() < start && !may_bind_low_ports() => failure
            .with_causes([format!(
                "port {} is below net.ipv4.ip_unprivileged_port_start, which is {start}, and this process lacks \
                 CAP_NET_BIND_SERVICE",
                address.port()
            )])
            .with_remedies([
                format!("bind port {start} or above"),
                format!("or lower the limit: sysctl net.ipv4.ip_unprivileged_port_start={}", address.port()),
                "or give greetd the capability: setcap cap_net_bind_service=+ep, or AmbientCapabilities= of systemd"
                    .to_owned(),
            ]),
        _ => failure.with_causes(["a security module or a filter of this machine forbids it".to_owned()]),
    }
}

fn other(failure: Failure, error: &io::Error, address: Option<SocketAddr>) -> Failure {
    let link_local =
        matches!(address, Some(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL) if link_local => {
            failure.with_causes(["a link-local address means nothing without its interface".to_owned()]).with_remedies(
                [format!("write the interface behind it, as in [fe80::1%eth0]:8080; there are {}", interfaces())],
            )
        }
        Some(Errno::ENODEV) => failure.with_causes([format!("the interfaces of this machine are {}", interfaces())]),
        Some(Errno::EAFNOSUPPORT) => {
            failure.with_causes(["this kernel runs without that address family (IPv6 may be switched off)".to_owned()])
        }
        Some(Errno::EMFILE) => failure
            .with_causes(["this process may have no more files open (RLIMIT_NOFILE)".to_owned()])
            .with_remedies(["raise its hard limit: LimitNOFILE= of systemd, or limits.conf".to_owned()]),
        _ => failure,
    }
}
