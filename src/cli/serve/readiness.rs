//! What a daemon says once all is bound: one line for each listener, and on a terminal how it is reached.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;

use serde_json::json;

use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::machine::addresses::{local_addresses, reachable};
use crate::machine::sockets::{Protocol, sockets};
use crate::server::BoundListener;

/// Says it on stdout, unless a listener's conversation runs there: then on stderr.
pub(super) fn announce(listeners: &[BoundListener], json: bool) -> Outcome {
    let text = if json {
        let each: Vec<_> = listeners
            .iter()
            .map(|listener| json!({ "endpoint": listener.to_string(), "handler": listener.handler }))
            .collect();
        format!("{}\n", json!({ "verdict": "ok", "listeners": each }))
    } else {
        let line = |listener: &BoundListener| format!("listening {listener} handler={}\n", listener.handler);
        listeners.iter().map(line).collect()
    };
    if listeners.iter().any(|listener| transport(listener) == "stdio") {
        output::tell(text.trim_end());
    } else {
        output::print(text)?;
    }
    if io::stderr().is_terminal() {
        for listener in listeners {
            if let Some(address) = listener.address.ip() {
                output::tell(hints(listener, address).trim_end());
            }
        }
    }
    Ok(())
}

fn transport(listener: &BoundListener) -> &str {
    listener.scheme.rsplit('+').next().unwrap_or_default()
}

/// The addresses to dial, from here and from other hosts.
fn hints(listener: &BoundListener, bound: SocketAddr) -> String {
    let v6_only = bound.is_ipv6() && takes_no_ipv4(bound);
    let reached = reachable(bound, v6_only, &local_addresses().unwrap_or_default());
    let mut text = String::new();
    for (from, from_others) in [("from here", false), ("from other hosts", true)] {
        for reachable in reached.iter().filter(|reachable| reachable.from_others == from_others) {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "  {from}: {}://{} ({})", listener.scheme, reachable.address, reachable.interface);
        }
    }
    if !reached.iter().any(|reachable| reachable.from_others) {
        let port = bound.port();
        let _ =
            writeln!(text, "  from other hosts: not at all; to be reached by them, bind every address: --bind :{port}");
    }
    text
}

fn takes_no_ipv4(bound: SocketAddr) -> bool {
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .flat_map(|protocol| sockets(protocol, bound.port()).unwrap_or_default())
        .any(|socket| socket.local == bound && socket.v6_only == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn listener(scheme: &str, address: &str) -> (BoundListener, SocketAddr) {
        let bound = address.parse().unwrap();
        (BoundListener { scheme: scheme.into(), address: Address::Ip(bound), handler: "hello".into() }, bound)
    }

    #[test]
    fn a_loopback_listener_is_said_to_be_out_of_reach_for_others() {
        let (listener, bound) = listener("tls+tcp", "127.0.0.1:9");
        assert_eq!(
            hints(&listener, bound),
            "  from here: tls+tcp://127.0.0.1:9 (lo)\n  from other hosts: not at all; to be reached by them, bind \
             every address: --bind :9\n"
        );
        assert_eq!(transport(&listener), "tcp");
    }

    #[test]
    fn a_wildcard_listener_shows_the_loopback_address_among_others() {
        let (listener, bound) = listener("udp", "0.0.0.0:9");
        assert!(hints(&listener, bound).contains("from here: udp://127.0.0.1:9 (lo)\n"));
    }
}
