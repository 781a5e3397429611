//! What a message and its answer cost where a WebAssembly guest answers, beside the built-in `hello`: over memory, one
//! at a time, so that what is measured is the guest and its host.
//!
//!     GREETD_WASM_SAMPLES=folder cargo bench -p greetd-bench --features wasm --bench wasm
//!
//! The folder holds the samples of `plugins/`, built; without it the C sample alone is measured.

use std::path::{Path, PathBuf};
use std::time::Instant;

use criterion::{Criterion, Throughput};
use greetd::hosts::{Environment, Plugin, Timing};
use greetd::{Registry, Server, Session};
use tokio::runtime::Runtime;

fn samples() -> Vec<PathBuf> {
    let mut samples = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/wasm-c/hello.wat")];
    if let Some(folder) = std::env::var_os("GREETD_WASM_SAMPLES") {
        let files =
            std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("it is read").path());
        samples.extend(files.filter(|path| path.extension().is_some_and(|ending| ending == "wasm")));
        samples.sort();
    }
    samples
}

/// A session with the handler, which is served on this runtime.
async fn session(registry: &Registry, handler: &str) -> Session {
    let endpoint = format!("memory://{handler}?kind=messages").parse().expect("it is an endpoint");
    let service = registry.service(&endpoint, handler).expect("it is a service");
    let running = Server::new().serve(service).bind().await.expect("it is free").start();
    let mut session = registry.dialler(&endpoint).expect("it can be called").dial().await.expect("it answers");
    session.recv().await.expect("it says welcome");
    // It serves for as long as the program runs.
    std::mem::forget(running);
    session
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, registry: &Registry, handler: &str) {
    let mut session = runtime.block_on(session(registry, handler));
    let mut group = criterion.benchmark_group("message");
    group.throughput(Throughput::Elements(1));
    group.bench_function(handler, |bencher| {
        bencher.iter_custom(|times| {
            runtime.block_on(async {
                let begun = Instant::now();
                for _ in 0..times {
                    session.send(b"0123456789abcdef").await.expect("it is open");
                    session.recv().await.expect("it is open").expect("it answers");
                }
                begun.elapsed()
            })
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a runtime");
    let mut registry = Registry::builtin();
    let mut handlers = vec!["hello".to_owned()];
    let mut plugins = Vec::new();
    for path in samples() {
        let timing = Timing { start: std::time::Duration::from_secs(60), ..Timing::default() };
        let plugin = runtime.block_on(Plugin::load(&path, &Environment::default(), timing));
        let plugin = plugin.unwrap_or_else(|error| panic!("{error}"));
        // The C sample may be there as text and built.
        if plugin.register(&mut registry).is_ok() {
            handlers.extend(plugin.names());
            plugins.push(plugin);
        }
    }
    for handler in handlers {
        measure(&mut criterion, &runtime, &registry, &handler);
    }
    criterion.final_summary();
}
