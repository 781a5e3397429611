//! What the lab's tests share: the topology, where this machine allows it.

use super::topology::{Topology, TopologyError};

/// A fresh topology; `None`, and a word on stderr, where namespaces are not allowed and `GREETD_REQUIRE_TOOLS` is
/// not set.
pub(crate) fn topology() -> Option<Topology> {
    match Topology::new() {
        Ok(topology) => Some(topology),
        Err(TopologyError::Unavailable(why)) if std::env::var_os("GREETD_REQUIRE_TOOLS").is_none() => {
            eprintln!("left out: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs an experiment and holds the kernel to the model in every one of so many cases.
pub(crate) fn agrees(experiment: crate::lab::Experiment, cases: usize) {
    let Some(topology) = topology() else { return };
    let report = experiment.run(&crate::lab::Ground::Private(topology)).unwrap();
    let differing: Vec<_> = report
        .cases()
        .filter(|case| case.differs())
        .map(|case| format!("{:?}: {} by {}, was {:?}", case.what, case.predicted, case.rule, case.observed))
        .collect();
    assert_eq!(report.tried(), cases);
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}
