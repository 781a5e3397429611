//! The options of endpoints as options of the command line: the same names, from the same tables.
//!
//! Whatever a limit, a transport, a layer or a framing takes in a query can be given as a long option too, built in or
//! added by whoever made this binary. Its value is read, and an option that does not belong refused by name, where
//! the endpoint is resolved.

use std::collections::BTreeSet;

use clap::{Arg, ArgMatches};

use crate::limits;
use crate::options::{OptionDoc, Options};
use crate::registry::{Kind, Registry};

/// Short names, for those that everybody knows.
const SHORT: [(&str, char); 2] = [("ipv4", '4'), ("ipv6", '6')];

/// The command with an option for each option of an endpoint; what the command has already stays.
pub(super) fn add_to(mut command: clap::Command, registry: &Registry) -> clap::Command {
    let mut taken: BTreeSet<String> =
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    for (order, option) in offered(registry).into_iter().enumerate() {
        if taken.insert(option.doc.name.to_owned()) {
            command = command.arg(option.argument().display_order(1000 + order));
        }
    }
    command
}

/// What was given of them.
pub(super) fn given(matches: &ArgMatches, registry: &Registry) -> Options {
    let mut options = Options::default();
    for option in offered(registry) {
        // An option of the command that has the same name is no text, or not there.
        if let Ok(Some(value)) = matches.try_get_one::<String>(option.doc.name) {
            options.set(option.doc.name, value);
        }
    }
    options
}

/// An option, and who takes it.
struct Offered {
    doc: OptionDoc,
    /// Their names, each with its default; none where it is everybody's.
    takers: Vec<(&'static str, &'static str)>,
    heading: &'static str,
}

impl Offered {
    fn argument(&self) -> Arg {
        let OptionDoc { name, value, help, .. } = self.doc;
        let mut help = help.to_owned();
        help[..1].make_ascii_uppercase();
        let argument = Arg::new(name)
            .long(name)
            .value_name(value)
            .help(format!("{help} [default: {}]", self.default()))
            .help_heading(self.heading);
        let argument = match SHORT.iter().find(|(long, _)| *long == name) {
            Some((_, short)) => argument.short(*short),
            None => argument,
        };
        // A switch may stand alone, so its value needs the `=`.
        if value.starts_with("yes|no") {
            argument.num_args(0..=1).require_equals(true).default_missing_value("yes").hide_possible_values(true)
        } else {
            argument
        }
    }
}

impl Offered {
    /// The default, and who takes the option: `4096; tcp`, or `yes (tcp), no (udp)` where they differ.
    fn default(&self) -> String {
        let names =
            |takers: &[(&'static str, &str)]| takers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        if self.takers.iter().all(|(_, default)| *default == self.doc.default) {
            let separator = if self.takers.is_empty() { "" } else { "; " };
            return format!("{}{separator}{}", self.doc.default, names(&self.takers));
        }
        let mut defaults: Vec<&str> = self.takers.iter().map(|(_, default)| *default).collect();
        defaults.dedup();
        let with = |wanted: &&str| {
            let takers: Vec<_> = self.takers.iter().copied().filter(|(_, default)| default == wanted).collect();
            format!("{wanted} ({})", names(&takers))
        };
        defaults.iter().map(with).collect::<Vec<_>>().join(", ")
    }
}

fn offered(registry: &Registry) -> Vec<Offered> {
    let mut offered: Vec<Offered> = Vec::new();
    for doc in limits::OPTIONS {
        offered.push(Offered { doc: *doc, takers: Vec::new(), heading: "Limits" });
    }
    for (kind, heading) in [
        (Kind::Transport, "Socket options"),
        (Kind::Layer, "Options of layers"),
        (Kind::Framing, "Options of framings"),
    ] {
        for item in registry.items(kind) {
            for doc in item.options {
                match offered.iter_mut().find(|known| known.doc.name == doc.name) {
                    Some(known) if known.takers.is_empty() => {}
                    Some(known) => known.takers.push((item.name, doc.default)),
                    None => offered.push(Offered { doc: *doc, takers: vec![(item.name, doc.default)], heading }),
                }
            }
        }
    }
    offered
}
