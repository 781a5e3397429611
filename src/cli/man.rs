//! `greetd man`: the manual page, and those of the commands.

use super::failure::{Failure, Outcome};
use super::output;
use crate::verdict::Verdict;

/// Print the manual page, or that of a command
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The command whose page it is to be
    command: Option<String>,
}

pub(super) fn run(args: &Args, mut definitions: clap::Command) -> Outcome {
    // Names such as `greetd-call`, and the options that all commands take, are filled in here.
    definitions.build();
    let of = match &args.command {
        None => definitions,
        Some(name) => definitions.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::new(Verdict::Usage, format!("there is no command `{name}`"))
                .with_remedies(["greetd --help lists them".to_owned()])
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(of).render(&mut page)?;
    output::write(&page)
}
