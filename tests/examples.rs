//! The examples run to their ends by themselves; each asserts what it shows.

use std::path::Path;
use std::process::Command;

/// All of them, so that whatever is added takes part.
#[test]
fn every_example_runs_to_its_end() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(project.join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 5, "only {names:?} are there");
    for name in names {
        // Built with what this test was built with, so that nothing is built anew.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(project).args(["run", "--quiet", "--example", &name]);
        if !cfg!(feature = "cli") {
            if name == "custom_daemon" {
                continue;
            }
            cargo.arg("--no-default-features");
        }
        let output = cargo.output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {}\n{said}\n{complained}", output.status);
    }
}
