//! The command line: the only place that knows clap, signals, standard streams and exit codes.
//!
//! One file a command. [`main_with`] is the whole of a `main`: a daemon with handlers of its own is a copy of
//! `src/main.rs` that registers them.
//!
//! What holds for every command: data goes to stdout, all else to stderr; the first word on stderr of a command that
//! failed is its [`Verdict`], whose number is the exit code; `--json` gives one object, also for a failure; a reader
//! that goes away ends the command quietly.

mod bench;
mod call;
mod causes;
mod completions;
mod descriptors;
mod failure;
mod lab;
mod list;
mod log;
mod man;
mod options;
mod output;
mod plugin;
mod plugins;
mod serve;
mod signals;
mod why;
mod workers;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::registry::{NameTaken, Registry};
use crate::verdict::Verdict;
use failure::{Failure, Outcome, Stop};

/// Runs the command that this process was started with, with what ships and what `register` adds, and gives its exit
/// code. It is all that a `main` has to call:
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::sync::Arc;
/// use greetd::registry::{Item, NoOptions};
///
/// fn main() -> ExitCode {
///     greetd::main_with(|registry| {
///         registry.add_handler(Item::new("shout", "answers in capitals"), |_: NoOptions, _| {
///             Ok(Arc::new(greetd::reply_fn(|message| message.to_ascii_uppercase())))
///         })
///     })
/// }
/// ```
pub fn main_with(register: impl FnOnce(&mut Registry) -> Result<(), NameTaken>) -> ExitCode {
    let mut registry = Registry::builtin();
    let ran = register(&mut registry)
        .map_err(|error| Failure::new(Verdict::Failed, error.to_string()).into())
        .and_then(|()| run(&registry, std::env::args_os().collect()));
    let code = match ran {
        Ok(()) | Err(Stop::BrokenPipe) => ExitCode::SUCCESS,
        Err(Stop::Failed(failure)) => {
            failure.report(wants_json(std::env::args_os()));
            ExitCode::from(failure.verdict.code())
        }
    };
    log::release();
    code
}

/// Write a handler once, serve it over anything.
#[derive(Parser)]
#[command(name = "greetd", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Args,
    #[command(flatten)]
    log: log::Args,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Bench(Box<bench::Args>),
    Call(call::Args),
    Lab(lab::Args),
    Why(why::Args),
    List(list::Args),
    Plugin(plugin::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The definitions that help, completions and the manual page are made of.
fn definitions(registry: &Registry) -> clap::Command {
    let with_options = |command| options::add_to(command, registry);
    with_options(Cli::command()).mut_subcommand("serve", with_options).after_help(exit_codes())
}

/// The verdicts, as the exit codes that scripts look at.
fn exit_codes() -> String {
    let each = Verdict::ALL.map(|verdict| format!("{} {verdict}", verdict.code()));
    format!("Exit codes, and the word that a failing command says first: {}.", each.join(", "))
}

fn run(registry: &Registry, words: Vec<OsString>) -> Outcome {
    let matches = match definitions(registry).try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => return Err(usage(&error).into()),
        // What was asked for is the help, or the version.
        Err(help) => return output::show(&help.render()),
    };
    refuse_misplaced(&matches)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage(&error))?;
    log::start(&cli.log);
    let of_command: &ArgMatches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    match cli.command {
        None => serve::run(&cli.serve, options::given(of_command, registry), registry),
        Some(Command::Serve(args)) => serve::run(&args, options::given(of_command, registry), registry),
        Some(Command::Bench(args)) => bench::run(&args, registry),
        Some(Command::Call(args)) => call::run(args, registry),
        Some(Command::Lab(args)) => lab::run(&args),
        Some(Command::Why(args)) => why::run(&args),
        Some(Command::List(args)) => list::run(&args, registry),
        Some(Command::Plugin(args)) => plugin::run(&args),
        Some(Command::Completions(args)) => completions::run(&args, definitions(registry)),
        Some(Command::Man(args)) => man::run(&args, definitions(registry)),
    }
}

/// What stands before a command concerns all commands: the options of `serve` would be ignored there.
fn refuse_misplaced(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(command) = matches.subcommand_name() else { return Ok(()) };
    let misplaced = matches.ids().map(clap::Id::as_str).find(|id| {
        !log::OPTIONS.contains(id) && matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
    });
    misplaced.map_or(Ok(()), |id| {
        let option = id.replace('_', "-");
        Err(Failure::new(Verdict::Usage, format!("`--{option}` stands before `{command}`, where it means nothing"))
            .with_remedies([format!("write it behind: greetd {command} --{option} …, where `{command}` takes it")]))
    })
}

/// What clap says, with the verdict's word in the place of its own.
fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let rest = rest.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
    Failure::new(Verdict::Usage, message.lines().map(str::trim).collect::<Vec<_>>().join(" ")).with_causes(rest)
}

/// Words that could not be read may still have asked for JSON.
fn wants_json(words: impl Iterator<Item = OsString>) -> bool {
    words.skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        definitions(&Registry::builtin()).debug_assert();
    }

    #[test]
    fn no_help_holds_what_clap_takes_for_the_end_of_a_line() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let helps = [argument.get_help(), argument.get_long_help()];
                let breaks = helps.into_iter().flatten().any(|help| help.to_string().contains("{n}"));
                assert!(!breaks, "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&definitions(&Registry::builtin()));
    }

    #[test]
    fn json_is_asked_for_by_a_word_of_its_own_before_the_messages() {
        let words = |line: &str| wants_json(line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter());
        assert!(words("greetd call x --json"));
        assert!(!words("greetd call x -- --json"));
    }
}
