//! The user's own experiments: files of steps, each with what the model predicts, what the kernel does, and what the
//! author expects.
//!
//! A file is JSON or TOML. Every case has hosts of its own and one fresh port, which all its sockets use unless a step
//! names another. The steps run in order; one whose socket does not exist, because it could not be bound, is left out.
//!
//! ```
//! use greetd::lab::scenario::{Format, Scenario};
//! let scenario = Scenario::parse(r#"{"cases": [{"id": "wildcard-then-loopback", "proto": "tcp", "steps": [
//!     {"op": "bind",   "socket": "a", "address": "0.0.0.0",   "expect": "ok"},
//!     {"op": "listen", "socket": "a", "backlog": 5},
//!     {"op": "bind",   "socket": "b", "address": "127.0.0.1", "expect": "EADDRINUSE"}]}]}"#, Format::Json)?;
//! let result = scenario.predict();
//! assert!(result.as_expected());
//! assert_eq!(result.cases[0].steps[2].rule.name(), "overlap");
//! # Ok::<(), greetd::lab::scenario::ScenarioError>(())
//! ```

mod action;
mod file;
mod stage;
#[cfg(test)]
mod tests;
mod world;

use std::io;

use serde::Serialize;
use serde_json::{Value, json};

use super::experiments::kernel;
use super::ground::Ground;
use super::model::{Proto, Rule};
use super::outcome::Outcome;
use super::report::{self, Case, Column, Report, Row, Section, Shown};
use super::socket::Call;
use super::topology::TopologyError;
use crate::verdict::Verdict;
use action::Action;
pub use file::{Format, ScenarioError};
use stage::Stage;
use world::World;

/// The port of a case that is only predicted.
const SOME_PORT: u16 = 20_000;

/// Cases to be tried.
#[derive(Debug, Clone)]
pub struct Scenario {
    cases: Vec<Plan>,
}

/// One case, read and understood.
#[derive(Debug, Clone)]
struct Plan {
    id: String,
    proto: Proto,
    steps: Vec<PlannedStep>,
}

#[derive(Debug, Clone)]
struct PlannedStep {
    /// As it was written, for the output.
    op: &'static str,
    socket: Option<String>,
    in_words: String,
    expect: Option<String>,
    action: Action,
}

/// What came of a scenario.
#[derive(Debug, Clone)]
pub struct ScenarioResult {
    /// The kernel; `None` where it was only predicted.
    pub kernel: Option<String>,
    /// What could not be tried.
    pub limits: Vec<String>,
    /// What came of each case.
    pub cases: Vec<CaseResult>,
}

/// What came of a case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseResult {
    /// Its name.
    pub id: String,
    /// What came of each step.
    pub steps: Vec<StepResult>,
}

/// What came of a step.
#[derive(Debug, Clone, Serialize)]
pub struct StepResult {
    /// The operation.
    pub op: &'static str,
    /// The socket that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// What the author expects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// What the model says; `None` where it says nothing.
    pub predicted: Option<Outcome>,
    /// What the kernel did; `None` where the step was left out.
    pub observed: Option<Outcome>,
    /// The rule behind the prediction.
    pub rule: Rule,
    /// Whether it came out as the author expects or, where nothing is expected, as the model predicts.
    pub as_expected: bool,
    /// The system calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Call>,
    /// The step in words.
    #[serde(skip)]
    in_words: String,
}

impl Scenario {
    /// How many cases there are.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// What the model says of every step, as if each came out as predicted.
    pub fn predict(&self) -> ScenarioResult {
        let cases = self.cases.iter().map(|plan| {
            let mut world = World::new(plan.proto, SOME_PORT);
            let steps = plan.steps.iter().map(|step| {
                let (predicted, rule) = world.predict(&step.action);
                world.apply(&step.action, predicted.as_ref());
                step.result(predicted, rule, None, Vec::new(), false)
            });
            CaseResult { id: plan.id.clone(), steps: steps.collect() }
        });
        ScenarioResult { kernel: None, limits: Vec::new(), cases: cases.collect() }
    }

    /// Predicts and tries every step, each case on hosts of its own. `began` is told the name of each case.
    ///
    /// # Errors
    /// Where the hosts could not be set up; a call that fails is a result.
    pub fn run(&self, mut began: impl FnMut(&str)) -> io::Result<ScenarioResult> {
        let mut limits = Vec::new();
        let mut cases = Vec::new();
        for plan in &self.cases {
            began(&plan.id);
            let ground = Ground::new().map_err(|error| match error {
                TopologyError::Setup(error) => error,
                other @ TopologyError::Unavailable(_) => io::Error::other(other),
            })?;
            limits = ground.limits();
            cases.push(plan.run(&ground)?);
        }
        Ok(ScenarioResult { kernel: Some(kernel()), limits, cases })
    }
}

impl Plan {
    fn run(&self, ground: &Ground) -> io::Result<CaseResult> {
        let mut stage = Stage::new(ground, self.proto)?;
        let mut world = World::new(self.proto, stage.port());
        let mut steps = Vec::new();
        for step in &self.steps {
            let (predicted, rule) = world.predict(&step.action);
            let (observed, evidence) = match stage.play(&step.action)? {
                Some((observed, evidence)) => (Some(observed), evidence),
                None => (None, Vec::new()),
            };
            world.apply(&step.action, observed.as_ref());
            steps.push(step.result(predicted, rule, observed, evidence, true));
        }
        Ok(CaseResult { id: self.id.clone(), steps })
    }
}

impl PlannedStep {
    fn result(
        &self,
        predicted: Option<Outcome>,
        rule: Rule,
        observed: Option<Outcome>,
        evidence: Vec<Call>,
        is_run: bool,
    ) -> StepResult {
        let word = |outcome: &Outcome| outcome.to_string();
        // What was not tried kept no promise of its author's, and broke none of the model's.
        let as_expected = match (&self.expect, &observed, &predicted) {
            (Some(expect), None, Some(predicted)) if !is_run => word(predicted) == *expect,
            (Some(expect), observed, _) => observed.as_ref().map(word).as_ref() == Some(expect),
            (None, Some(observed), Some(predicted)) => observed == predicted,
            (None, ..) => true,
        };
        StepResult {
            op: self.op,
            socket: self.socket.clone(),
            expect: self.expect.clone(),
            predicted,
            observed,
            rule,
            as_expected,
            evidence,
            in_words: self.in_words.clone(),
        }
    }
}

impl ScenarioResult {
    /// Whether every step came out as expected.
    pub fn as_expected(&self) -> bool {
        self.unexpected() == 0
    }

    /// How many steps did not.
    pub fn unexpected(&self) -> usize {
        self.cases.iter().flat_map(|case| &case.steps).filter(|step| !step.as_expected).count()
    }

    /// `ok`, or `failed` where a step came out otherwise than expected.
    pub fn verdict(&self) -> Verdict {
        if self.as_expected() { Verdict::Ok } else { Verdict::Failed }
    }

    /// As one JSON object.
    pub fn as_json(&self) -> Value {
        json!({ "verdict": self.verdict(), "kernel": self.kernel, "limits": self.limits, "cases": self.cases })
    }

    /// How it went, in a sentence.
    pub fn closing(&self) -> String {
        let steps: Vec<&StepResult> = self.cases.iter().flat_map(|case| &case.steps).collect();
        let count = |what: &str, is_it: &dyn Fn(&StepResult) -> bool| {
            let count = steps.iter().filter(|step| is_it(step)).count();
            (count > 0).then(|| format!("{count} {what}"))
        };
        let Some(kernel) = &self.kernel else {
            let otherwise = count("otherwise than expected", &|step| !step.as_expected);
            let otherwise = otherwise.map(|some| format!(", {some}")).unwrap_or_default();
            return format!("{} steps predicted{otherwise}, none tried.", steps.len());
        };
        let parts = [
            count("as expected", &|step| step.as_expected && step.observed.is_some()),
            count("otherwise than expected", &|step| !step.as_expected && step.observed.is_some()),
            count("left out, of which something was expected", &|step| !step.as_expected && step.observed.is_none()),
            count("left out", &|step| step.as_expected && step.observed.is_none()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{} steps on {kernel}: {}.", steps.len(), parts.join(", "))
    }

    /// As a report, which can be shown in all the ways that there are.
    pub fn as_report(&self) -> Report {
        Report {
            experiment: "run",
            title: "Your own scenario",
            about: "Every case has two hosts and a port of its own. \"expected\" is what its author wrote or, where \
                nothing is written, what the model predicts.",
            legend: report::BINDS,
            kernel: self.kernel.clone(),
            limits: self.limits.clone(),
            sections: self.cases.iter().map(section).collect(),
            closing: Some(self.closing()),
        }
    }
}

/// The outcome that the author expects takes the model's place, where there is one.
fn section(case: &CaseResult) -> Section {
    let column = |name: &str| Column { group: String::new(), name: name.to_owned() };
    let rows = case.steps.iter().map(|step| {
        let wanted = match (&step.expect, &step.predicted) {
            (Some(expect), _) => Outcome::Is(expect.clone()),
            (None, Some(predicted)) => predicted.clone(),
            (None, None) => Outcome::Is("anything".to_owned()),
        };
        let mut cell = Case::predicted(vec![("step", json!(step.in_words))], wanted.clone(), step.rule);
        if let Some(observed) = &step.observed {
            let observed = if step.as_expected { wanted.clone() } else { observed.clone() };
            cell.observe(observed, step.evidence.clone());
        }
        let shown = Outcome::Is(step.observed.as_ref().map_or_else(|| "left out".to_owned(), ToString::to_string));
        let mut expected = Case::predicted(vec![("step", json!(step.in_words))], wanted, step.rule);
        expected.observed = Some(expected.predicted.clone());
        let observed = match &step.observed {
            Some(_) if step.as_expected => Case { predicted: shown.clone(), observed: Some(shown), ..cell },
            _ => cell,
        };
        Row {
            name: step.in_words.clone(),
            cells: vec![Some(expected), Some(observed)],
            why: step.rule.sentence().to_owned(),
        }
    });
    Section {
        title: case.id.clone(),
        about: String::new(),
        shown: Shown::Words,
        summed_at: None,
        row_head: "step",
        columns: vec![column("expected"), column("observed")],
        rows: rows.collect(),
    }
}
