//! Why a bind or a call failed here and now, from what this machine shows, and what to do about it.

mod binding;
mod calling;

use serde_json::json;

use crate::endpoint::Endpoint;
use crate::escape::Escaped;
use crate::machine::addresses::{LocalAddress, local_addresses};
use crate::machine::processes::Process;
use crate::machine::sockets::Protocol;
use crate::machine::{Holder, UnixHolder};

pub(super) use binding::bind_failed;
pub(super) use calling::{broken, dial_failed, unanswered};

/// What to do about a name without an address.
const NAMES: &str =
    "write an address in its place; names come from /etc/hosts and from the servers in /etc/resolv.conf";

/// The protocol whose ports an endpoint uses, where it is one that the kernel keeps a table of.
fn protocol(endpoint: &Endpoint) -> Option<Protocol> {
    match endpoint.transport() {
        "tcp" => Some(Protocol::Tcp),
        "udp" | "quic" => Some(Protocol::Udp),
        _ => None,
    }
}

/// A socket and whose it is: `python3 (pid 42) has tcp 127.0.0.1:8080 open: listening, SO_REUSEADDR, no SO_REUSEPORT`.
pub(super) fn describe(holder: &Holder) -> String {
    let socket = &holder.socket;
    let mut facts = vec![match socket.state {
        crate::machine::sockets::State::Bound => "bound but not listening (`ss -ltn` does not show it)".to_owned(),
        state => state.to_string(),
    }];
    facts.extend(socket.ends_in_ms.map(|left| format!("for {} s more", left.div_ceil(1000))));
    facts.extend(socket.remote.map(|remote| format!("connected to {remote}")));
    facts.extend(socket.backlog.map(|backlog| format!("backlog {} of {}", backlog.waiting, backlog.limit)));
    if let Some(options) = holder.options {
        let with = |is_set, name: &str| if is_set { String::from(name) } else { format!("no {name}") };
        facts.push(with(options.reuse_addr, "SO_REUSEADDR"));
        facts.push(with(options.reuse_port, "SO_REUSEPORT"));
    }
    if socket.local.ip().is_unspecified() && socket.local.is_ipv6() {
        facts.extend(socket.v6_only.map(|only| if only { "IPv6 alone" } else { "IPv4 too" }.to_owned()));
    }
    facts.extend(socket.device.as_ref().map(|device| format!("on {device} alone")));
    let owner = owner(&holder.processes).unwrap_or_else(|| match socket.inode {
        0 => "no process any more".to_owned(),
        _ => format!("a process of user {} (run as root to see which)", holder.user.as_deref().unwrap_or("nobody")),
    });
    let have = if holder.processes.len() > 1 { "have" } else { "has" };
    format!("{owner} {have} {} {} open: {}", socket.protocol, socket.local, facts.join(", "))
}

fn describe_unix(holder: &UnixHolder) -> String {
    let owner = owner(&holder.processes).unwrap_or_else(|| "a process of another user".to_owned());
    let have = if holder.processes.len() > 1 { "have" } else { "has" };
    format!("{owner} {have} {} open{}", holder.socket.local, if holder.socket.listening { ": listening" } else { "" })
}

/// A socket is often open in a process and in its children: the first is named, the others counted.
fn owner(processes: &[Process]) -> Option<String> {
    let first = processes.first()?;
    let name = Escaped::new(first.name.as_bytes());
    let others = match processes.len() - 1 {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Some(format!("{name} (pid {}){others}", first.pid))
}

/// The addresses of this machine, in words: `127.0.0.1 (lo), 192.0.2.1 (eth0)`.
fn own_addresses() -> (Vec<LocalAddress>, String) {
    let addresses = local_addresses().unwrap_or_default();
    let words: Vec<_> = addresses.iter().map(|local| format!("{local} ({})", local.interface)).collect();
    (addresses, words.join(", "))
}

/// The names of this machine's network interfaces.
fn interfaces() -> String {
    let names = nix::net::if_::if_nameindex();
    let names = names.iter().flatten().map(|interface| interface.name().to_string_lossy().into_owned());
    names.collect::<Vec<_>>().join(", ")
}

/// A step that failed, as JSON.
pub(super) fn as_json(call: &str, error: &std::io::Error) -> serde_json::Value {
    let errno = error.raw_os_error().map(|number| format!("{:?}", nix::errno::Errno::from_raw(number)));
    json!({ "call": call, "error": crate::error::named(error).to_string(), "errno": errno })
}
