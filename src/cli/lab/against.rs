//! `greetd lab --against HOST:PORT`: names the first layer that keeps a server from answering.

use std::fmt::Write as _;

use serde_json::json;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::endpoint::{Authority, Endpoint};
use crate::lab::doctor::{self, Diagnosis, Finding};
use crate::lab::model::Proto;
use crate::lab::report::wrapped_after;
use crate::lab::{Topology, isolation};
use crate::verdict::Verdict;

pub(super) fn run(against: &str, json: bool) -> Outcome {
    let (proto, host, port) = read(against).map_err(|reason| Failure::new(Verdict::Usage, reason))?;
    let mut diagnosis = doctor::examine(proto, &host, port);
    // Whose sockets they are is seen only from outside of a namespace.
    let servers = doctor::servers(proto, port);
    let is_here = diagnosis.findings.iter().filter_map(|finding| finding.address).any(|address| {
        let addresses = crate::machine::addresses::local_addresses().unwrap_or_default();
        crate::machine::addresses::is_local(address.ip(), &addresses)
    });
    let mut limits = Vec::new();
    if is_here && !servers.is_empty() {
        let _ = isolation::enter();
        let seen = Topology::new().map_err(|error| error.to_string()).and_then(|topology| {
            doctor::from_the_other_host(&topology, &servers, &mut diagnosis).map_err(|error| error.to_string())
        });
        limits.extend(seen.err().map(|error| format!("what other hosts would meet could not be tried: {error}")));
    }
    let failure = diagnosis.first_failure().map(|finding| failure(against, finding));
    if json {
        let object = json!({ "verdict": "ok", "findings": diagnosis.findings, "limits": limits });
        return match failure {
            Some(failure) => Err(failure.with_fact("findings", &diagnosis.findings).with_fact("limits", limits).into()),
            None => output::print_json(&object),
        };
    }
    output::print(as_text(&diagnosis, &limits))?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn read(text: &str) -> Result<(Proto, String, u16), String> {
    let endpoint = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
    let endpoint: Endpoint = endpoint.parse().map_err(|error| format!("{error}"))?;
    let proto = match endpoint.transport() {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        other => return Err(format!("only tcp and udp can be looked at, not {other}")),
    };
    match endpoint.authority {
        Authority::Host { name, port } => Ok((proto, name, port)),
        Authority::Ip { ip, scope: None, port } => Ok((proto, ip.to_string(), port)),
        Authority::Ip { ip, scope: Some(scope), port } => Ok((proto, format!("{ip}%{scope}"), port)),
        Authority::Port(port) => Ok((proto, "localhost".to_owned(), port)),
        _ => Err(format!("`{text}` is no HOST:PORT")),
    }
}

fn failure(against: &str, finding: &Finding) -> Failure {
    let at = finding.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let message = format!("{against}: the first layer that fails is {}{at}: {}", finding.layer.word(), finding.says);
    Failure::new(finding.verdict, message).with_causes(finding.evidence.iter().cloned())
}

fn as_text(diagnosis: &Diagnosis, limits: &[String]) -> String {
    let mut text = String::new();
    let mut last = None;
    for finding in &diagnosis.findings {
        if finding.address.is_some() && finding.address != last {
            last = finding.address;
            let _ = writeln!(text, "{}", finding.address.map(|address| address.to_string()).unwrap_or_default());
        }
        let before = format!("  {} {:10} ", finding.health.glyph(), finding.layer.word());
        let _ = writeln!(text, "{}", wrapped_after(&before, &finding.says, 15));
        for line in &finding.evidence {
            let _ = writeln!(text, "{}", wrapped_after("                 ", line, 19));
        }
    }
    for limit in limits {
        let _ = writeln!(text, "{}", wrapped_after("", limit, 0));
    }
    let _ = writeln!(text, "# fine, x fails, ! will surprise somebody, ? cannot be seen");
    text
}
