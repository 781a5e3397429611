//! `greetd completions`: what a shell needs to complete the rest.

use clap_complete::Shell;

use super::failure::Outcome;
use super::output;

/// Print a script that completes greetd's commands and options
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, mut definitions: clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definitions, "greetd", &mut script);
    output::write(&script)
}
