//! What was found out about one address, in words and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Wanted;
use crate::cli::causes::describe;
use crate::cli::failure::Failure;
use crate::escape::Escaped;
use crate::lab::model::{Binding, Proto, Rule};
use crate::lab::report::wrapped_after;
use crate::lab::why::{Attempt, Change, Standing, are_leftovers, attempt, attempts, smallest_change};
use crate::machine::addresses::{is_local, local_addresses};
use crate::machine::settings::{may_bind_low_ports, unprivileged_port_start};
use crate::machine::sockets::{Protocol, State};
use crate::machine::{Claim, Holder, trial};
use crate::verdict::Verdict;

/// So many connections are described one by one; more are counted.
const CONNECTIONS_SHOWN: usize = 6;

/// What was found out about one address.
pub(super) struct Answer {
    wanted: Wanted,
    holders: Vec<Holder>,
    /// What is thought of as being there.
    imagined: Vec<Binding>,
    /// With the options as they were written.
    asked: Attempt,
    attempts: Vec<Attempt>,
    change: Option<Vec<Change>>,
}

impl Answer {
    /// Beside sockets that are only thought of.
    pub(super) fn imagined(wanted: Wanted, existing: &[Standing]) -> Self {
        let imagined = existing.iter().map(|one| one.binding.clone()).collect();
        Answer { imagined, ..Answer::beside(wanted, Vec::new(), existing) }
    }

    /// Beside the sockets of this machine. Where these are mere connections, what the kernel does not tell of them is
    /// learned by trying: nobody is called there, so nobody is disturbed.
    pub(super) fn real(wanted: Wanted, claim: &Claim, holders: Vec<Holder>) -> Self {
        let existing: Vec<Standing> = holders.iter().map(Standing::of).collect();
        let is_left_alone = claim.protocol == Protocol::Tcp && are_leftovers(&holders);
        let mut answer = Answer::beside(wanted, holders, &existing);
        for attempt in answer.attempts.iter_mut().chain([&mut answer.asked]) {
            attempt.settle(is_left_alone, |options| trial::bind(claim, options));
        }
        if answer.asked.result == "ok" {
            answer.change = Some(Vec::new());
        }
        // The kernel asks for these before it looks at other sockets.
        if let Some(rule) = answer.barrier() {
            let errno = if rule == Rule::NotLocal { "EADDRNOTAVAIL" } else { "EACCES" };
            for attempt in answer.attempts.iter_mut().chain([&mut answer.asked]) {
                errno.clone_into(&mut attempt.result);
                (attempt.rule, attempt.tried) = (rule, false);
            }
            answer.change = None;
        }
        answer
    }

    /// What stops a bind to that address, whatever its reuse options.
    fn barrier(&self) -> Option<Rule> {
        let Wanted { address, binding, freebind, .. } = &self.wanted;
        let addresses = local_addresses().unwrap_or_default();
        if !freebind && !binding.is_wildcard() && !is_local(address.ip(), &addresses) {
            return Some(Rule::NotLocal);
        }
        let port = address.port();
        let start = unprivileged_port_start().unwrap_or(1024);
        (port != 0 && port < start && !may_bind_low_ports()).then_some(Rule::PrivilegedPort)
    }

    fn beside(wanted: Wanted, holders: Vec<Holder>, existing: &[Standing]) -> Self {
        let asked = attempt(existing, &wanted.binding, "as asked");
        let attempts = attempts(existing, &wanted.binding);
        let change = smallest_change(existing, &wanted.binding);
        Answer { wanted, holders, imagined: Vec::new(), asked, attempts, change }
    }

    fn name(&self) -> String {
        let only = if self.wanted.binding.v6_only { " v6-only" } else { "" };
        format!("{} {}{only}", self.wanted.binding.proto, self.wanted.address)
    }

    /// Why a bind as it was asked for would fail, where it would.
    pub(super) fn failure(&self) -> Option<Failure> {
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
        if self.asked.rule == Rule::MappedButV6Only {
            let failure = Failure::new(Verdict::Usage, format!("{} cannot be bound", self.name()));
            return Some(failure.with_causes([self.asked.rule.sentence().to_owned()]));
        }
        let (verdict, message) = match self.asked.rule {
            Rule::NotLocal => {
                (Verdict::NotLocal, format!("{} is no address of this machine", self.wanted.address.ip()))
            }
            Rule::PrivilegedPort => {
                let (port, start) = (self.wanted.address.port(), unprivileged_port_start().unwrap_or(1024));
                (Verdict::Permission, format!("port {port} is below {start}, and needs CAP_NET_BIND_SERVICE"))
            }
            _ => return None,
        };
        let failure = Failure::new(verdict, message).with_causes([self.asked.rule.sentence().to_owned()]);
        Some(failure.with_remedies([self.mend()]))
    }

    /// The smallest change that mends it.
    fn mend(&self) -> String {
        if self.asked.result == "ok" {
            return "nothing needs to change".to_owned();
        }
        match self.asked.rule {
            Rule::NotLocal => {
                return "bind an address that this machine has, or a port alone for all of them; or set IP_FREEBIND \
                        (--freebind), for an address that comes later"
                    .to_owned();
            }
            Rule::PrivilegedPort => {
                let port = self.wanted.address.port();
                return format!(
                    "sysctl net.ipv4.ip_unprivileged_port_start={port}, or setcap cap_net_bind_service=+ep"
                );
            }
            _ => {}
        }
        let stop = self.whom_to_stop();
        if are_leftovers(&self.holders) && self.wanted.binding.proto == Proto::Tcp {
            return self.mend_leftovers(&stop);
        }
        let changes = self
            .change
            .as_ref()
            .map(|changes| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and "));
        match (changes, stop.is_empty()) {
            (Some(changes), _) if changes.is_empty() => "nothing needs to change".to_owned(),
            (Some(changes), true) => changes,
            (Some(changes), false) => format!("{changes}; or stop {stop}"),
            (None, true) => "bind another address or port".to_owned(),
            (None, false) => format!("stop {stop}, or bind another address or port"),
        }
    }

    /// Their listener is gone: what it had set is not to be changed any more.
    fn mend_leftovers(&self, stop: &str) -> String {
        if let Some(attempt) = self.attempts.iter().find(|attempt| attempt.result == "ok") {
            return format!("set {} on the new socket", attempt.options);
        }
        let left = self.holders.iter().filter_map(|holder| holder.socket.ends_in_ms).max();
        let wait = left.map(|left| format!("wait {} s, until TIME_WAIT is over", left.div_ceil(1000)));
        let end = (!stop.is_empty()).then(|| format!("end the connections that are still open: stop {stop}"));
        let now: Vec<String> = end.into_iter().chain(wait).collect();
        let next = "set SO_REUSEADDR on the listener from the start (greetd does), and the next restart meets none of \
                    this";
        match &now[..] {
            [] => format!("bind another address or port; {next}"),
            now => format!("{}; {next}", now.join(", and ")),
        }
    }

    fn whom_to_stop(&self) -> String {
        let mut all: Vec<String> = Vec::new();
        for process in self.holders.iter().filter_map(|holder| holder.processes.first()) {
            let one = format!("{} (kill {})", Escaped::new(process.name.as_bytes()), process.pid);
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all.join(", ")
    }

    pub(super) fn as_text(&self) -> String {
        let mut lines = vec![self.name()];
        let is_alone = self.holders.is_empty() && !self.wanted.is_imagined;
        if is_alone {
            lines.push("  nobody is there".to_owned());
        }
        for binding in &self.imagined {
            let options = sharing((binding.reuse_addr, binding.reuse_port));
            let state = if binding.listening { "listening" } else { "bound" };
            lines.push(format!("  beside {} {binding}, {state}, with {options}", binding.proto));
        }
        self.describe_holders(&mut lines);
        let asked = sharing((self.wanted.binding.reuse_addr, self.wanted.binding.reuse_port));
        for attempt in &self.attempts {
            let Attempt { options, result, rule, tried, .. } = attempt;
            let mark = if *options == asked { "  (as asked)" } else { "" };
            let tried = if *tried { "  (tried just now)" } else { "" };
            lines.push(format!("  a bind with {options:29}  {result}{mark}{tried}"));
            // Where nothing is there, there are no two sockets for that rule to speak of.
            if !(is_alone && *rule == Rule::NoOverlap) {
                lines.push(wrapped_after("      ", &format!("{rule}: {}", rule.sentence()), 6));
            }
        }
        lines.push(wrapped_after("  the smallest change: ", &self.mend(), 6));
        lines.join("\n") + "\n"
    }

    fn describe_holders(&self, lines: &mut Vec<String>) {
        let is_shown = |place: usize| place < CONNECTIONS_SHOWN;
        let (servers, connections): (Vec<&Holder>, Vec<&Holder>) =
            self.holders.iter().partition(|holder| holder.socket.state.is_server());
        let shown = connections.iter().enumerate().filter(|(place, _)| is_shown(*place)).map(|(_, holder)| holder);
        for holder in servers.iter().chain(shown) {
            lines.push(wrapped_after("  ", &describe(holder), 6));
            for process in &holder.processes {
                let command = Escaped::new(process.command.as_bytes()).to_string();
                let user = holder.user.as_deref().unwrap_or("nobody");
                lines.push(wrapped_after(&format!("    pid {} of user {user}: ", process.pid), &command, 8));
            }
        }
        let mut others: BTreeMap<State, usize> = BTreeMap::new();
        for holder in connections.iter().skip(CONNECTIONS_SHOWN) {
            *others.entry(holder.socket.state).or_default() += 1;
        }
        let each: Vec<String> = others.iter().map(|(state, count)| format!("{count} {state}")).collect();
        if !each.is_empty() {
            lines.push(wrapped_after("  and more connections: ", &each.join(", "), 6));
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "address": self.wanted.address.to_string(),
            "proto": self.wanted.binding.proto,
            "v6_only": self.wanted.binding.v6_only,
            "reuse_addr": self.wanted.binding.reuse_addr,
            "reuse_port": self.wanted.binding.reuse_port,
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

/// The reuse options of a socket, as [`attempts`] calls them.
fn sharing(options: (bool, bool)) -> &'static str {
    match options {
        (false, false) => "none",
        (true, false) => "SO_REUSEADDR",
        (false, true) => "SO_REUSEPORT",
        (true, true) => "SO_REUSEADDR and SO_REUSEPORT",
    }
}
