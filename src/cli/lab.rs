//! `greetd lab`: bind experiments on the kernel that is running, each predicted first, then tried, then explained.

mod against;
mod quiz;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::failure::{Failure, Outcome};
use super::output;
use crate::lab::report::{self, Report, Style};
use crate::lab::scenario::{Format, Scenario};
use crate::lab::{Experiment, Ground, isolation};
use crate::verdict::Verdict;

/// Watch what bind really does on this kernel, and why
///
/// Runs in private network namespaces: two hosts that exist inside this process alone. Your own network is not
/// touched, nothing is left behind, and root is not needed where user namespaces are allowed.
#[derive(clap::Args)]
#[command(after_long_help = SCENARIO)]
pub(super) struct Args {
    /// What to try; `all` tries everything, `run` the scenario of a file
    #[arg(value_name = "EXPERIMENT", default_value = "reach", value_parser = PossibleValuesParser::new(names()))]
    experiment: String,
    /// The scenario for `run`, as JSON or, where its name ends in .toml, as TOML; - is stdin, either of them
    #[arg(value_name = "FILE", required_if_eq("experiment", RUN))]
    file: Option<PathBuf>,
    /// Say what the model predicts, and run nothing
    #[arg(long)]
    predict: bool,
    /// Ask what you would predict before it runs, and keep score
    #[arg(long, conflicts_with_all = ["predict", "file", "json", "markdown", "html"])]
    quiz: bool,
    /// Look at a real server, layer by layer, and name the first that fails
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["predict", "quiz", "file", "markdown", "html"])]
    against: Option<String>,
    #[command(flatten)]
    form: Form,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Form {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print a page in Markdown
    #[arg(long)]
    markdown: bool,
    /// Print a page in HTML that stands for itself, with drawings
    #[arg(long)]
    html: bool,
}

/// What a file for `run` looks like.
const SCENARIO: &str = r#"A scenario for `run`; examples/lab/README.md tells of all steps and fields:
  {"cases": [{"id": "mine", "proto": "tcp", "steps": [
    {"op": "bind",    "socket": "a", "address": "0.0.0.0", "reuse_addr": true},
    {"op": "listen",  "socket": "a"},
    {"op": "bind",    "socket": "b", "address": "127.0.0.1", "expect": "EADDRINUSE"},
    {"op": "connect", "from": "client", "to": "198.51.100.1"}]}]}
The server has 198.51.100.1 and .2, 203.0.113.1, 2001:db8:1::1 and ::2. A step may
have expect: ok, connected, reply, timeout or an errno; without it the model's
prediction is expected. The exit code is 1 where one came out otherwise."#;

const ALL: &str = "all";
const RUN: &str = "run";

fn names() -> Vec<&'static str> {
    Experiment::ALL.iter().map(|experiment| experiment.name()).chain([RUN, ALL]).collect()
}

pub(super) fn run(args: &Args) -> Outcome {
    if let Some(against) = &args.against {
        return against::run(against, args.form.json);
    }
    match &args.file {
        Some(file) if args.experiment == RUN => run_file(args, file),
        Some(file) => {
            let message = format!("a file is for `lab run`, not for `lab {}`: {}", args.experiment, file.display());
            Err(Failure::new(Verdict::Usage, message).into())
        }
        None => run_experiments(args),
    }
}

fn run_experiments(args: &Args) -> Outcome {
    let wanted: Vec<Experiment> = Experiment::ALL
        .iter()
        .copied()
        .filter(|experiment| args.experiment == ALL || args.experiment == experiment.name())
        .collect();
    if args.quiz {
        return quiz::run(&wanted);
    }
    let reports = if args.predict { wanted.into_iter().map(Experiment::predict).collect() } else { try_all(&wanted)? };
    let differing: usize = reports.iter().map(Report::differing).sum();
    let failure = (differing > 0).then(|| {
        let cases = if differing == 1 { "1 case".to_owned() } else { format!("{differing} cases") };
        Failure::new(Verdict::Failed, format!("in {cases} the kernel does otherwise than the model says"))
    });
    let object = match &reports[..] {
        [one] if args.experiment != ALL => report::as_json(one),
        all => report::all_as_json(all),
    };
    show(args, &reports, &object, failure)
}

fn run_file(args: &Args, file: &Path) -> Outcome {
    let invalid = |error: String| Failure::new(Verdict::Invalid, format!("failed to read {}: {error}", file.display()));
    let text = read(file).map_err(|error| invalid(crate::error::named(&error).to_string()))?;
    let is_toml = match file.extension() {
        Some(extension) => extension == "toml",
        // A text without a name tells by how it begins.
        None => !text.trim_start().starts_with('{'),
    };
    let format = if is_toml { Format::Toml } else { Format::Json };
    let scenario = Scenario::parse(&text, format)
        .map_err(|error| invalid(error.to_string()).with_fact("line", error.line).with_fact("column", error.column))?;
    let result = if args.predict {
        scenario.predict()
    } else {
        let _ = isolation::enter();
        let bar = progress(scenario.len());
        let result = scenario.run(|case| {
            bar.set_message(case.to_owned());
            bar.inc(1);
        });
        bar.finish_and_clear();
        result.map_err(|error| Failure::new(Verdict::Failed, format!("failed to set up the hosts: {error}")))?
    };
    let failure = (!result.as_expected())
        .then(|| Failure::new(Verdict::Failed, format!("not every step came out as expected: {}", result.closing())));
    show(args, &[result.as_report()], &result.as_json(), failure)
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) }
}

fn show(args: &Args, reports: &[Report], object: &Value, failure: Option<Failure>) -> Outcome {
    if args.form.json {
        return show_json(object, failure);
    }
    output::print(as_words(args, reports))?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn as_words(args: &Args, reports: &[Report]) -> String {
    if args.form.markdown {
        return reports.iter().map(report::as_markdown).collect::<Vec<_>>().join("\n");
    }
    if args.form.html {
        return report::as_html(reports);
    }
    let style = Style { colour: output::colour(&io::stdout()) };
    reports.iter().map(|report| report::as_text(report, style)).collect::<Vec<_>>().join("\n")
}

/// A failure is one object as well, with everything in it that success has.
fn show_json(object: &Value, failure: Option<Failure>) -> Outcome {
    let Some(mut failure) = failure else { return output::print_json(object) };
    for (name, value) in object.as_object().into_iter().flatten() {
        failure = failure.with_fact(name, value);
    }
    Err(failure.into())
}

/// Each on fresh hosts, one after the other.
fn try_all(wanted: &[Experiment]) -> Result<Vec<Report>, Failure> {
    // Where it is not allowed, what was not tried says so, and what would allow it.
    let _ = isolation::enter();
    let bar = progress(wanted.len());
    let mut reports = Vec::new();
    for experiment in wanted {
        bar.set_message(experiment.name());
        let failed =
            |error: String| Failure::new(Verdict::Failed, format!("failed to run {}: {error}", experiment.name()));
        let ground = Ground::new().map_err(|error| failed(error.to_string()))?;
        reports.push(experiment.run(&ground).map_err(|error| failed(error.to_string()))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(reports)
}

/// A bar on a terminal; nothing where stderr is kept.
fn progress(steps: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bar:20} {pos}/{len} {msg}");
    let bar = ProgressBar::new(steps as u64);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_in_the_help_is_one() {
        let json = &SCENARIO[SCENARIO.find('{').unwrap()..=SCENARIO.rfind('}').unwrap()];
        let predicted = Scenario::parse(json, Format::Json).unwrap().predict();
        assert!(predicted.as_expected(), "{}", predicted.as_json());
    }
}
