//! Every sample plugin passes the public conformance kit, in the way of its author: a handler, and where it is served.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;
#[path = "support/plugins.rs"]
#[expect(dead_code, reason = "each of the tests of plugins needs a part of it")]
mod plugins;

use std::path::Path;

use command::is_there;
use greetd::Registry;
use greetd::testing::{handler_conforms, handler_conforms_at};
use plugins::*;

/// In memory over every kind of link and several framings, and over sockets.
async fn conforms(registry: &Registry, spec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let handler = || registry.handler(spec).unwrap().handler;
    handler_conforms(handler()).await.unwrap_or_else(|failure| panic!("{spec}: {failure}"));
    for endpoint in endpoints(registry, folder.path()).iter().filter(|endpoint| !endpoint.starts_with("memory")) {
        let at = endpoint.parse().unwrap();
        let outcome = handler_conforms_at(registry, handler(), &at).await;
        outcome.unwrap_or_else(|failure| panic!("{spec}: {failure}"));
    }
}

async fn sample_conforms(path: &Path, handler: &str) {
    let plugin = load(path).await;
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    conforms(&registry, handler).await;
}

#[tokio::test]
async fn the_python_samples_conform() {
    if is_there("python3") {
        sample_conforms(&sample("python/hello.py"), "py-hello").await;
        sample_conforms(&sample("python/plain.py"), "plain-hello").await;
    }
}

#[tokio::test]
async fn the_shell_sample_conforms() {
    if is_there("bash") {
        sample_conforms(&sample("shell/hello.sh"), "sh-hello").await;
    }
}

#[tokio::test]
async fn the_node_sample_conforms() {
    if is_there("node") {
        sample_conforms(&sample("node/hello.mjs"), "node-hello").await;
    }
}

#[tokio::test]
async fn the_c_sample_conforms() {
    if is_there("cc") {
        let folder = tempfile::tempdir().unwrap();
        sample_conforms(&compiled(folder.path()), "c-hello").await;
    }
}

#[tokio::test]
async fn a_program_for_each_session_conforms() {
    if is_there("python3") {
        conforms(&Registry::builtin(), &format!("exec:{}", sample("exec/hello.py").display())).await;
    }
}
