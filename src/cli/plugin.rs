//! `greetd plugin`: for those who write plugins.

mod new;

use std::path::PathBuf;

use serde_json::json;

use super::failure::{Failure, Outcome};
use super::plugins::environment;
use super::{output, workers};
use crate::error::named;
use crate::hosts::check::{Checked, check};
use crate::hosts::{PluginError, Timing};
use crate::verdict::Verdict;

/// Check a plugin, or begin one
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    New(new::Args),
}

/// Start a plugin, say all of the protocol to it, and more that is broken, and tell what it does wrong; of a WebAssembly
/// component, also what it imports and exports
#[derive(clap::Args)]
#[group(skip)]
struct CheckArgs {
    /// The plugin
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// A variable that it sees, beside PATH and LANG: its name, or NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME[=VALUE]")]
    plugin_env: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Check(args) => run_check(args),
        Command::New(args) => new::run(args),
    }
}

fn run_check(args: &CheckArgs) -> Outcome {
    let runtime = workers::runtime()
        .map_err(|error| Failure::new(Verdict::Failed, format!("failed to start: {}", named(&error))))?;
    let checked = runtime.block_on(check(&args.path, &environment(&args.plugin_env), &Timing::default()));
    let Checked { names, passed, warnings } =
        checked.map_err(|error: PluginError| Failure::new(Verdict::Unexpected, error.to_string()))?;
    if args.json {
        let object = json!({ "verdict": "ok", "handlers": names, "passed": passed, "warnings": warnings });
        return output::print_json(&object);
    }
    for sentence in passed {
        output::print(format_args!("ok: {sentence}\n"))?;
    }
    for sentence in warnings {
        output::print(format_args!("warning: {sentence}\n"))?;
    }
    Ok(())
}
