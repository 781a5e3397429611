//! `greetd bench`: a load on any endpoint, measured.

mod view;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::causes::{dial_failed, unanswered};
use super::failure::{Failure, Outcome};
use super::signals::Signals;
use super::{descriptors, output, workers};
use crate::endpoint::Endpoint;
use crate::error::named;
use crate::load::compare::compare;
use crate::load::message::{Expectation, Source};
use crate::load::objective::Objective;
use crate::load::report::Report;
use crate::load::{self, Length, Load, Mode, Unreached};
use crate::options::{Period, Size};
use crate::registry::Registry;
use crate::service::Dialler;
use crate::verdict::Verdict;

/// How many connections and requests one process is asked for at most: all ports of sixteen addresses.
const MOST_CONNECTIONS: usize = 1 << 20;
const MOST_IN_FLIGHT: usize = 1 << 16;

/// Put a load on an endpoint, and measure what it does
///
/// Without --rate the load is closed: each connection keeps --depth requests in flight, so a slow server is asked less
/// often. With --rate it is open: latencies run from when a request was due, so a stall shows in all that it delayed.
///
/// Requests that are due after the ramp and the warm-up count. Each is answered, wrong (it is not what --expect says),
/// missing (no reply within --timeout) or, in an open load, not sent in time; connections that fail are counted by their
/// verdict. None of these is among the latencies. The exit code is 0 if there were right replies at all, and no --fail-if
/// held. Ctrl-C ends it with what it has.
#[derive(clap::Args)]
#[group(skip)]
#[command(after_long_help = JSON)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(super) struct Args {
    /// What to load, as in tcp://127.0.0.1:8080?framing=lines
    #[arg(required_unless_present = "compare")]
    endpoint: Option<String>,
    /// How many connections, or sockets where there are no connections
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    connections: usize,
    /// How many requests each connection keeps in flight
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    depth: usize,
    /// Ask at this rate, requests a second of all connections together, whatever the server does; with --connect,
    /// connect at this rate
    #[arg(long, value_name = "N", conflicts_with_all = ["depth", "idle"])]
    rate: Option<f64>,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// End after this time
    #[arg(short = 'z', long, value_name = "TIME", default_value = "10s")]
    duration: Period,
    /// How long it runs before it is measured [default: 1s, or nothing with --requests, --connect and --idle]
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Period>,
    /// Over what time the connections are opened
    #[arg(long, value_name = "TIME", default_value = "0s")]
    ramp: Period,
    /// How long a reply may take
    #[arg(long, value_name = "TIME", default_value = "2s")]
    timeout: Period,
    /// How long the first connection waits for what the server says first; where it says nothing, no other one waits
    #[arg(long, value_name = "TIME", default_value = "200ms")]
    greeting: Period,
    /// The size of a message, which holds its number
    #[arg(short, long, value_name = "SIZE", default_value = "16", conflicts_with_all = ["message", "file", "template"])]
    size: Size,
    // The help takes `{n}` for the end of a line, so it is not written there.
    /// What to send; n in braces becomes the message's number, in twenty digits
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["file", "template"])]
    message: Option<String>,
    /// Send what this file holds, as it is
    #[arg(long, value_name = "PATH", conflicts_with = "template")]
    file: Option<PathBuf>,
    /// Send what this file holds; n in braces becomes the message's number, in twenty digits
    #[arg(long, value_name = "PATH")]
    template: Option<PathBuf>,
    /// What a reply must be; {message} becomes what was sent [default: it holds what was sent]
    #[arg(short, long, value_name = "TEXT")]
    expect: Option<String>,
    /// Take any reply for right
    #[arg(long, conflicts_with = "expect")]
    no_check: bool,
    /// Connect, hear the greeting, close, and begin anew
    #[arg(long, conflicts_with_all = ["idle", "depth"])]
    connect: bool,
    /// Connect and hold
    #[arg(long, conflicts_with = "depth")]
    idle: bool,
    /// What cuts bytes into messages [default: raw, as bytes arrive]
    #[arg(short, long, value_name = "NAME")]
    framing: Option<String>,
    /// What would be a failure, as in `p99 > 5ms`, `failures > 0` or `missing > 1%`: exit code 19; repeatable
    #[arg(long, value_name = "OBJECTIVE")]
    fail_if: Vec<Objective>,
    /// Write the distribution of latencies there, in the format of HdrHistogram's plotter
    #[arg(long, value_name = "PATH")]
    hgrm: Option<PathBuf>,
    /// Write a page with the result there
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// Compare two results that --json printed, and load nothing
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"], conflicts_with = "endpoint")]
    compare: Option<Vec<PathBuf>>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const JSON: &str = "\
The object that --json prints, times in nanoseconds:
  verdict      how it ended, in the word of the exit code; where that is not
               ok with message and causes
  complete     whether it ran to its end
  settings     what was asked for, in words
  seconds      how long it was measured, in seconds
  rate         right replies a second; with --connect, connections
  counts       sent, answered, wrong, missing, unsent, late, duplicates,
               reordered, unasked; bytes_out, bytes_in
  latency      from when a request was due to its reply: count, min, mean,
               stdev, p50, p75, p90, p95, p99, p999, p9999, max
  connecting   the same, from the call to the greeting
  lateness     the same, from when a request was due to when it was sent,
               where that was later
  open_at_end  how many connections were open at the end
  errors       connections that failed, by verdict
  reasons      for each verdict the first of them, in words
  timeline     for each second: seconds (the last may be shorter), answered,
               failed, p50, p99, max
  histogram    [latency, how often], for all latencies, to three digits
With --compare, rows: metric, first, second, change (0.1 is a tenth more),
spread, and a judgement: same, chance, better, worse or unknown.";

pub(super) fn run(args: &Args, registry: &Registry) -> Outcome {
    if let Some(files) = &args.compare {
        return compare_files(files, args.json);
    }
    let usage = |fault: String| Failure::new(Verdict::Usage, fault);
    let dialler = dialler(args, registry).map_err(usage)?;
    let load = load_of(args, &dialler)?;
    descriptors::raise_limit();
    let runtime = workers::runtime()
        .map_err(|error| Failure::new(Verdict::Failed, format!("failed to start: {}", named(&error))))?;
    let endpoint = dialler.endpoint().clone();
    let view = view::Progress::new(&load);
    let patience = load.patience;
    let keeps_messages = dialler.route().keeps_messages;
    let report = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|error| {
            Failure::new(Verdict::Failed, format!("failed to listen for signals: {}", named(&error)))
        })?;
        let stop = async move {
            signals.stop().await;
            // Whoever says it twice does not want to wait for what is still to come.
            tokio::spawn(async move {
                signals.stop().await;
                std::process::exit(Verdict::Failed.code().into());
            });
        };
        let run = load::run(dialler, load, stop, |progress| view.show(&progress));
        run.await.map_err(|unreached| unreachable(&unreached, &endpoint, patience))
    });
    view.end();
    runtime.shutdown_background();
    let report = report?;
    write_to(args.hgrm.as_deref(), || report.hgrm())?;
    write_to(args.html.as_deref(), || report.html())?;
    let verdict = verdict(&report, args, keeps_messages);
    if args.json {
        let mut object = serde_json::to_value(&report).unwrap_or_default();
        object["verdict"] = verdict.as_ref().map_or(Verdict::Ok, |failure| failure.verdict).word().into();
        if let Some(failure) = &verdict {
            object["message"] = failure.message.clone().into();
            object["causes"] = failure.causes.clone().into();
        }
        output::print_json(&object)?;
    } else {
        output::print(view::result(&report))?;
    }
    // The one object that was asked for is printed already.
    verdict.map_or(Ok(()), |failure| Err(if args.json { failure.in_words() } else { failure }.into()))
}

/// The first connection was not made: the reason is told as a call tells it.
fn unreachable(unreached: &Unreached, endpoint: &Endpoint, patience: Duration) -> Failure {
    let failure = match unreached {
        Unreached::Failed(error) => dial_failed(error, endpoint),
        Unreached::Silent(_) => {
            let what = format!("no answer from {} within {}", endpoint.brief(), Period(patience));
            unanswered(&what, endpoint, None)
        }
        Unreached::Ended(error) => Failure::new(
            Verdict::Unexpected,
            format!(
                "failed to converse with {}: it ended the connection before anything was asked: {error}",
                endpoint.brief()
            ),
        ),
    };
    failure.with_fact("endpoint", endpoint.to_string())
}

fn dialler(args: &Args, registry: &Registry) -> Result<Dialler, String> {
    let text = args.endpoint.as_deref().unwrap_or_default();
    let mut endpoint: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    if let Some(framing) = &args.framing {
        endpoint.options.set("framing", framing);
    }
    registry.dialler(&endpoint).map_err(|error| error.to_string())
}

fn load_of(args: &Args, dialler: &Dialler) -> Result<Load, Failure> {
    let usage = |fault: &str| Failure::new(Verdict::Usage, fault);
    let mode = match (args.connect, args.idle, args.rate) {
        (.., Some(rate)) if !(1e-6..=1e9).contains(&rate) => {
            return Err(usage("`--rate` takes a number above 0, of requests a second"));
        }
        (true, _, rate) => Mode::Connect { rate, precise: true },
        (_, true, _) => Mode::Idle,
        (.., Some(rate)) => Mode::Open { rate, precise: true },
        (.., None) => Mode::Closed { depth: args.depth },
    };
    if !(1..=MOST_CONNECTIONS).contains(&args.connections) || !(1..=MOST_IN_FLIGHT).contains(&args.depth) {
        return Err(usage(&format!(
            "`--connections` takes a number from 1 to {MOST_CONNECTIONS}, `--depth` one from 1 to {MOST_IN_FLIGHT}"
        )));
    }
    if args.timeout.duration() < Duration::from_millis(1) {
        return Err(usage("`--timeout` takes a time of 1ms or more"));
    }
    let route = dialler.route();
    let overlaps = args.depth > 1 || matches!(mode, Mode::Open { .. });
    if overlaps && !route.keeps_messages {
        return Err(usage("without a framing the end of a reply is nowhere to be seen, so only one can be in flight")
            .with_remedies(["say how the server frames its messages, for example --framing lines".to_owned()]));
    }
    let source = match (&args.message, &args.file, &args.template) {
        (Some(text), ..) => Source::template(text.as_bytes()),
        (_, Some(path), _) => Source::Fixed(Bytes::from(read(path)?)),
        (.., Some(path)) => Source::template(&read(path)?),
        (None, None, None) => Source::Numbered(args.size.bytes()),
    };
    let expectation = match &args.expect {
        _ if args.no_check => Expectation::Anything,
        Some(text) => Expectation::text(text),
        None => Expectation::Holds,
    };
    let talks = matches!(mode, Mode::Closed { .. } | Mode::Open { .. });
    let warm_up = if talks && args.requests.is_none() { Duration::from_secs(1) } else { Duration::ZERO };
    Ok(Load {
        mode,
        connections: args.connections,
        length: args.requests.map_or(Length::Time(args.duration.duration()), Length::Count),
        warm_up: args.warm_up.map_or(warm_up, Period::duration),
        ramp: args.ramp.duration(),
        patience: args.timeout.duration(),
        greeting: args.greeting.duration(),
        source,
        expectation,
    })
}

/// What the objectives say; without any, whether it came to anything at all.
fn verdict(report: &Report, args: &Args, keeps_messages: bool) -> Option<Failure> {
    let missed: Vec<String> = args.fail_if.iter().filter_map(|objective| objective.missed(report)).collect();
    if !missed.is_empty() {
        return Some(Failure::new(Verdict::Missed, "an objective was not met").with_causes(missed));
    }
    let counts = &report.counts;
    let did_nothing = counts.sent + counts.unsent == 0;
    if counts.answered > 0 || args.idle && report.open_at_end > 0 {
        return None;
    }
    let reasons = report.reasons.iter().map(|(word, reason)| format!("{word}: {reason}"));
    let worst = report.errors.iter().max_by_key(|(_, count)| **count).map(|(word, _)| word.as_str());
    let worst = Verdict::ALL.into_iter().find(|verdict| Some(verdict.word()) == worst);
    let endpoint = &report.settings.endpoint;
    let failure = match worst {
        _ if counts.wrong > 0 => Failure::new(Verdict::Unexpected, format!("no reply of {endpoint} was right"))
            .with_remedies([
                "say what is right with --expect, or take anything with --no-check".to_owned(),
                format!(
                    "a greeting that comes after more than {} counts as a reply: wait longer with --greeting",
                    args.greeting
                ),
            ]),
        // That nothing was asked is no failure where nothing was to be, or where somebody stopped it.
        None if did_nothing && (args.idle || !report.complete) && report.connecting.count > 0 => return None,
        worst => Failure::new(worst.unwrap_or(Verdict::Timeout), format!("nothing at {endpoint} answered")),
    };
    let failure = failure.with_causes(reasons);
    let waits_for_more = failure.verdict == Verdict::Timeout && !keeps_messages;
    let unframed = [
        "the server may wait for the end of a message: say how it frames them, for example --framing lines",
        "it may answer something else than was expected: say what with --expect, or take anything with --no-check",
    ];
    Some(failure.with_remedies(unframed.into_iter().filter(|_| waits_for_more).map(str::to_owned)))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::new(Verdict::of_bind(&error), format!("failed to read {}: {}", path.display(), named(&error)))
    })
}

fn write_to(path: Option<&Path>, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, text()).map_err(|error| {
        Failure::new(Verdict::of_bind(&error), format!("failed to write {}: {}", path.display(), named(&error)))
    })
}

fn compare_files(files: &[PathBuf], json: bool) -> Outcome {
    let mut reports = Vec::new();
    for path in files {
        let report: Report = serde_json::from_slice(&read(path)?).map_err(|error| {
            Failure::new(Verdict::Usage, format!("{} is no result of greetd bench: {error}", path.display()))
        })?;
        reports.push(report);
    }
    let [first, second] = &reports[..] else { return Ok(()) };
    let rows = compare(first, second);
    if json {
        let rows: Vec<Value> = rows.iter().map(|row| json!(row)).collect();
        return output::print_json(&json!({ "verdict": "ok", "rows": rows }));
    }
    output::print(view::comparison(first, second, &rows))
}
