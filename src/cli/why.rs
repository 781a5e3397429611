//! `greetd why`: who holds an address, what a bind there would meet, and the smallest change that mends it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use serde_json::{Value, json};

use super::causes::describe;
use super::failure::{Failure, Outcome};
use super::output;
use crate::endpoint::{Authority, Endpoint};
use crate::lab::model::{Binding, Proto, Rule};
use crate::lab::why::{Attempt, Change, Standing, attempt, attempts, smallest_change};
use crate::machine::addresses::{is_local, local_addresses};
use crate::machine::settings::{may_bind_low_ports, unprivileged_port_start};
use crate::machine::sockets::Protocol;
use crate::machine::{self, Claim, Holder};
use crate::verdict::Verdict;

/// Say who holds an address, what a bind there would meet, and the smallest change that mends it
///
/// An address is written as an endpoint: :8080, udp://[::]:53, tcp://127.0.0.1:80?reuse-addr. With --bind and --against
/// both sockets are only thought of; their options are v6-only, reuse-addr, reuse-port, device=NAME and, for the one
/// that is there, listening=no.
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
    /// Whether it is only thought of.
    is_imagined: bool,
}

/// What may follow an address.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "they are options of a socket, independent of each other")]
struct Settings {
    v6_only: bool,
    reuse_addr: bool,
    reuse_port: bool,
    device: Option<String>,
    listening: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { v6_only: false, reuse_addr: false, reuse_port: false, device: None, listening: true }
    }
}

/// What was found out about one address.
struct Answer {
    wanted: Wanted,
    holders: Vec<Holder>,
    /// With the options as they were written.
    asked: Attempt,
    attempts: Vec<Attempt>,
    change: Option<Vec<Change>>,
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
    show(args, &[answer(new, Vec::new(), &existing)])
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
        let existing: Vec<Standing> = holders.iter().map(Standing::of).collect();
        answers.push(answer(wanted, holders, &existing));
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
            ..Binding::new(proto, address.ip()).reusing(settings.reuse_addr, settings.reuse_port)
        };
        if all.iter().all(|other| other.address != address) {
            all.push(Wanted { binding, address, listens: settings.listening, is_imagined });
        }
    }
    if all.is_empty() { Err(usage("the name has no address".to_owned())) } else { Ok(all) }
}

fn answer(wanted: Wanted, holders: Vec<Holder>, existing: &[Standing]) -> Answer {
    let asked = attempt(existing, &wanted.binding, "as asked");
    let attempts = attempts(existing, &wanted.binding);
    let change = smallest_change(existing, &wanted.binding);
    Answer { wanted, holders, asked, attempts, change }
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

impl Answer {
    fn name(&self) -> String {
        let only = if self.wanted.binding.v6_only { " v6-only" } else { "" };
        format!("{} {}{only}", self.wanted.binding.proto, self.wanted.address)
    }

    /// Why a bind as it was asked for would fail, where it would.
    fn failure(&self) -> Option<Failure> {
        if let Some(failure) = self.not_allowed() {
            return Some(failure);
        }
        let message = match self.asked.result.as_str() {
            "ok" => return None,
            "depends" => format!("{} may be taken: it depends on options that the kernel does not tell", self.name()),
            errno => format!("a bind to {} would fail with {errno}", self.name()),
        };
        let failure = Failure::new(Verdict::InUse, message).with_causes([self.asked.rule.sentence().to_owned()]);
        Some(failure.with_remedies([self.mend()]))
    }

    /// What stands in the way beside other sockets.
    fn not_allowed(&self) -> Option<Failure> {
        let ip = self.wanted.address.ip();
        let addresses = local_addresses().unwrap_or_default();
        if self.asked.rule == Rule::MappedButV6Only {
            let failure = Failure::new(Verdict::Usage, format!("{} cannot be bound", self.name()));
            return Some(failure.with_causes([self.asked.rule.sentence().to_owned()]));
        }
        if !self.wanted.is_imagined
            && !ip.is_unspecified()
            && !self.wanted.binding.is_wildcard()
            && !is_local(ip, &addresses)
        {
            let failure = Failure::new(Verdict::NotLocal, format!("{ip} is no address of this machine"));
            return Some(failure.with_causes([Rule::NotLocal.sentence().to_owned()]));
        }
        let port = self.wanted.address.port();
        let start = unprivileged_port_start().unwrap_or(1024);
        (!self.wanted.is_imagined && port != 0 && port < start && !may_bind_low_ports()).then(|| {
            Failure::new(Verdict::Permission, format!("port {port} is below {start}, and needs CAP_NET_BIND_SERVICE"))
                .with_causes([Rule::PrivilegedPort.sentence().to_owned()])
                .with_remedies([format!(
                    "sysctl net.ipv4.ip_unprivileged_port_start={port}, or setcap cap_net_bind_service=+ep"
                )])
        })
    }

    fn mend(&self) -> String {
        let stop: Vec<String> = self
            .holders
            .iter()
            .filter_map(|holder| holder.processes.first())
            .map(|process| format!("{} (kill {})", crate::escape::Escaped::new(process.name.as_bytes()), process.pid))
            .collect();
        let changes = self
            .change
            .as_ref()
            .map(|changes| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and "));
        match (changes, stop.is_empty()) {
            (Some(changes), _) if changes.is_empty() => "nothing needs to change".to_owned(),
            (Some(changes), true) => changes,
            (Some(changes), false) => format!("{changes}; or stop {}", stop.join(", ")),
            (None, true) => "bind another address or port".to_owned(),
            (None, false) => format!("stop {}, or bind another address or port", stop.join(", ")),
        }
    }

    fn as_text(&self) -> String {
        let mut text = format!("{}\n", self.name());
        if self.holders.is_empty() && !self.wanted.is_imagined {
            text.push_str("  nobody is there\n");
        }
        for holder in &self.holders {
            let _ = writeln!(text, "  {}", describe(holder));
            for process in &holder.processes {
                let command = crate::escape::Escaped::new(process.command.as_bytes());
                let _ = writeln!(text, "    pid {} of user {}: {command}", process.pid, holder.socket.uid);
            }
        }
        text.push_str("  a bind with\n");
        for Attempt { options, result, rule } in &self.attempts {
            let _ = writeln!(text, "    {options:30} {result:10} {rule}");
        }
        let rules: BTreeSet<Rule> = self.attempts.iter().map(|attempt| attempt.rule).collect();
        for rule in rules {
            let _ = writeln!(text, "  {rule}: {}", rule.sentence());
        }
        let _ = writeln!(text, "  the smallest change: {}", self.mend());
        text
    }

    fn as_json(&self) -> Value {
        json!({
            "address": self.wanted.address.to_string(),
            "proto": self.wanted.binding.proto,
            "v6_only": self.wanted.binding.v6_only,
            "device": self.wanted.binding.device,
            "holders": self.holders,
            "result": self.asked.result,
            "rule": self.asked.rule,
            "attempts": self.attempts,
            "changes": self.change.as_ref().map(|changes| changes.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "mend": self.mend(),
        })
    }
}
