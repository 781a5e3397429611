//! `greetd why`: who holds an address, what a bind there would meet, and the smallest change that mends it.

mod answer;

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use serde_json::json;

use super::failure::{Failure, Outcome};
use super::output;
use crate::endpoint::{Authority, Endpoint};
use crate::lab::model::{Binding, Proto};
use crate::lab::why::Standing;
use crate::machine::sockets::Protocol;
use crate::machine::{self, Claim};
use crate::verdict::Verdict;
use answer::Answer;

/// Say who holds an address, what a bind there would meet, and the smallest change that mends it
///
/// An address is written as an endpoint: :8080, udp://[::]:53, tcp://127.0.0.1:80?reuse-port. Its options are v6-only,
/// reuse-addr (yes on TCP where it is left out, as greetd binds), reuse-port, freebind and device=NAME. With --bind and
/// --against both sockets are only thought of; the one that is there has listening=no as well. Nothing is bound, but for
/// a moment where only connections of a closed TCP listener are in the way: what it had set, the kernel tells nobody.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The address that you want to bind
    #[arg(value_name = "ADDRESS", required_unless_present = "bind")]
    address: Option<String>,
    /// A socket that you think of binding
    #[arg(long, value_name = "ADDRESS", requires = "against", conflicts_with = "address")]
    bind: Option<String>,
    /// A socket that you think of as being there already
    #[arg(long, value_name = "ADDRESS", requires = "bind")]
    against: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A socket as it was written on the command line.
#[derive(Debug)]
struct Wanted {
    binding: Binding,
    address: SocketAddr,
    /// Whether it listens, where it is thought of as being there.
    listens: bool,
    /// Whether it may be an address that is not there.
    freebind: bool,
    /// Whether it is only thought of.
    is_imagined: bool,
}

/// What may follow an address.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "they are options of a socket, independent of each other")]
struct Settings {
    v6_only: bool,
    /// Left out: as the transport has it.
    reuse_addr: Option<bool>,
    reuse_port: bool,
    freebind: bool,
    device: Option<String>,
    listening: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { v6_only: false, reuse_addr: None, reuse_port: false, freebind: false, device: None, listening: true }
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    match (&args.address, &args.bind, &args.against) {
        (_, Some(bind), Some(against)) => imagined(args, bind, against),
        (Some(address), ..) => real(args, address),
        _ => Err(Failure::new(Verdict::Usage, "an address is needed, such as :8080").into()),
    }
}

fn imagined(args: &Args, bind: &str, against: &str) -> Outcome {
    let one = |text| read(text, true).map(|mut all| all.swap_remove(0));
    let (new, old) = (one(bind)?, one(against)?);
    let mut existing = Vec::new();
    // Two ports never meet.
    if old.address.port() == new.address.port() {
        let listening = old.listens && old.binding.proto == Proto::Tcp;
        existing.push(Standing::imagined(Binding { listening, ..old.binding }));
    }
    show(args, &[Answer::imagined(new, &existing)])
}

fn real(args: &Args, address: &str) -> Outcome {
    let mut answers = Vec::new();
    for wanted in read(address, false)? {
        let protocol = match wanted.binding.proto {
            Proto::Tcp => Protocol::Tcp,
            Proto::Udp => Protocol::Udp,
        };
        let claim = Claim {
            v6_only: wanted.binding.v6_only,
            device: wanted.binding.device.clone(),
            ..Claim::new(protocol, wanted.address)
        };
        let failed =
            |error| Failure::new(Verdict::Failed, format!("failed to ask the kernel for its sockets: {error}"));
        let holders = machine::holders(&claim).map_err(failed)?;
        answers.push(Answer::real(wanted, &claim, holders));
    }
    show(args, &answers)
}

/// An address may be a name that stands for several. A bare port means both families on one socket.
fn read(text: &str, is_imagined: bool) -> Result<Vec<Wanted>, Failure> {
    let usage = |reason: String| Failure::new(Verdict::Usage, format!("`{text}` cannot be looked at: {reason}"));
    let endpoint = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
    let endpoint: Endpoint = endpoint.parse().map_err(|error| usage(format!("{error}")))?;
    let proto = match endpoint.transport() {
        "tcp" => Proto::Tcp,
        "udp" | "quic" => Proto::Udp,
        other => return Err(usage(format!("only tcp and udp have ports, not {other}"))),
    };
    let settings: Settings = endpoint.options.read().map_err(|error| usage(error.to_string()))?;
    let reuse_addr = settings.reuse_addr.unwrap_or(proto == Proto::Tcp);
    let (addresses, scope) = match &endpoint.authority {
        Authority::Port(port) => (vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))], None),
        Authority::Ip { ip, scope, port } => (vec![SocketAddr::from((*ip, *port))], scope.clone()),
        Authority::Host { name, port } => {
            let unresolved =
                |error| Failure::new(Verdict::Unresolved, format!("the name {name} has no address: {error}"));
            ((name.as_str(), *port).to_socket_addrs().map_err(unresolved)?.collect(), None)
        }
        other => return Err(usage(format!("`{other}` is no address with a port; write for example :8080"))),
    };
    let mut all: Vec<Wanted> = Vec::new();
    for address in addresses {
        let binding = Binding {
            v6_only: settings.v6_only && address.is_ipv6(),
            device: settings.device.clone().or_else(|| scope.clone()),
            user: nix::unistd::geteuid().as_raw(),
            ..Binding::new(proto, address.ip()).reusing(reuse_addr, settings.reuse_port)
        };
        if all.iter().all(|other| other.address != address) {
            all.push(Wanted {
                binding,
                address,
                listens: settings.listening,
                freebind: settings.freebind,
                is_imagined,
            });
        }
    }
    if all.is_empty() { Err(usage("the name has no address".to_owned())) } else { Ok(all) }
}

fn show(args: &Args, answers: &[Answer]) -> Outcome {
    let failure = answers.iter().find_map(Answer::failure);
    let facts = json!(answers.iter().map(Answer::as_json).collect::<Vec<_>>());
    match (args.json, failure) {
        (true, Some(failure)) => Err(failure.with_fact("addresses", facts).into()),
        (true, None) => output::print_json(&json!({ "verdict": "ok", "addresses": facts })),
        (false, failure) => {
            output::print(answers.iter().map(Answer::as_text).collect::<Vec<_>>().join("\n"))?;
            failure.map_or(Ok(()), |failure| Err(failure.into()))
        }
    }
}
