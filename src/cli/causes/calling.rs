//! Why a call did not come to an answer.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{NAMES, as_json, describe, own_addresses, protocol};
use crate::address::Address;
use crate::cli::failure::Failure;
use crate::endpoint::{Authority, Endpoint};
use crate::error::Error;
use crate::machine::addresses::{is_local, local_addresses};
use crate::machine::sockets::Protocol;
use crate::machine::{self, Claim};
use crate::service::DialError;
use crate::transport::ConnectError;
use crate::verdict::Verdict;

/// Why there was no conversation.
pub(in crate::cli) fn dial_failed(error: &DialError, endpoint: &Endpoint) -> Failure {
    match error {
        DialError::Connect(refused) => connect_failed(refused, endpoint),
        DialError::Open { source, .. } => {
            Failure::new(verdict(source), error.to_string()).with_causes([format!("it connected; then {source}")])
        }
        DialError::Slow { .. } => Failure::new(Verdict::Timeout, error.to_string()),
    }
}

/// Why a conversation broke off.
pub(in crate::cli) fn broken(error: &Error, endpoint: &Endpoint, remote: &Address) -> Failure {
    let verdict = verdict(error);
    let failure = Failure::new(verdict, format!("failed to converse with {}: {error}", endpoint.brief()));
    match (verdict, remote.ip()) {
        (Verdict::Refused, Some(remote)) => refused(failure, remote, endpoint),
        _ => failure,
    }
}

/// No answer came in time.
pub(in crate::cli) fn unanswered(what: &str, endpoint: &Endpoint, remote: Option<&Address>) -> Failure {
    let failure = Failure::new(Verdict::Timeout, format!("failed to converse with {}: {what}", endpoint.brief()));
    match remote.and_then(Address::ip) {
        Some(remote) => silent(failure, remote, endpoint),
        None => failure,
    }
}

/// What an error of a session means for whoever called.
fn verdict(error: &Error) -> Verdict {
    match error {
        Error::Link(error) => Verdict::of_connect(error),
        Error::Framing(_) | Error::TooLong { .. } | Error::Handshake { .. } => Verdict::Unexpected,
        _ => Verdict::Failed,
    }
}

fn connect_failed(error: &ConnectError, endpoint: &Endpoint) -> Failure {
    let verdict = error.decisive().map_or(Verdict::Failed, Verdict::of_connect);
    let tried: Vec<Value> = error.attempts.iter().map(|attempt| as_json(&attempt.call, &attempt.error)).collect();
    let failure = Failure::new(verdict, error.to_string()).with_fact("tried", tried);
    let remote = error.attempts.last().and_then(crate::transport::Attempt::ip);
    match (verdict, remote) {
        (Verdict::Refused, Some(remote)) => refused(failure, remote, endpoint),
        (Verdict::Timeout, Some(remote)) => silent(failure, remote, endpoint),
        (Verdict::Unreachable, Some(remote)) => unreachable(failure, remote.ip()),
        (Verdict::Prohibited, Some(_)) => failure.with_causes([
            "a filter or a `prohibit` route on the way says no; see `nft list ruleset`, `ip route`".to_owned(),
        ]),
        (Verdict::Unresolved, _) => failure.with_remedies([NAMES.to_owned()]),
        _ => by_name(failure, error.decisive(), endpoint),
    }
}

/// Somebody answered, and it was a no.
fn refused(failure: Failure, remote: SocketAddr, endpoint: &Endpoint) -> Failure {
    let Some(protocol) = protocol(endpoint) else { return failure };
    if !is_local(remote.ip(), &local_addresses().unwrap_or_default()) {
        return failure.with_causes([format!(
            "{} answered: nothing is bound to {protocol} port {} there, or only to another address; or a filter rejects",
            remote.ip(),
            remote.port()
        )]);
    }
    let (covering, others) = local_servers(protocol, remote);
    let is_taken = !covering.is_empty();
    let causes = match (covering.is_empty(), others.is_empty()) {
        (false, _) => covering,
        (true, true) => vec![format!("nothing on this machine is bound to {protocol} port {}", remote.port())],
        (true, false) => {
            let not_here = format!("none of these takes what is sent to {}:", remote.ip());
            std::iter::once(not_here).chain(others).collect()
        }
    };
    let failure = failure.with_causes(causes);
    let other = match protocol {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Tcp,
    };
    let (on_other, _) = local_servers(other, remote);
    if !on_other.is_empty() {
        failure.with_causes(on_other).with_remedies([format!("call {other}://{remote}")])
    } else if is_taken {
        // Another server could not be bound there.
        failure
            .with_remedies([format!("let it listen, or see what frees the address: greetd why {protocol}://{remote}")])
    } else {
        failure.with_remedies([format!("start a server there: greetd --transport {protocol} --bind {remote}")])
    }
}

/// Nobody answered.
fn silent(failure: Failure, remote: SocketAddr, endpoint: &Endpoint) -> Failure {
    let Some(protocol) = protocol(endpoint) else { return failure };
    if !is_local(remote.ip(), &local_addresses().unwrap_or_default()) {
        return failure.with_causes([format!(
            "nothing came back from {}: a filter drops what is sent there, the host is down, or its answer is lost on \
             the way back",
            remote.ip()
        )]);
    }
    let (covering, _) = local_servers(protocol, remote);
    let failure = failure.with_causes(covering);
    match protocol {
        Protocol::Udp => failure.with_causes(["a datagram and its answer may be lost, and nobody is told".to_owned()]),
        Protocol::Tcp => failure,
    }
}

fn unreachable(failure: Failure, ip: IpAddr) -> Failure {
    let (addresses, words) = own_addresses();
    let in_family =
        addresses.iter().any(|local| local.ip.is_ipv4() == ip.is_ipv4() && !local.is_loopback() && local.scope == 0);
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let cause = if in_family {
        format!("no route leads to {ip}, or the last router found nobody there; see `ip route get {ip}`")
    } else {
        format!("this machine has no {family} address to call it from; it has {words}")
    };
    failure.with_causes([cause])
}

/// The sockets of this machine that take what is sent to the address, and those on the same port that do not.
fn local_servers(protocol: Protocol, address: SocketAddr) -> (Vec<String>, Vec<String>) {
    let claim = Claim::new(protocol, address);
    let servers = machine::servers(protocol, address.port()).unwrap_or_default();
    let (covering, others): (Vec<_>, Vec<_>) = servers.iter().partition(|holder| claim.overlaps(&holder.socket));
    let words = |holders: Vec<_>| holders.into_iter().map(describe).collect();
    (words(covering), words(others))
}

fn by_name(failure: Failure, error: Option<&io::Error>, endpoint: &Endpoint) -> Failure {
    let Authority::Path(path) = &endpoint.authority else { return failure };
    match error.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => failure.with_causes([format!("there is no file {}", path.display())]),
        Some(io::ErrorKind::ConnectionRefused) => failure.with_causes([
            "the file is there, and nobody listens: it was left behind by a process that is no more".to_owned(),
        ]),
        Some(io::ErrorKind::PermissionDenied) => failure.with_causes([format!(
            "user {} may not write to {}; see its mode with ls -l",
            nix::unistd::geteuid(),
            path.display()
        )]),
        _ => failure,
    }
}
