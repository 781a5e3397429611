//! `greetd call`: a client for anything that greetd can reach.

mod conversation;
mod replies;
mod source;
mod terminal;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::causes::{as_json, broken, dial_failed, unanswered};
use super::failure::{Failure, Outcome};
use super::{log, output, workers};
use crate::address::Address;
use crate::endpoint::{Authority, Endpoint};
use crate::error::named;
use crate::escape::Escaped;
use crate::options::Period;
use crate::registry::Registry;
use crate::service::Dialler;
use crate::session::Session;
use crate::verdict::Verdict;
use conversation::{Break, Broken, Manners, converse};
use replies::{Recorded, Replies, Written};
use source::Source;

/// How long a command with messages may take where nothing else is said, and how long any may take to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a line from a pipe waits for its reply before the next one is sent.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// Call an endpoint: send messages and print the replies
///
/// Prints what the server says first, sends each message and prints its reply as it comes, then says that no more will
/// be sent and prints what still comes. Without a message it reads lines: interactively on a terminal, else from stdin.
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Whom to call, as in tcp://127.0.0.1:8080
    endpoint: String,
    /// What to send
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
    /// What cuts bytes into messages [default: raw, as bytes arrive]
    #[arg(short, long, value_name = "NAME")]
    framing: Option<String>,
    /// Only IPv4 addresses
    #[arg(short = '4', long)]
    ipv4: bool,
    /// Only IPv6 addresses
    #[arg(short = '6', long)]
    ipv6: bool,
    /// How long all of it may take [default: 10s with messages, else no limit once it is connected]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Period>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Outcome {
    let dialler = dialler(&args, registry).map_err(|fault| Failure::new(Verdict::Usage, fault))?;
    let runtime = workers::runtime()
        .map_err(|error| Failure::new(Verdict::Failed, format!("failed to start: {}", named(&error))))?;
    let outcome = runtime.block_on(call(args, &dialler));
    runtime.shutdown_background();
    outcome
}

fn dialler(args: &Args, registry: &Registry) -> Result<Dialler, String> {
    let mut endpoint: Endpoint = args.endpoint.parse().map_err(|error| format!("{error}"))?;
    let switches = [("ipv4", args.ipv4), ("ipv6", args.ipv6)];
    for name in switches.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)) {
        endpoint.options.set(name, "yes");
    }
    if let Some(framing) = &args.framing {
        endpoint.options.set("framing", framing);
    }
    registry.dialler(&endpoint).map_err(|error| error.to_string())
}

async fn call(args: Args, dialler: &Dialler) -> Outcome {
    let began = Instant::now();
    let json = args.json;
    let limit = args.timeout.map(Period::duration).or((!args.messages.is_empty()).then_some(PATIENCE));
    let manners = Manners::new(dialler.route(), limit.map(|limit| began + limit));

    let placed = |failure: Failure| failure.with_fact("endpoint", dialler.endpoint().to_string());
    let mut session = dial(dialler, limit.unwrap_or(PATIENCE)).await.map_err(placed)?;
    let connected = began.elapsed();
    let Parties { mut source, mut replies, manners } = Parties::of(args, manners);
    let ended = converse(&mut session, &mut source, replies.as_mut(), &manners).await;
    match ended {
        Ok(()) if json => {
            let mut object = replies.facts();
            object.insert("verdict".into(), json!(Verdict::Ok));
            object.insert("endpoint".into(), dialler.endpoint().to_string().into());
            object.insert("local".into(), session.peer().local().to_string().into());
            object.insert("remote".into(), session.peer().remote.to_string().into());
            object.insert("connected_ms".into(), milliseconds(connected).into());
            object.insert("took_ms".into(), milliseconds(began.elapsed()).into());
            output::print_json(&object.into())
        }
        Ok(()) => Ok(()),
        Err(Break::Output(stop)) => Err(stop),
        Err(Break::Conversation(broken)) => {
            let mut failure = explain(broken, dialler.endpoint(), &session.peer().remote, limit);
            failure.facts.extend(replies.facts());
            Err(placed(failure).with_fact("remote", session.peer().remote.to_string()).into())
        }
    }
}

/// Who speaks, who listens, and how they go about it.
struct Parties {
    source: Source,
    replies: Box<dyn Replies>,
    manners: Manners,
}

impl Parties {
    fn of(args: Args, manners: Manners) -> Self {
        let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !args.json;
        if args.messages.is_empty() && on_terminal {
            log::release();
            match terminal::open() {
                Ok((source, replies)) => {
                    return Parties { source, replies: Box::new(replies), manners: manners.at_leisure() };
                }
                Err(error) => tracing::warn!(error, "lines are read as they are"),
            }
        }
        let replies: Box<dyn Replies> =
            if args.json { Box::new(Recorded::default()) } else { Box::new(Written::to_stdout()) };
        if args.messages.is_empty() {
            Parties { source: Source::stdin(), replies, manners: manners.waiting_at_most(REPLY_PATIENCE) }
        } else {
            let messages = args.messages.into_iter().map(OsString::into_vec);
            Parties { source: Source::given(messages), replies, manners }
        }
    }
}

/// Calls, for so long.
async fn dial(dialler: &Dialler, patience: Duration) -> Result<Session, Failure> {
    let endpoint = dialler.endpoint();
    if let Ok(session) = tokio::time::timeout(patience, dialler.dial()).await {
        return session.map_err(|error| dial_failed(&error, endpoint));
    }
    let tried = tried(endpoint).await;
    let what = format!("no answer from {} within {}", tried.join(" and "), Period(patience));
    let first = tried.first().and_then(|address| address.parse().ok()).map(Address::Ip);
    let silent = |address: &String| as_json(&format!("connect({address})"), &io::ErrorKind::TimedOut.into());
    let tried: Vec<_> = tried.iter().map(silent).collect();
    Err(unanswered(&what, endpoint, first.as_ref()).with_fact("tried", tried))
}

/// The addresses that were still being tried when time was up.
async fn tried(endpoint: &Endpoint) -> Vec<String> {
    if let Authority::Host { name, port } = &endpoint.authority
        && let Ok(Ok(addresses)) =
            tokio::time::timeout(Duration::from_secs(1), tokio::net::lookup_host((name.as_str(), *port))).await
    {
        return addresses.map(|address| address.to_string()).collect();
    }
    vec![endpoint.authority.to_string()]
}

fn explain(broke: Broken, endpoint: &Endpoint, remote: &Address, limit: Option<Duration>) -> Failure {
    let within = limit.map_or(Period(REPLY_PATIENCE), Period);
    match broke {
        Broken::Link(error) => broken(&error, endpoint, remote),
        Broken::NoReply { to } => {
            unanswered(&format!("no reply to `{}` within {within}", Escaped::new(&to)), endpoint, Some(remote))
        }
        Broken::OutOfTime => unanswered(&format!("it was not over within {within}"), endpoint, Some(remote)),
        Broken::Closed { unsent } => Failure::new(
            Verdict::Unexpected,
            format!(
                "failed to converse with {}: it closed the connection before `{}` could be sent",
                endpoint.brief(),
                Escaped::new(&unsent)
            ),
        ),
        Broken::Unsendable { message, why } => Failure::new(
            Verdict::Usage,
            format!("failed to send `{}` to {}: {why}", Escaped::new(&message), endpoint.brief()),
        ),
        Broken::Input(error) => Failure::new(Verdict::Failed, format!("failed to read stdin: {}", named(&error))),
    }
}

/// A length of time in milliseconds, to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "a command that took longer than a few centuries may be off by one")]
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
