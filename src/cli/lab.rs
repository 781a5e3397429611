//! `greetd lab`: bind experiments on the kernel that is running, each predicted first, then tried, then explained.

use std::io::{self, IsTerminal as _};

use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Failure, Outcome};
use super::output;
use crate::lab::report::{self, Report, Style};
use crate::lab::{Experiment, Ground, isolation};
use crate::verdict::Verdict;

/// Watch what bind really does on this kernel, and why
///
/// Runs in private network namespaces: two hosts that exist inside this process alone. Your own network is not
/// touched, nothing is left behind, and root is not needed where user namespaces are allowed.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What to try; `all` tries everything
    #[arg(value_name = "EXPERIMENT", default_value = "reach", value_parser = PossibleValuesParser::new(names()))]
    experiment: String,
    /// Say what the model predicts, and run nothing
    #[arg(long)]
    predict: bool,
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
}

const ALL: &str = "all";

fn names() -> Vec<&'static str> {
    Experiment::ALL.iter().map(|experiment| experiment.name()).chain([ALL]).collect()
}

pub(super) fn run(args: &Args) -> Outcome {
    let wanted: Vec<Experiment> = Experiment::ALL
        .iter()
        .copied()
        .filter(|experiment| args.experiment == ALL || args.experiment == experiment.name())
        .collect();
    let reports = if args.predict { wanted.into_iter().map(Experiment::predict).collect() } else { try_all(&wanted)? };
    let differing: usize = reports.iter().map(Report::differing).sum();
    let failure = (differing > 0).then(|| {
        Failure::new(Verdict::Failed, format!("in {differing} cases the kernel does otherwise than the model says"))
    });
    if args.form.json {
        return show_json(args, &reports, failure);
    }
    output::print(as_words(args, &reports))?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn as_words(args: &Args, reports: &[Report]) -> String {
    if args.form.markdown {
        return reports.iter().map(report::as_markdown).collect::<Vec<_>>().join("\n");
    }
    let style = Style { colour: output::colour(&io::stdout()) };
    reports.iter().map(|report| report::as_text(report, style)).collect::<Vec<_>>().join("\n")
}

/// A failure is one object as well, with everything in it that success has.
fn show_json(args: &Args, reports: &[Report], failure: Option<Failure>) -> Outcome {
    let object = match reports {
        [one] if args.experiment != ALL => report::as_json(one),
        all => report::all_as_json(all),
    };
    let Some(mut failure) = failure else { return output::print_json(&object) };
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
