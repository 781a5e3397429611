//! The plugins to begin with that are WebAssembly components.

use super::{Language, Template, file, program};

macro_rules! sample {
    ($path:literal) => {
        include_str!(concat!("../../../../plugins/", $path))
    };
}

const WIT: Template = file("wit/greetd.wit", sample!("wit/greetd.wit"));

/// A project that is built, not only run.
pub(super) struct Project {
    /// What the sample calls its handler.
    pub(super) sample_name: &'static str,
    pub(super) templates: Vec<Template>,
    /// How it is built, where it is, and how it is run.
    pub(super) commands: &'static str,
    pub(super) needs: &'static str,
}

/// None for what has no tools for it. The Rust sample, being a package, is not part of greetd's own when that is
/// published: what it begins with lies beside this file, and a test holds that they are the same.
pub(super) fn project(language: Language) -> Option<Project> {
    Some(match language {
        Language::Python => Project {
            sample_name: "wasm-py-hello",
            templates: vec![WIT, file("handler.py", sample!("wasm-python/handler.py"))],
            commands: "componentize-py -d wit -w plugin componentize --stub-wasi handler -o NAME.wasm\n\
                       greetd plugin check NAME.wasm\ngreetd --plugin NAME.wasm --handler NAME",
            needs: "It needs Python, and once: pip install componentize-py. The module must be called handler.",
        },
        Language::Js => Project {
            sample_name: "wasm-js-hello",
            templates: vec![WIT, file("NAME.js", sample!("wasm-js/hello.js"))],
            commands: "npx componentize-qjs --sync --stub-wasi --wit wit --js NAME.js -o NAME.wasm\n\
                       greetd plugin check NAME.wasm\ngreetd --plugin NAME.wasm --handler NAME",
            needs: "It needs Node.js, and once: npm install componentize-qjs.",
        },
        Language::C => Project {
            sample_name: "wasm-c-hello",
            templates: vec![
                WIT,
                file("hello.c", sample!("wasm-c/hello.c")),
                file("greetd.c", sample!("wasm-c/greetd.c")),
                file("greetd.h", sample!("wasm-c/greetd.h")),
                program("build.sh", sample!("wasm-c/build.sh")),
            ],
            commands: "./build.sh NAME.wasm && greetd plugin check NAME.wasm\ngreetd --plugin NAME.wasm --handler NAME",
            needs: "It needs clang 19 or later, and Rust for the linker that comes with it.",
        },
        Language::Rust => Project {
            sample_name: "wasm-rust-hello",
            templates: vec![
                WIT,
                file("Cargo.toml", include_str!("rust/Cargo.toml.in")),
                file(".cargo/config.toml", include_str!("rust/config.toml.in")),
                file("src/lib.rs", include_str!("rust/lib.rs.in")),
            ],
            commands: "cargo build --release\n\
                       greetd plugin check target/wasm32-unknown-unknown/release/hello.wasm\n\
                       greetd --plugin target/wasm32-unknown-unknown/release/hello.wasm --handler NAME",
            needs: "It needs Rust 1.88 or later, and once: rustup target add wasm32-unknown-unknown.",
        },
        Language::Shell => return None,
    })
}
