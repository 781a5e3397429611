//! `greetd serve`, and `greetd` alone: serve handlers over transports until told to stop.

mod listeners;
mod readiness;

use std::io;

use serde_json::json;

use super::causes::bind_failed;
use super::failure::{Failure, Outcome};
use super::plugins::{self, Plugins};
use super::signals::{Signals, Told};
use super::workers::{self, Count, Workers};
use super::{descriptors, log, output};
use crate::error::named;
use crate::options::{Options, Period};
use crate::registry::Registry;
use crate::server::{Drained, Server};
use crate::service::Service;
use crate::verdict::Verdict;

/// Serve a handler over a transport until told to stop (the default command)
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The transport, with its layers in front: tcp, udp, unix, faults+tcp, … [default: tcp]
    #[arg(short, long, value_name = "NAME")]
    transport: Option<String>,
    /// The address: 8080, 127.0.0.1:8080, [::1]:8080, /run/x.sock, @name, fd:3 [default: 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// The handler
    #[arg(short = 'H', long, value_name = "NAME[?option=value&…]", default_value = "hello")]
    handler: String,
    /// What cuts bytes into messages [default: raw, as bytes arrive]
    #[arg(short, long, value_name = "NAME")]
    framing: Option<String>,
    /// A listener, as in tcp://:8080?backlog=5=echo: in the place of the default one, or beside that of --transport
    /// and --bind; without =HANDLER it takes --handler; repeatable
    #[arg(short, long, value_name = "ENDPOINT[=HANDLER]")]
    listen: Vec<String>,
    /// Check all of this, open nothing, and list every fault
    #[arg(long)]
    check: bool,
    /// How many threads serve, each the connections that it was dealt; auto: one for each processor. One alone costs the
    /// least for each message, more of them answer more at once
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    workers: Count,
    /// Look for the next message for so long, up to 1s, before sleeping: answers sooner, and occupies a processor for each
    /// worker while there is traffic
    #[arg(long, value_name = "TIME")]
    busy_poll: Option<workers::BusyPoll>,
    /// How long sessions may take to end after the signal to stop
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain_timeout: Period,
    /// Print one JSON object in the place of the `listening` lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plugins: plugins::Args,
}

pub(super) fn run(args: &Args, options: Options, registry: &Registry) -> Outcome {
    let failed = |error: io::Error| Failure::new(Verdict::Failed, format!("failed to start: {}", named(&error)));
    let runtime = workers::runtime().map_err(failed)?;
    let plugins = args.plugins.load(&runtime, registry)?;
    let services = listeners::resolve(args, options, &plugins.registry)?;
    let shortage = descriptors::raise_limit().and_then(|limit| descriptors::shortage(&services, limit));
    if args.check {
        return checked(&services, shortage.as_deref(), args.json);
    }
    if let Some(shortage) = shortage {
        tracing::warn!("{shortage}");
    }
    let workers = Workers::start(args.workers, args.busy_poll, &runtime).map_err(failed)?;
    let outcome = runtime.block_on(serve(args, services, &plugins, &workers));
    // A thread that reads the terminal would never end.
    runtime.shutdown_background();
    outcome
}

/// What would be served, without a bind.
fn checked(services: &[Service], warning: Option<&str>, json: bool) -> Outcome {
    if json {
        let listeners: Vec<_> = services
            .iter()
            .map(|service| json!({ "endpoint": service.endpoint.to_string(), "handler": service.handler_name }))
            .collect();
        let warnings: Vec<_> = warning.into_iter().collect();
        return output::print_json(&json!({ "verdict": "ok", "listeners": listeners, "warnings": warnings }));
    }
    for service in services {
        output::tell(format_args!("{}: {} handler={}", Verdict::Ok, service.endpoint, service.handler_name));
    }
    if let Some(warning) = warning {
        output::tell(format_args!("warning: {warning}"));
    }
    Ok(())
}

async fn serve(args: &Args, services: Vec<Service>, plugins: &Plugins, workers: &Workers) -> Outcome {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new(Verdict::Failed, format!("failed to listen for signals: {}", named(&error))))?;
    let endpoints: Vec<_> = services.iter().map(|service| service.endpoint.clone()).collect();
    let server = services.into_iter().fold(Server::new(), Server::serve).workers(workers.handles());
    let bound = tokio::select! {
        bound = server.bind() => bound.map_err(|error| bind_failed(&error, &endpoints))?,
        // A name that is still being looked up must not hold anybody up.
        _ = signals.stop() => return Ok(()),
    };
    log::release();
    let listeners = bound.listeners();
    let mut running = bound.start();
    plugins.observe(&running.observer());
    readiness::announce(&listeners, args.json)?;
    let signal = tokio::select! {
        () = running.ended() => None,
        signal = obey(&mut signals, plugins) => Some(signal),
    };
    if let Some(signal) = signal {
        tracing::info!(signal, "stopping");
    }
    let impatient = async {
        signals.stop().await;
    };
    let drained = running.drain_until(args.drain_timeout.duration(), impatient).await;
    ended(drained, args.json)
}

/// Loads again when it is told to, until it is told to stop; gives that signal's name.
async fn obey(signals: &mut Signals, plugins: &Plugins) -> &'static str {
    loop {
        match signals.next().await {
            Told::Stop(signal) => return signal,
            Told::Reload if plugins.is_empty() => {
                tracing::warn!("SIGHUP is ignored: there is neither a configuration nor a plugin to load again");
            }
            Told::Reload => tokio::select! {
                () = plugins.reload() => {}
                signal = signals.stop() => return signal,
            },
        }
    }
}

fn ended(drained: Drained, json: bool) -> Outcome {
    let failure = match drained {
        Drained { cut: 0, failed: false, .. } => return Ok(()),
        Drained { cut: 0, .. } => Failure::new(Verdict::Failed, "a listener was given up; the log says why"),
        Drained { cut, finished, .. } => Failure::new(
            Verdict::Failed,
            format!(
                "{cut} session{} had to be cut at the end of the drain; {finished} had ended by themselves",
                if cut == 1 { "" } else { "s" }
            ),
        ),
    };
    // The one object that was asked for is printed already.
    Err(if json { failure.in_words() } else { failure }.into())
}
