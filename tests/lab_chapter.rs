//! The chapter "What bind really does" is what the lab prints here and now.
//!
//! `GREETD_UPDATE_DOCS=1 cargo test --test lab_chapter` writes it anew.

#![cfg(feature = "cli")]

use std::path::Path;

use greetd::lab::topology::TopologyError;
use greetd::lab::{Experiment, Ground, Topology, report};

#[test]
fn the_chapter_is_what_the_kernel_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut chapter = std::fs::read_to_string(folder.join("what-bind-really-does.intro.md")).unwrap();
    for experiment in Experiment::ALL {
        let ground = match Topology::new() {
            Ok(topology) => Ground::Private(topology),
            Err(TopologyError::Unavailable(why)) => {
                assert!(std::env::var_os("GREETD_REQUIRE_TOOLS").is_none(), "{why}");
                eprintln!("left out: {why}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let mut report = experiment.run(&ground).unwrap();
        // The chapter holds for every kernel on which the test passes.
        report.kernel = Some("Linux".to_owned());
        chapter.push_str(&report::as_markdown(&report));
        chapter.push('\n');
    }
    let chapter = format!("{}\n", chapter.trim_end());
    let file = folder.join("what-bind-really-does.md");
    if std::env::var_os("GREETD_UPDATE_DOCS").is_some() {
        std::fs::write(&file, &chapter).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    for (number, (kept, now)) in kept.lines().zip(chapter.lines()).enumerate() {
        assert_eq!(kept, now, "line {} of {} is not what the kernel does", number + 1, file.display());
    }
    assert_eq!(kept.lines().count(), chapter.lines().count(), "{} is not of the same length", file.display());
}
