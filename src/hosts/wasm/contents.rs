//! What a component imports and exports, and whether this greetd takes it: in words, since the engine's say less.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentExtern, ComponentItem};

use super::API;

/// Our package, of whatever version.
const PACKAGE: &str = "greetd:plugin";
/// What this greetd gives to plugins: each interface, with what is in it.
const GIVEN: &[(&str, &[&str])] = &[("host", &["level", "log"]), ("types", &["action", "peer"])];
/// What a plugin must be.
const WANTED: &str = "handler";

/// What the first bytes of a file make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A component, in binary.
    Component,
    /// A module, as compilers write it that know nothing of components.
    Module,
    /// A component as text.
    Text,
    /// A component of a draft that this engine does not read.
    Draft,
}

impl Form {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Form::Component,
            [0, b'a', b's', b'm', _, _, 0, 0, ..] => Form::Module,
            [0, b'a', b's', b'm', ..] => Form::Draft,
            text if text.trim_ascii_start().starts_with(b"(module") => Form::Module,
            _ => Form::Text,
        }
    }

    /// What is wrong with a file that is no component.
    pub(super) fn must_be_component(self) -> Result<(), String> {
        match self {
            Form::Component | Form::Text => Ok(()),
            Form::Module => Err(format!(
                "is a WebAssembly module, not a component. Link it with wasm-component-ld, or turn it into one with \
                 `wasm-tools component new`, against {PACKAGE}@{API}"
            )),
            Form::Draft => Err("is a component of a draft that this greetd does not read. Rebuild it".to_owned()),
        }
    }
}

/// One side of a component: its names, each with what is in it where it is an interface.
pub(super) type Names = Vec<(String, Vec<String>)>;

/// What a component imports and exports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) imports: Names,
    pub(super) exports: Names,
}

impl Contents {
    pub(super) fn of(component: &Component, engine: &Engine) -> Self {
        let kind = component.component_type();
        let named = |(name, item): (&str, ComponentExtern<'_>)| (name.to_owned(), inside(&item, engine));
        Contents {
            imports: kind.imports(engine).map(named).collect(),
            exports: kind.exports(engine).map(named).collect(),
        }
    }

    /// Why this greetd does not take it.
    pub(super) fn must_be_plugin(&self) -> Result<(), String> {
        let ours = || self.imports.iter().chain(&self.exports).filter_map(|(name, _)| Interface::parse(name));
        if let Some(other) = ours().find(|interface| interface.version.0 != 1) {
            let (major, minor) = other.version;
            return Err(format!(
                "made for greetd plugin API {major}.{minor}; this greetd speaks 1.x. Rebuild against {PACKAGE}@{API}."
            ));
        }
        self.must_import_only_what_is_given()?;
        if !self.exports.iter().filter_map(|(name, _)| Interface::parse(name)).any(|export| export.name == WANTED) {
            let exports: Vec<_> = self.exports.iter().map(|(name, _)| name.as_str()).collect();
            let instead = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            return Err(format!("exports {instead}, and no {PACKAGE}/{WANTED}: it is a component for something else."));
        }
        Ok(())
    }

    fn must_import_only_what_is_given(&self) -> Result<(), String> {
        let mut strangers: Vec<&str> = Vec::new();
        for (name, inside) in &self.imports {
            let Some(interface) = Interface::parse(name) else {
                let package = name.split(['/', '@']).next().unwrap_or(name);
                if !strangers.contains(&package) {
                    strangers.push(package);
                }
                continue;
            };
            let given = GIVEN.iter().find(|(given, _)| *given == interface.name);
            let newer = |what: &str| {
                Err(format!(
                    "imports {what}, which came after greetd plugin API 1.0, all that this greetd speaks. Use a newer one."
                ))
            };
            match given {
                None => return newer(name),
                Some((_, given)) => {
                    if let Some(unknown) = inside.iter().find(|item| !given.contains(&item.as_str())) {
                        return newer(&format!("`{unknown}` of {name}"));
                    }
                }
            }
        }
        if strangers.is_empty() { Ok(()) } else { Err(refusal(&strangers)) }
    }
}

fn inside(item: &ComponentExtern<'_>, engine: &Engine) -> Vec<String> {
    match &item.ty {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).map(|(name, _)| name.to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// An interface of our package.
struct Interface<'a> {
    name: &'a str,
    version: (u64, u64),
}

impl<'a> Interface<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (package, rest) = name.split_once('/')?;
        let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        (package == PACKAGE).then_some(Interface { name, version })
    }
}

/// Why a component that wants to reach outside is not taken.
fn refusal(packages: &[&str]) -> String {
    let mut without: Vec<&str> = Vec::new();
    for package in packages {
        let what = match *package {
            "wasi:filesystem" => "files",
            "wasi:sockets" | "wasi:http" => "network",
            "wasi:clocks" => "clock",
            "wasi:random" => "randomness",
            "wasi:cli" => "environment and standard streams",
            "wasi:io" => "streams",
            _ => "help but greetd:plugin/host",
        };
        if !without.contains(&what) {
            without.push(what);
        }
    }
    let wasi = packages.iter().any(|package| package.starts_with("wasi:"));
    let rebuild = if wasi { " Rebuild with --stub-wasi." } else { "" };
    format!("imports {}; plugins get no {}.{rebuild}", packages.join(", "), without.join(", no "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(imports: &[(&str, &[&str])], exports: &[&str]) -> Result<(), String> {
        let owned = |(name, inside): &(&str, &[&str])| {
            ((*name).to_owned(), inside.iter().map(|item| (*item).to_owned()).collect())
        };
        let imports = imports.iter().map(owned).collect();
        let exports = exports.iter().map(|name| owned(&(name, &[]))).collect();
        Contents { imports, exports }.must_be_plugin()
    }

    const HANDLER: &str = "greetd:plugin/handler@1.0.0";

    #[test]
    fn a_plugin_of_this_version_and_of_a_newer_minor_one_is_taken() {
        let host = ("greetd:plugin/host@1.0.0", &["level", "log"][..]);
        let types = ("greetd:plugin/types@1.0.0", &["action", "peer"][..]);
        assert_eq!(judge(&[host, types], &[HANDLER]), Ok(()));
        assert_eq!(judge(&[("greetd:plugin/types@1.7.0", &[])], &["greetd:plugin/handler@1.7.0"]), Ok(()));
    }

    #[test]
    fn what_is_not_taken_is_told_in_words() {
        for (imports, exports, words) in [
            (
                &[][..],
                &["greetd:plugin/handler@2.0.0"][..],
                "made for greetd plugin API 2.0; this greetd speaks 1.x. Rebuild against greetd:plugin@1.0.0.",
            ),
            (
                &[("wasi:filesystem/types@0.2.6", &[][..])],
                &[HANDLER],
                "imports wasi:filesystem; plugins get no files. Rebuild with --stub-wasi.",
            ),
            (
                &[("wasi:clocks/wall-clock@0.2.0", &[]), ("wasi:clocks/x@0.2.0", &[]), ("wasi:sockets/tcp@0.2.0", &[])],
                &[HANDLER],
                "imports wasi:clocks, wasi:sockets; plugins get no clock, no network. Rebuild with --stub-wasi.",
            ),
            (
                &[("acme:secrets/store", &[])],
                &[HANDLER],
                "imports acme:secrets; plugins get no help but greetd:plugin/host.",
            ),
            (
                &[("greetd:plugin/clock@1.1.0", &[])],
                &["greetd:plugin/handler@1.1.0"],
                "imports greetd:plugin/clock@1.1.0, which came after greetd plugin API 1.0, all that this greetd \
                 speaks. Use a newer one.",
            ),
            (
                &[("greetd:plugin/host@1.1.0", &["log", "now"])],
                &["greetd:plugin/handler@1.1.0"],
                "imports `now` of greetd:plugin/host@1.1.0, which came after greetd plugin API 1.0, all that this \
                 greetd speaks. Use a newer one.",
            ),
            (
                &[],
                &["wasi:http/incoming-handler@0.2.0"],
                "exports wasi:http/incoming-handler@0.2.0, and no greetd:plugin/handler: it is a component for \
                 something else.",
            ),
        ] {
            assert_eq!(judge(imports, exports), Err(words.to_owned()));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_imported_beside_what_is_given_is_named(package in "[a-z]{1,9}:[a-z-]{1,9}", rest in "[a-z/@.0-9]{0,9}") {
            proptest::prop_assume!(package != PACKAGE);
            let refused = judge(&[(&format!("{package}/{rest}"), &[])], &[HANDLER]).unwrap_err();
            proptest::prop_assert!(refused.starts_with(&format!("imports {package}; plugins get no ")), "{refused}");
        }

        #[test]
        fn any_name_and_any_start_of_a_file_is_judged(name in ".{0,60}", bytes in ".{0,20}") {
            let _ = judge(&[(&name, &[])], &[&name]);
            let _ = Form::of(bytes.as_bytes()).must_be_component();
        }
    }

    #[test]
    fn modules_and_components_are_told_apart() {
        assert_eq!(Form::of(b"\0asm\x0d\0\x01\0"), Form::Component);
        assert_eq!(Form::of(b"\0asm\x01\0\0\0"), Form::Module);
        assert_eq!(Form::of(b"\0asm\x0c\0\x01\0"), Form::Draft);
        assert_eq!(Form::of(b"(component)"), Form::Text);
        assert_eq!(Form::of(b" (module)"), Form::Module);
        assert!(Form::Module.must_be_component().unwrap_err().starts_with("is a WebAssembly module, not a component."));
    }
}
