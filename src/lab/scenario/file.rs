//! Reading a scenario: text to steps, with the place of every fault.

mod step;

use serde::Deserialize;
use toml::Spanned;

use super::action::Action;
use super::{Plan, PlannedStep, Scenario};
use crate::lab::model::Proto;
use crate::registry::nearest;
use step::StepText;

/// How a scenario is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// TOML.
    Toml,
}

/// Why a text is no scenario, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct ScenarioError {
    /// The line, from 1. The fault of a step as a whole is reported where the step stands.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong there, and what to write.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText<Step> {
    cases: Vec<CaseText<Step>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText<Step> {
    id: String,
    #[serde(default = "tcp")]
    proto: Proto,
    steps: Vec<Step>,
}

fn tcp() -> Proto {
    Proto::Tcp
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`], with the line and the column at fault.
    pub fn parse(text: &str, format: Format) -> Result<Self, ScenarioError> {
        let cases: Vec<CaseText<PlannedStep>> = match format {
            Format::Json => serde_json::from_str::<FileText<_>>(text).map_err(|error| in_json(&error))?.cases,
            Format::Toml => {
                let file: FileText<Spanned<StepText>> = toml::from_str(text).map_err(|error| in_toml(text, &error))?;
                let understood = file.cases.into_iter().map(|case| case.understood(text));
                understood.collect::<Result<_, _>>()?
            }
        };
        Ok(Scenario { cases: cases.into_iter().map(plan).collect() })
    }
}

impl CaseText<Spanned<StepText>> {
    fn understood(self, text: &str) -> Result<CaseText<PlannedStep>, ScenarioError> {
        let steps = self.steps.into_iter().map(|step| {
            let begin = step.span().start;
            step.into_inner().understood().map_err(|reason| at(text, begin, reason))
        });
        Ok(CaseText { id: self.id, proto: self.proto, steps: steps.collect::<Result<_, _>>()? })
    }
}

/// A connection that nobody named gets the name of its listener and the number of its step.
fn plan(mut case: CaseText<PlannedStep>) -> Plan {
    for (place, step) in case.steps.iter_mut().enumerate() {
        if let Action::Accept { socket, name } = &mut step.action {
            name.get_or_insert_with(|| format!("{socket}-{}", place + 1));
        }
    }
    Plan { id: case.id, proto: case.proto, steps: case.steps }
}

fn in_json(error: &serde_json::Error) -> ScenarioError {
    let whole = error.to_string();
    let reason = whole.rsplit_once(" at line ").map_or(&*whole, |(reason, _)| reason);
    ScenarioError { line: error.line().max(1), column: error.column().max(1), reason: plainer(reason) }
}

fn in_toml(text: &str, error: &toml::de::Error) -> ScenarioError {
    at(text, error.span().map_or(0, |span| span.start), plainer(error.message()))
}

fn at(text: &str, begin: usize, reason: String) -> ScenarioError {
    let before = text.get(..begin).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    ScenarioError { line, column, reason }
}

/// In place of a list of all names, the one that was meant; and no word of the types in here.
fn plainer(reason: &str) -> String {
    if let Some((what, expected)) = reason.split_once(", expected one of ")
        && let Some(typed) = what.split('`').nth(1)
        && let Some(meant) = nearest(typed, expected.split('`').skip(1).step_by(2))
    {
        return format!("{what}; did you mean `{meant}`?");
    }
    if reason.contains("expected struct") {
        return "a scenario is an object with a list of `cases`, each with `id`, `proto` and `steps`".to_owned();
    }
    reason.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(step: &str) -> String {
        let text = format!("{{\"cases\": [{{\"id\": \"x\", \"steps\": [\n{step}]}}]}}");
        Scenario::parse(&text, Format::Json).unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_place() {
        for (step, expected) in [
            (
                r#"{"op": "listen", "socket": "a", "address": "::"}"#,
                "line 2, column 49: `listen` has no field `address`; it takes socket, backlog",
            ),
            (
                r#"{"op": "bind", "socket": "a", "address": "nowhere"}"#,
                "line 2, column 52: `nowhere` is not an address",
            ),
            (r#"{"op": "close"}"#, "line 2, column 16: `close` needs `socket`"),
            (
                r#"{"op": "set", "socket": "a"}"#,
                "line 2, column 29: `set` needs an option, such as \"reuse_addr\": true",
            ),
            (
                r#"{"op": "bind", "socket": "a", "adress": "::"}"#,
                "line 2, column 38: unknown field `adress`; did you mean `address`?",
            ),
            (r#"{"op": "listn"}"#, "line 2, column 14: unknown variant `listn`; did you mean `listen`?"),
            (
                r#"{"op": "close", "socket": "a", "expect": "EADRINUSE"}"#,
                "line 2, column 54: `EADRINUSE` is nothing that a step ends with; write ok, connected, reply, \
                 timeout, or the name of an errno such as EADDRINUSE",
            ),
        ] {
            assert_eq!(fault(step), expected);
        }
    }

    #[test]
    fn a_fault_in_toml_has_its_place_too() {
        let fault = |text: &str| Scenario::parse(text, Format::Toml).unwrap_err().to_string();
        let steps = |step: &str| format!("[[cases]]\nid = 'x'\nsteps = [\n  {step},\n]\n");
        let typo = fault(&steps("{ op = 'bind', socket = 'a', adress = '::' }"));
        assert_eq!(typo, "line 4, column 32: unknown field `adress`; did you mean `address`?");
        let nowhere = fault(&steps("{ op = 'bind', socket = 'a', address = 'nowhere' }"));
        assert_eq!(nowhere, "line 4, column 3: `nowhere` is not an address");
        assert!(fault("[[cases]]\nid = \"x").starts_with("line 2, column "), "{}", fault("[[cases]]\nid = \"x"));
    }

    #[test]
    fn what_is_no_object_at_all_is_told_what_a_scenario_is() {
        let error = Scenario::parse("[]", Format::Json).unwrap_err();
        assert!(error.reason.contains("a list of `cases`"), "{error}");
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let toml = "[[cases]]\nid = 'one'\nproto = 'udp'\n[[cases.steps]]\nop = 'bind'\nsocket = 'a'\naddress = '::'\nv6_only = true\n";
        let json = r#"{"cases": [{"id": "one", "proto": "udp", "steps": [
            {"op": "bind", "socket": "a", "address": "::", "v6_only": true}]}]}"#;
        let read = |text, format| format!("{:?}", Scenario::parse(text, format).unwrap());
        assert_eq!(read(toml, Format::Toml), read(json, Format::Json));
    }

    proptest! {
        #[test]
        fn no_text_is_taken_apart_the_wrong_way(text in "\\PC{0,200}", toml in any::<bool>()) {
            let format = if toml { Format::Toml } else { Format::Json };
            if let Err(error) = Scenario::parse(&text, format) {
                prop_assert!(error.line >= 1 && error.column >= 1 && !error.reason.is_empty());
            }
        }

        #[test]
        fn whatever_the_words_of_a_step_are_it_is_read_and_predicted_or_its_place_is_named(
            op in "bind|listen|connect|accept|send|receive|set|sysctl|close",
            fields in proptest::collection::vec(("socket|address|to|from|family|device|expect|name|as", "\\PC{0,9}"), 0..4),
        ) {
            let mut step = serde_json::Map::from_iter([("op".to_owned(), op.into())]);
            step.extend(fields.into_iter().map(|(name, value)| (name, value.into())));
            let text = serde_json::json!({ "cases": [{ "id": "x", "steps": [step] }] }).to_string();
            match Scenario::parse(&text, Format::Json) {
                Ok(scenario) => prop_assert_eq!(scenario.predict().cases.len(), 1),
                Err(error) => prop_assert_eq!(error.line, 1),
            }
        }
    }
}
