//! What greetd costs, beside reference servers that do the same work: all started here, one after another, in turn.
//!
//! ```text
//! cargo run --release -p greetd-bench                    nine rounds of everything, about ten minutes
//! cargo run --release -p greetd-bench -- --quick         three short rounds
//! cargo run --release -p greetd-bench -- --only greet    one table alone
//! cargo run --release -p greetd-bench -- --write         puts the tables and curves into BENCHMARKS.md
//! ```
//!
//! It needs Linux, two processors, a C compiler, and for the counts of system calls `perf` and the right to use it.
//! Everything goes over the loopback device and ends by itself.

mod compile;
mod growth;
mod machine;
mod process;
mod report;
mod scenario;
mod statistics;
mod svg;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

/// How much is measured.
#[derive(Debug, Clone)]
struct Plan {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
    only: Option<String>,
    write: bool,
}

impl Plan {
    const FULL: Plan = Plan {
        rounds: 9,
        warm_up: Duration::from_millis(300),
        measured: Duration::from_secs(1),
        only: None,
        write: false,
    };

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Plan> {
        let mut plan = Plan::FULL;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| anyhow::anyhow!("{word} needs a value"));
            match word.as_str() {
                "--quick" => {
                    plan.rounds = 3;
                    plan.measured = Duration::from_millis(400);
                }
                "--rounds" => plan.rounds = value()?.parse()?,
                "--only" => plan.only = Some(value()?),
                "--write" => plan.write = true,
                other => bail!("`{other}` is none of --quick, --rounds N, --only TABLE, --write"),
            }
        }
        if plan.rounds == 0 {
            bail!("--rounds takes a number above 0");
        }
        Ok(plan)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

fn main() -> ExitCode {
    match Plan::parse(std::env::args().skip(1)).and_then(|plan| run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<()> {
    process::raise_descriptors()?;
    let programs = compile::all()?;
    let mut sections = Vec::new();
    for scenario in scenario::all(&programs) {
        if plan.wants(scenario.name) {
            let results = scenario.run(plan)?;
            sections.push(report::table(&scenario, &results));
            println!("{}", sections[sections.len() - 1]);
        }
    }
    if plan.wants("idle") {
        sections.push(report::idle(&scenario::idle(&programs)?));
        println!("{}", sections[sections.len() - 1]);
    }
    if plan.wants("start") {
        sections.push(report::start(&scenario::start(plan, &programs)?));
        println!("{}", sections[sections.len() - 1]);
    }
    let mut curves = Vec::new();
    if plan.wants("growth") {
        curves = growth::all(plan, &programs)?;
        for curve in &curves {
            sections.push(report::curve(curve));
            println!("{}", sections[sections.len() - 1]);
        }
    }
    if plan.write {
        report::write(plan, &sections, &curves)?;
    }
    Ok(())
}
