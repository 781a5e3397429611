//! A report as one JSON object.

use serde_json::{Map, Value, json};

use super::{Report, Section};
use crate::verdict::Verdict;

/// One experiment: `verdict`, `kernel` (null where nothing was run), `experiment`, `limits`, and all cases: as `cells`
/// for `reach`, as `cases` for the others.
pub fn as_json(report: &Report) -> Value {
    let mut object = Map::new();
    object.insert("verdict".into(), report.verdict().word().into());
    object.insert("kernel".into(), json!(report.kernel));
    object.insert("experiment".into(), report.experiment.into());
    object.insert("limits".into(), json!(report.limits));
    object.insert("differing".into(), report.differing().into());
    let cases = report.sections.iter().flat_map(Section::cases).collect::<Vec<_>>();
    object.insert(if report.experiment == "reach" { "cells" } else { "cases" }.into(), json!(cases));
    object.into()
}

/// Several experiments: the worst `verdict`, the `kernel`, and each one in `experiments`.
pub fn all_as_json(reports: &[Report]) -> Value {
    let verdict = if reports.iter().all(|one| one.verdict() == Verdict::Ok) { Verdict::Ok } else { Verdict::Failed };
    json!({
        "verdict": verdict,
        "kernel": reports.first().and_then(|report| report.kernel.clone()),
        "experiments": reports.iter().map(as_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Experiment;

    #[test]
    fn a_cell_of_reach_has_the_names_that_others_rely_on() {
        let object = as_json(&Experiment::Reach.predict());
        let cell = object["cells"][0].as_object().unwrap();
        for name in ["proto", "bind", "v6_only", "device", "from", "to", "predicted", "observed", "rule"] {
            assert!(cell.contains_key(name), "{name}: {cell:?}");
        }
        assert_eq!(cell["predicted"], "connected");
        assert_eq!(cell["observed"], Value::Null);
        assert_eq!(object["verdict"], "ok");
    }
}
