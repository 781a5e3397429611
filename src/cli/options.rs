//! The options of endpoints as options of the command line: the same names, from the same tables.
//!
//! Whatever a limit, a transport, a layer or a framing takes in a query can be given as a long option too, built in or
//! added by whoever made this binary. Its value is read, and an option that does not belong refused by name, where
//! the endpoint is resolved.

use std::collections::BTreeSet;

use clap::{Arg, ArgMatches, Args as _};

use super::{log, serve};
use crate::limits;
use crate::options::{OptionDoc, Options};
use crate::registry::{Kind, Registry};

/// Short names, for those that everybody knows.
const SHORT: [(&str, char); 2] = [("ipv4", '4'), ("ipv6", '6')];

/// The command with an option for each option of an endpoint.
pub(super) fn add_to(command: clap::Command, registry: &Registry) -> clap::Command {
    let ordered = offered(registry).into_iter().enumerate();
    command.args(ordered.map(|(order, option)| option.argument().display_order(1000 + order)))
}

/// What was given of them.
pub(super) fn given(matches: &ArgMatches, registry: &Registry) -> Options {
    let mut options = Options::default();
    for option in offered(registry) {
        if let Ok(Some(value)) = matches.try_get_one::<String>(option.doc.name) {
            options.set(option.doc.name, value);
        }
    }
    options
}

/// The long options that `serve` has already: an endpoint's option of that name is given in a query.
fn taken() -> BTreeSet<String> {
    let own = log::Args::augment_args(serve::Args::augment_args(clap::Command::new("serve")));
    let names = own.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    names.chain(["help".to_owned(), "version".to_owned()]).collect()
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
        let mut letters = help.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        let help: String = first.into_iter().chain(letters).collect();
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
    let taken = taken();
    offered.retain(|option| !taken.contains(option.doc.name));
    offered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OptionDoc;
    use crate::registry::{Item, NoOptions};

    const fn doc(name: &'static str, help: &'static str) -> OptionDoc {
        OptionDoc { name, value: "TEXT", default: "none", help }
    }

    #[test]
    fn an_option_that_somebody_adds_is_one_of_the_command_line_unless_its_name_is_taken() {
        const OPTIONS: &[OptionDoc] =
            &[doc("flavour", "été"), doc("bind", ""), doc("verbose", "x"), doc("backlog", "x")];
        let mut registry = Registry::builtin();
        registry
            .add_framing(Item::new("sour", "for the test").with_options(OPTIONS), |_: NoOptions, _| {
                Err(crate::options::OptionError::Invalid("it is never made".to_owned()))
            })
            .unwrap();
        let names: Vec<_> = offered(&registry).iter().map(|option| option.doc.name).collect();
        assert!(names.contains(&"flavour") && names.contains(&"backlog"), "{names:?}");
        assert!(!names.contains(&"bind") && !names.contains(&"verbose"), "{names:?}");

        let command = crate::cli::definitions(&registry);
        let matches = command.try_get_matches_from(["greetd", "-b", ":0", "--flavour", "lime"]).unwrap();
        assert_eq!(given(&matches, &registry).iter().collect::<Vec<_>>(), [("flavour", "lime")]);
    }
}
