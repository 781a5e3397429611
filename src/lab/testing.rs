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
