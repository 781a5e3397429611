//! `greetd --plugin`, `greetd plugin check` and `greetd plugin new` with WebAssembly, from the outside; and what a greetd
//! says of it that was built without.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use command::greetd;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins");
const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/wasm-c/hello.wat");

#[cfg(not(feature = "wasm"))]
#[test]
fn a_greetd_that_was_built_without_webassembly_says_so_and_how_to_build_it() {
    for words in [&["--plugin", HELLO][..], &["plugin", "check", HELLO]] {
        let ran = greetd(words);
        let said = "hello.wat: is WebAssembly, and this greetd was built without it. With it: cargo build --release \
                    --features wasm";
        assert!(ran.code != 0 && ran.stderr.contains(said), "{ran:?}");
    }
}

#[cfg(feature = "wasm")]
#[test]
fn the_check_says_what_a_component_imports_and_exports_and_what_it_does_right() {
    let ran = greetd(&["plugin", "check", HELLO]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said =
        "ok: imports greetd:plugin/types@1.0.0; exports greetd:plugin/handler@1.0.0; nothing else is asked for\n";
    assert!(ran.stdout.starts_with(said), "{ran:?}");
    for said in [
        "ok: names its handlers: wasm-c-hello\n",
        "ok: each session has an instance of its own, made in ",
        "ok: wasm-c-hello answers openings and messages, on connections and on datagrams\n",
        "ok: wasm-c-hello takes empty, binary and long messages\n",
        "ok: wasm-c-hello frees what it no longer needs\n",
    ] {
        assert!(ran.stdout.contains(said), "{ran:?}");
    }
    assert!(!ran.stdout.contains("warning"), "{ran:?}");
}

#[cfg(feature = "wasm")]
#[test]
fn the_check_says_what_is_wrong_with_a_component_and_what_it_has_instead() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/mischief.wat")).unwrap();
    for (text, said) in [
        (
            whole.replace(";; IMPORTS", "(import \"wasi:cli/environment@0.2.6\" (instance))"),
            "plugin.wat: imports wasi:cli; plugins get no environment and standard streams. Rebuild with --stub-wasi. It \
             imports greetd:plugin/types@1.0.0, greetd:plugin/host@1.0.0, wasi:cli/environment@0.2.6; exports \
             greetd:plugin/handler@1.0.0.",
        ),
        (whole.replace("@1.0.0", "@3.1.0"), "made for greetd plugin API 3.1; this greetd speaks 1.x. Rebuild against"),
        ("(module)".to_owned(), "plugin.wat: is a WebAssembly module, not a component."),
    ] {
        let path = folder.path().join("plugin.wat");
        std::fs::write(&path, text).unwrap();
        let ran = greetd(&["plugin", "check", path.to_str().unwrap()]);
        assert!(ran.code == 18 && ran.stderr.contains(said), "{ran:?}");
    }
}

#[cfg(feature = "wasm")]
#[test]
fn what_is_compiled_is_kept_where_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let list = |cache: &std::path::Path| {
        greetd(&["list", "handlers", "--plugin", HELLO, "--plugin-cache", cache.to_str().unwrap()])
    };
    assert!(list(&cache).stdout.contains("wasm-c-hello"));
    assert!(std::fs::read_dir(&cache).unwrap().next().is_some());
    assert!(list("no".as_ref()).stdout.contains("wasm-c-hello"));
}

/// Each project is whole: it names no file that is not there.
#[test]
fn a_new_plugin_in_webassembly_is_written_with_all_that_builds_it() {
    let folder = tempfile::tempdir().unwrap();
    for (lang, files, command) in [
        (
            "rust",
            &["Cargo.toml", ".cargo/config.toml", "src/lib.rs", "wit/greetd.wit"][..],
            "greetd --plugin target/wasm32-unknown-unknown/release/hello.wasm --handler my-rust",
        ),
        (
            "c",
            &["hello.c", "greetd.c", "greetd.h", "build.sh", "wit/greetd.wit"],
            "./build.sh my-c.wasm && greetd plugin check my-c.wasm",
        ),
        (
            "python",
            &["handler.py", "wit/greetd.wit"],
            "componentize-py -d wit -w plugin componentize --stub-wasi handler -o my-python.wasm",
        ),
        (
            "js",
            &["my-js.js", "wit/greetd.wit"],
            "npx componentize-qjs --sync --stub-wasi --wit wit --js my-js.js -o my-js.wasm",
        ),
    ] {
        let name = format!("my-{lang}");
        let mut new = command::command(&["plugin", "new", "--wasm", "--lang", lang, &name]);
        assert!(new.current_dir(&folder).status().unwrap().success());
        let own = folder.path().join(&name);
        let mut all = String::new();
        for file in files {
            let text = std::fs::read_to_string(own.join(file)).unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
            if lang == "rust" && !file.starts_with("wit") {
                let sample = std::fs::read_to_string(format!("{SAMPLES}/wasm-rust/{file}")).unwrap();
                assert_eq!(
                    text,
                    sample.replace("wasm-rust-hello", &name).replace("../wit", "wit"),
                    "the sample differs"
                );
            }
            all += &text;
        }
        assert!(
            all.contains(&format!("\"{name}\"")) && !all.contains("../wit"),
            "{name} has its own name and interface"
        );
        let readme = std::fs::read_to_string(own.join("README.md")).unwrap();
        assert!(readme.contains(command), "{readme}");
    }
    let mut new = command::command(&["plugin", "new", "--wasm", "--lang", "shell", "my-shell"]);
    assert_eq!(new.current_dir(&folder).status().unwrap().code(), Some(2));
    assert!(!folder.path().join("my-shell").exists());
}
