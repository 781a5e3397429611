//! The structure, held: who may import whom, file sizes, module docs, and words that have no place in the library.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each top-level module of the library and what it may import of the others. A new module joins the list, and a new
/// import is a decision made here.
const ALLOWED: &[(&str, &[&str])] = &[
    // Words and values: they import next to nothing.
    ("escape", &[]),
    ("options", &[]),
    ("random", &[]),
    ("timestamp", &[]),
    ("verdict", &[]),
    ("framing", &[]),
    ("address", &["escape"]),
    ("endpoint", &["options"]),
    ("limits", &["options"]),
    ("error", &["framing"]),
    ("event", &["address", "escape"]),
    ("faults", &["options", "random"]),
    // Contracts.
    ("link", &["address", "error", "framing"]),
    ("transport", &["address", "endpoint", "error", "link"]),
    ("layer", &["endpoint", "error", "link"]),
    ("session", &["address", "error", "event", "framing", "link", "transport"]),
    ("handler", &["error", "link", "session"]),
    ("service", &["endpoint", "error", "framing", "handler", "layer", "limits", "link", "session", "transport"]),
    // `builtin` fills the registry, and `Registry::builtin` calls it: the one circle, by intent.
    (
        "registry",
        &["builtin", "endpoint", "framing", "handler", "layer", "limits", "link", "options", "service", "transport"],
    ),
    // The engine: contracts alone.
    (
        "server",
        &[
            "address",
            "endpoint",
            "error",
            "event",
            "framing",
            "handler",
            "limits",
            "link",
            "service",
            "session",
            "transport",
        ],
    ),
    // Implementations: contracts, never each other.
    ("framings", &["framing", "options"]),
    ("layers", &["endpoint", "error", "faults", "framing", "layer", "link", "options", "session"]),
    (
        "handlers",
        &[
            "address",
            "endpoint",
            "error",
            "escape",
            "framing",
            "handler",
            "link",
            "options",
            "registry",
            "service",
            "session",
            "timestamp",
        ],
    ),
    (
        "transports",
        &[
            "address",
            "endpoint",
            "error",
            "escape",
            "faults",
            "framing",
            "layers",
            "link",
            "options",
            "transport",
            "verdict",
        ],
    ),
    // What runs handlers that are not compiled in: contracts alone.
    (
        "hosts",
        &[
            "address", "endpoint", "error", "escape", "event", "framing", "handler", "link", "options", "registry",
            "session",
        ],
    ),
    ("builtin", &["faults", "framings", "handlers", "hosts", "layers", "options", "registry", "transports"]),
    // The conformance kit checks whatever it is given.
    (
        "testing",
        &[
            "address",
            "endpoint",
            "error",
            "escape",
            "event",
            "framing",
            "framings",
            "handler",
            "hosts",
            "layer",
            "layers",
            "link",
            "options",
            "random",
            "registry",
            "server",
            "service",
            "session",
            "transport",
            "transports",
        ],
    ),
    // What the kernel of this machine says, and the experiments on it.
    ("machine", &["address", "endpoint", "escape", "verdict"]),
    ("lab", &["address", "endpoint", "escape", "machine", "options", "random", "registry", "verdict"]),
    ("load", &["error", "escape", "framing", "link", "options", "service", "verdict"]),
    // The command line imports everything.
    ("cli", &["*"]),
];

/// A file longer than this is probably about two things.
const LONGEST_FILE: usize = 600;

#[test]
fn modules_import_what_they_may_and_nothing_else() {
    let mut wrong = Vec::new();
    let files = library_files();
    let tests_alone = modules_of_tests(&files);
    for file in files.into_iter().filter(|file| !tests_alone.iter().any(|module| file.starts_with(module))) {
        let module = top_module(&file);
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module `{module}` is not in the list", file.display()));
            continue;
        };
        let own = [module.as_str()];
        for imported in imports(&code_of(&file)) {
            let fine =
                allowed.contains(&"*") || allowed.contains(&imported.as_str()) || own.contains(&imported.as_str());
            if !fine {
                wrong.push(format!("{}: `{module}` may not import `{imported}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_command_line_knows_clap_signals_exits_and_the_standard_output() {
    let words = ["clap::", "tokio::signal", "process::exit", "println!", "eprintln!", "std::env::var"];
    let mut wrong = Vec::new();
    for file in library_files() {
        // Inherited descriptors are described by the environment alone: sd_listen_fds(3).
        let may_read_environment = file.ends_with("transports/socket/inherited.rs");
        // The laboratory's own tests say what this machine made them leave out.
        if matches!(top_module(&file).as_str(), "cli" | "main") || file.ends_with("lab/testing.rs") {
            continue;
        }
        let code = code_of(&file);
        for word in words.iter().filter(|word| code.contains(**word)) {
            if !(may_read_environment && *word == "std::env::var") {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_about_and_is_about_one_thing() {
    let mut wrong = Vec::new();
    for file in library_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        if !text.starts_with("//!") {
            wrong.push(format!("{}: no module doc", file.display()));
        }
        if text.lines().count() > LONGEST_FILE {
            wrong.push(format!("{}: {} lines", file.display(), text.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn library_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 20, "the library was found");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The files and folders of modules that are compiled for tests alone: `#[cfg(test)] mod tests;`.
fn modules_of_tests(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for after in text.split("#[cfg(test)]\n").skip(1) {
            let declared = after.lines().next().unwrap_or_default().trim().trim_start_matches("pub(crate) ");
            if let Some(name) = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                let folder = if file.ends_with("lib.rs") { file.with_file_name("") } else { file.with_extension("") };
                found.extend([folder.join(name), folder.join(name).with_extension("rs")]);
            }
        }
    }
    found
}

/// `src/server/accept.rs` belongs to `server`.
fn top_module(file: &Path) -> String {
    let inside = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The code without comments, doc tests and unit tests.
fn code_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The top-level modules named in `crate::…` paths, also in `crate::{a, b::c}`. Re-exports count as their module.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let names: Vec<&str> = match after.strip_prefix('{') {
            Some(list) => top_level_names(list),
            None => vec![after],
        };
        for name in names {
            let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                found.insert(home_of(&name).unwrap_or(name));
            }
        }
    }
    found
}

/// Splits the inside of a use list at its own commas, to its closing brace.
fn top_level_names(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// Where `lib.rs` re-exports a name from.
fn home_of(name: &str) -> Option<String> {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let exports = lib.split("pub use ").skip(1);
    exports.filter_map(|export| export.split_once(';')).find_map(|(export, _)| {
        let (module, names) = export.split_once("::")?;
        let names = names.trim_start_matches('{').trim_end_matches('}');
        names.split(',').any(|exported| exported.trim() == name).then(|| module.to_owned())
    })
}

#[test]
fn the_check_itself_sees_imports_in_lists_and_through_re_exports() {
    let found =
        imports("use crate::{link::Peer, server};\nfn f(_: crate::Session) {}\nuse crate::error::{Error, Result};");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["error", "link", "server", "session"]);
}
