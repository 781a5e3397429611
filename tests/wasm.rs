//! WebAssembly plugins: what they do over every transport, what they are refused for, and that one which loops, grows,
//! fails or floods costs its own sessions and nobody else's.
//!
//! `tests/guests/mischief.wat` does what the first byte of a message says; all else here is made of it by replacing
//! text. So no compiler is needed but the engine's.
#![cfg(feature = "wasm")]

#[path = "support/plugins.rs"]
#[expect(dead_code, reason = "each of the tests of plugins needs a part of it")]
mod plugins;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greetd::event::{Counters, Event, Observer};
use greetd::hosts::{Environment, Plugin, PluginError, Reloaded, Timing};
use greetd::server::Running;
use greetd::testing::{handler_conforms, handler_conforms_at};
use greetd::{Endpoint, Registry, Server, Session};
use plugins::{greets, hears, sample, says, sees_the_end, within};

/// Far longer than anything here takes, the compiling of a large guest by an engine without optimisation too.
const PATIENCE: Duration = Duration::from_secs(30);

fn mischief() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/mischief.wat")).unwrap()
}

/// A guest as a file of its own.
fn guest(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("guest.wasm");
    let new = folder.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}

async fn try_to_load(path: &Path) -> Result<Plugin, PluginError> {
    let timing = Timing { start: PATIENCE, answer: PATIENCE };
    Plugin::load(path, &Environment::default(), timing).await
}

async fn load(path: &Path) -> (Plugin, Registry) {
    let plugin = try_to_load(path).await.unwrap_or_else(|error| panic!("{error}"));
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    (plugin, registry)
}

async fn mischievous() -> (Plugin, Registry) {
    let folder = tempfile::tempdir().unwrap();
    load(&guest(folder.path(), &mischief())).await
}

/// What sessions ended with.
#[derive(Default)]
struct Ends(Mutex<Vec<String>>);

impl Observer for Ends {
    fn observe(&self, event: &Event<'_>) {
        if let Event::SessionClosed { error: Some(error), .. } = event {
            self.0.lock().unwrap().push(error.to_string());
        }
    }
}

/// A handler that is served at one endpoint.
struct Served {
    registry: Registry,
    endpoint: Endpoint,
    running: Running,
    ends: Arc<Ends>,
}

impl Served {
    async fn at(registry: &Registry, endpoint: &str, handler: &str) -> Self {
        let parsed: Endpoint = endpoint.parse().unwrap();
        let service = registry.service(&parsed, handler).unwrap();
        let ends = Arc::<Ends>::default();
        let bound = Server::new().observer(ends.clone()).serve(service).bind().await.unwrap();
        let mut endpoint: Endpoint = bound.listeners()[0].to_string().parse().unwrap();
        endpoint.options = parsed.options;
        Served { registry: registry.clone(), endpoint, running: bound.start(), ends }
    }

    async fn call(&self) -> Session {
        self.registry.dialler(&self.endpoint).unwrap().dial().await.unwrap()
    }
}

/// Over links in memory, whose every message is one.
async fn served(registry: &Registry, handler: &str) -> Served {
    Served::at(registry, "memory://wasm?kind=messages", handler).await
}

async fn echoes(session: &mut Session, message: &str) {
    says(session, message).await;
    hears(session, message).await;
}

/// The C sample, and whatever samples were built where `GREETD_WASM_SAMPLES` says.
fn samples() -> Vec<PathBuf> {
    let mut samples = vec![sample("wasm-c/hello.wat")];
    if let Some(folder) = std::env::var_os("GREETD_WASM_SAMPLES") {
        let built = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        samples.extend(built.filter(|path| path.extension().is_some_and(|ending| ending == "wasm")));
    }
    samples
}

/// What is compiled of samples is kept from one test to the next: one with Python inside takes its time.
async fn load_sample(path: &Path) -> (Plugin, Registry) {
    let timing = Timing { start: PATIENCE, answer: PATIENCE };
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm");
    let plugin = Plugin::load_cached(path, &Environment::default(), timing, Some(&cache)).await;
    let plugin = plugin.unwrap_or_else(|error| panic!("{error}"));
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    (plugin, registry)
}

#[tokio::test]
async fn every_sample_greets_over_every_transport() {
    for path in samples() {
        let (plugin, registry) = load_sample(&path).await;
        let folder = tempfile::tempdir().unwrap();
        for endpoint in [
            "tcp://127.0.0.1:0?framing=raw".to_owned(),
            "udp://127.0.0.1:0".to_owned(),
            format!("unix://{}", folder.path().join("stream").display()),
            format!("unixpacket://{}", folder.path().join("packet").display()),
            format!("unixgram://{}", folder.path().join("datagram").display()),
            "memory://wasm?kind=stream".to_owned(),
            "memory://wasm?kind=messages".to_owned(),
            "memory://wasm?kind=datagrams".to_owned(),
        ] {
            greets(&registry, &endpoint, &plugin.names()[0]).await;
        }
    }
}

#[tokio::test]
async fn every_sample_conforms() {
    for path in samples() {
        let (plugin, registry) = load_sample(&path).await;
        let handler = registry.handler(&plugin.names()[0]).unwrap().handler;
        handler_conforms(handler.clone()).await.unwrap_or_else(|failure| panic!("{}: {failure}", path.display()));
        let folder = tempfile::tempdir().unwrap();
        let stream = format!("unix://{}", folder.path().join("stream").display());
        for endpoint in ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", &stream] {
            let outcome = handler_conforms_at(&registry, handler.clone(), &endpoint.parse().unwrap()).await;
            outcome.unwrap_or_else(|failure| panic!("{}: {failure}", path.display()));
        }
    }
}

#[tokio::test]
async fn a_sample_is_listed_with_what_it_says_of_itself() {
    let (_plugin, registry) = load(&sample("wasm-c/hello.wat")).await;
    let items = registry.items(greetd::registry::Kind::Handler);
    let item = items.iter().find(|item| item.name == "wasm-c-hello").unwrap();
    assert!(item.about.starts_with("greets: welcome, Hello X for each X, until exit (a WebAssembly plugin: "));
    assert_eq!(item.options.iter().map(|option| option.name).collect::<Vec<_>>(), ["deadline", "memory"]);
}

#[tokio::test]
async fn messages_of_a_session_stay_in_order_however_long_each_takes() {
    let (_plugin, registry) = mischievous().await;
    let served = served(&registry, "mischief").await;
    let mut session = served.call().await;
    for number in 0..50 {
        let kind = if number % 7 == 0 { 'w' } else { 'm' };
        session.send(format!("{kind} {number}").as_bytes()).await.unwrap();
    }
    session.flush().await.unwrap();
    for number in 0..50 {
        let kind = if number % 7 == 0 { 'w' } else { 'm' };
        hears(&mut session, &format!("{kind} {number}")).await;
    }
}

#[tokio::test]
async fn a_guest_may_be_silent_and_may_have_the_last_word() {
    let (_plugin, registry) = mischievous().await;
    let served = served(&registry, "mischief").await;
    let mut session = served.call().await;
    says(&mut session, "quiet").await;
    echoes(&mut session, "Genji").await;
    says(&mut session, "close").await;
    hears(&mut session, "bye").await;
    sees_the_end(&mut session).await;
}

/// The processor time of this thread, which serves and calls: what passes of it while something is awaited is what
/// others had of the thread meanwhile, whatever else this machine does.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.try_into().unwrap()
}

/// How long a session lasts that says this, and what it ends with. Another one goes on meanwhile.
async fn end_of(message: &str, handler: &str) -> (Duration, String) {
    let (_plugin, registry) = mischievous().await;
    let served = served(&registry, handler).await;
    let (mut other, mut session) = (served.call().await, served.call().await);
    echoes(&mut other, "Genji").await;
    let begun = thread_time();
    says(&mut session, message).await;
    sees_the_end(&mut session).await;
    let lasted = thread_time().saturating_sub(begun);
    echoes(&mut other, "Hanzo").await;
    drop((other, session));
    served.running.drain(PATIENCE).await;
    let reason = served.ends.0.lock().unwrap().concat();
    (lasted, reason.strip_prefix("the plugin guest.wasm ").expect("it ends with a reason").to_owned())
}

/// Slices are as short as the thread that ends them is woken soon, and this machine may do other things: what is said of
/// times must hold in one of ten tries.
async fn holds(times: impl AsyncFn() -> Result<(), String>) {
    let mut last = Ok(());
    for _ in 0..10 {
        last = times().await;
        if last.is_ok() {
            return;
        }
    }
    last.unwrap();
}

#[tokio::test]
async fn a_loop_is_stopped_within_a_tenth_of_a_second() {
    holds(async || {
        let (lasted, reason) = end_of("loop", "mischief").await;
        assert_eq!(reason, "took longer than 50ms");
        assert!(lasted >= Duration::from_millis(40), "it had its time: {lasted:?}");
        if lasted < Duration::from_millis(100) { Ok(()) } else { Err(format!("it had {lasted:?}")) }
    })
    .await;
    assert_eq!(end_of("loop", "mischief?deadline=5ms").await.1, "took longer than 5ms");
}

#[tokio::test]
async fn whoever_grows_fails_or_answers_too_much_ends_alone_and_is_told_in_words() {
    for (message, words) in [
        ("hog", "wanted 17408 KiB of memory, and may have 16384 KiB"),
        ("trap", "gave up: it reached what it holds for unreachable"),
        ("stack", "ran out of stack"),
        ("other's memory", "reached beyond its memory"),
        ("big answer", "answered with 1048577 bytes, and may with 1048576"),
    ] {
        assert_eq!(end_of(message, "mischief").await.1, words);
    }
}

#[tokio::test]
async fn memory_ends_at_the_limit_that_was_given() {
    let (_plugin, registry) = mischievous().await;
    for (handler, megabytes) in [("mischief", 14), ("mischief?memory=4MiB", 2), ("mischief?memory=40MiB", 38)] {
        let served = served(&registry, handler).await;
        let mut session = served.call().await;
        for _ in 0..megabytes {
            echoes(&mut session, "keep").await;
        }
        says(&mut session, "keep").await;
        sees_the_end(&mut session).await;
        served.running.drain(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_guest_that_floods_the_log_goes_on() {
    let (_plugin, registry) = mischievous().await;
    let served = served(&registry, "mischief").await;
    let mut session = served.call().await;
    echoes(&mut session, "flood").await;
    echoes(&mut session, "Genji").await;
}

#[tokio::test]
async fn five_failures_within_a_minute_disable_a_plugin_and_loading_it_again_enables_it() {
    let (plugin, registry) = mischievous_kept().await;
    let counters = Arc::new(Counters::default());
    plugin.0.observe(counters.clone());
    let served = served(&registry, "mischief").await;
    let mut other = served.call().await;
    echoes(&mut other, "Genji").await;
    for _ in 0..5 {
        let mut session = served.call().await;
        says(&mut session, "trap").await;
        sees_the_end(&mut session).await;
    }
    let mut refused = served.call().await;
    sees_the_end(&mut refused).await;
    says(&mut other, "Hanzo").await;
    sees_the_end(&mut other).await;
    assert_eq!(plugin.0.reload().await.unwrap(), Reloaded::Changed);
    echoes(&mut served.call().await, "Mcree").await;
    assert_eq!(
        counters.snapshot(),
        [("plugin.disabled", "", 1), ("plugin.reloaded", "", 1), ("plugin.session-failed", "trap", 5)]
    );
}

/// With its file, for whoever loads it again.
async fn mischievous_kept() -> ((Plugin, tempfile::TempDir), Registry) {
    let folder = tempfile::tempdir().unwrap();
    let (plugin, registry) = load(&guest(folder.path(), &mischief())).await;
    ((plugin, folder), registry)
}

#[tokio::test]
async fn a_changed_component_takes_new_sessions_and_the_old_one_keeps_its_own() {
    let ((plugin, folder), registry) = mischievous_kept().await;
    let served = served(&registry, "mischief").await;
    let mut old = served.call().await;
    echoes(&mut old, "Genji").await;
    assert_eq!(plugin.reload().await.unwrap(), Reloaded::Unchanged);
    guest(folder.path(), &mischief().replace("\"bye\"", "\"new\""));
    assert_eq!(plugin.reload().await.unwrap(), Reloaded::Changed);
    let mut new = served.call().await;
    for (session, word) in [(&mut old, "bye"), (&mut new, "new")] {
        says(session, "close").await;
        hears(session, word).await;
    }
}

#[tokio::test]
async fn a_new_component_that_does_not_stand_leaves_the_old_one_serving() {
    let ((plugin, folder), registry) = mischievous_kept().await;
    let served = served(&registry, "mischief").await;
    let mut old = served.call().await;
    let whole = mischief();
    for (faulty, words) in [
        ("(component".to_owned(), "is no component that this greetd reads"),
        (whole.replace("@1.0.0", "@2.0.0"), "made for greetd plugin API 2.0"),
        (whole.replace("\"mischief\"", "\"mischeif\""), "now names the handlers mischeif, where mischief are served"),
        (
            whole
                .replace("(func (export \"open\") (param i32) (result i32) ", "$0(unreachable) ")
                .replace("$0", "(func (export \"open\") (param i32) (result i32) "),
            "gave up: it reached what it holds for unreachable when a session of `mischief` was opened on trial",
        ),
    ] {
        guest(folder.path(), &faulty);
        let error = plugin.reload().await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        echoes(&mut old, "Genji").await;
        echoes(&mut served.call().await, "Hanzo").await;
    }
}

/// The same guest, whose sessions share an instance.
async fn mischievous_together() -> (Plugin, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let own = "\\01\\00\\00\\00\\00\"";
    assert!(mischief().contains(own));
    load(&guest(folder.path(), &mischief().replace(own, "\\01\\00\\00\\00\\01\""))).await
}

#[tokio::test]
async fn sessions_that_share_an_instance_end_with_it_and_the_next_one_finds_a_new_one() {
    let (_plugin, registry) = mischievous_together().await;
    let served = served(&registry, "mischief").await;
    let (mut one, mut other) = (served.call().await, served.call().await);
    echoes(&mut one, "Genji").await;
    echoes(&mut other, "Hanzo").await;
    says(&mut one, "trap").await;
    sees_the_end(&mut one).await;
    says(&mut other, "Hanzo").await;
    sees_the_end(&mut other).await;
    echoes(&mut served.call().await, "Mcree").await;
    served.running.drain(PATIENCE).await;
    let ends = served.ends.0.lock().unwrap().clone();
    assert_eq!(
        ends,
        [
            "the plugin guest.wasm gave up: it reached what it holds for unreachable",
            "the plugin guest.wasm shared an instance with a session in which it gave up: it reached what it holds for \
             unreachable"
        ]
    );
}

#[tokio::test]
async fn memory_of_a_shared_instance_is_what_its_sessions_have_together() {
    let (_plugin, registry) = mischievous_together().await;
    let served = served(&registry, "mischief?memory=8MiB").await;
    let (mut one, mut other) = (served.call().await, served.call().await);
    for _ in 0..3 {
        echoes(&mut one, "keep").await;
        echoes(&mut other, "keep").await;
    }
    says(&mut one, "keep").await;
    sees_the_end(&mut one).await;
}

#[tokio::test]
async fn a_session_that_is_cut_in_a_call_leaves_a_shared_instance_whole() {
    let (_plugin, registry) = mischievous_together().await;
    let impatient = "memory://impatient?kind=messages&total-timeout=5ms";
    let impatient = Served::at(&registry, impatient, "mischief?deadline=10s").await;
    let patient = served(&registry, "mischief?deadline=10s").await;
    let mut other = patient.call().await;
    echoes(&mut other, "Genji").await;
    for _ in 0..10 {
        let mut session = impatient.call().await;
        session.send(b"work").await.unwrap();
        let _ = session.flush().await;
        // It is cut, or done just before.
        while let Ok(Some(_)) = within("the end", session.recv()).await {}
        echoes(&mut other, "Hanzo").await;
    }
}

#[tokio::test]
async fn a_guest_of_a_newer_minor_version_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let newer = mischief().replace("@1.0.0", "@1.3.0");
    let (_plugin, registry) = load(&guest(folder.path(), &newer)).await;
    echoes(&mut served(&registry, "mischief").await.call().await, "Genji").await;
}

#[tokio::test]
async fn what_is_no_plugin_for_this_greetd_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let whole = mischief();
    let importing = |import: &str| whole.replace(";; IMPORTS", &format!("(import \"{import}\" (instance))"));
    for (text, words) in [
        (
            whole.replace("@1.0.0", "@2.0.0"),
            "made for greetd plugin API 2.0; this greetd speaks 1.x. Rebuild against greetd:plugin@1.0.0.",
        ),
        (
            importing("wasi:filesystem/types@0.2.6"),
            "imports wasi:filesystem; plugins get no files. Rebuild with --stub-wasi.",
        ),
        (importing("acme:vault/keys"), "imports acme:vault; plugins get no help but greetd:plugin/host."),
        (
            importing("greetd:plugin/clock@1.1.0"),
            "imports greetd:plugin/clock@1.1.0, which came after greetd plugin API 1.0, all that this greetd speaks. \
             Use a newer one",
        ),
        (
            "(component)".to_owned(),
            "exports nothing, and no greetd:plugin/handler: it is a component for something else",
        ),
        (
            "(module)".to_owned(),
            "is a WebAssembly module, not a component. Link it with wasm-component-ld, or turn it into one with \
             `wasm-tools component new`, against greetd:plugin@1.0.0",
        ),
        (
            "\0asm\u{1}\0\0\0".to_owned(),
            "is a WebAssembly module, not a component. Link it with wasm-component-ld, or turn it into one with \
             `wasm-tools component new`, against greetd:plugin@1.0.0",
        ),
        (
            whole.replace("\"mischief\"", "\"MISCHIEF\""),
            "`MISCHIEF` is no name for a handler: write up to 64 of a-z, 0-9, - and _",
        ),
        (whole.replace("\"connected\" bool", "\"connected\" u8"), "does not fit greetd:plugin@1.0.0: "),
    ] {
        let error = try_to_load(&guest(folder.path(), &text)).await.err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("is taken, and should not be: {words}"));
        assert!(error.starts_with(&format!("guest.wasm: {words}")), "{error}");
    }
}

/// While some sessions of a plugin do what they should not, others lose no message and wait for none longer than a
/// deadline.
#[tokio::test]
async fn mischief_under_load_costs_other_sessions_nothing() {
    holds(exchanges_beside_mischief).await;
}

async fn exchanges_beside_mischief() -> Result<(), String> {
    let (_plugin, registry) = mischievous().await;
    let (_hello, with_hello) = load(&sample("wasm-c/hello.wat")).await;
    let mischief = served(&registry, "mischief").await;
    let hello = Served::at(&with_hello, "memory://hello?kind=messages", "wasm-c-hello").await;
    let echo = Served::at(&registry, "memory://echo?kind=messages", "echo").await;
    let mut culprits = Vec::new();
    for message in ["loop", "loop", "loop", "hog"] {
        let mut session = mischief.call().await;
        says(&mut session, message).await;
        culprits.push(session);
    }
    let (mut greeted, mut echoed) = (hello.call().await, echo.call().await);
    hears(&mut greeted, "welcome").await;
    let mut longest = Duration::ZERO;
    for number in 0..500 {
        let begun = thread_time();
        says(&mut greeted, &format!("{number}")).await;
        hears(&mut greeted, &format!("Hello {number}")).await;
        echoes(&mut echoed, &format!("{number}")).await;
        longest = longest.max(thread_time().saturating_sub(begun));
    }
    for mut culprit in culprits {
        sees_the_end(&mut culprit).await;
    }
    waited_shortly(longest)
}

#[tokio::test]
async fn sessions_at_long_work_share_their_thread_with_all_others() {
    holds(exchanges_beside_long_work).await;
}

async fn exchanges_beside_long_work() -> Result<(), String> {
    let (_plugin, registry) = mischievous().await;
    let mischief = served(&registry, "mischief?deadline=2s").await;
    let echo = Served::at(&registry, "memory://echo?kind=messages", "echo").await;
    let mut workers = Vec::new();
    for _ in 0..50 {
        let mut session = mischief.call().await;
        echoes(&mut session, "ready").await;
        workers.push(session);
    }
    for worker in &mut workers {
        says(worker, "work").await;
    }
    let mut echoed = echo.call().await;
    let (mut exchanges, mut longest) = (0, Duration::ZERO);
    for mut worker in workers {
        let answer = worker.recv();
        tokio::pin!(answer);
        loop {
            let begun = thread_time();
            tokio::select! {
                biased;
                heard = &mut answer => {
                    assert_eq!(heard.unwrap().unwrap(), "work");
                    break;
                }
                () = echoes(&mut echoed, "Genji") => {}
            }
            longest = longest.max(thread_time().saturating_sub(begun));
            exchanges += 1;
        }
    }
    println!("{exchanges} exchanges, the longest {longest:?}");
    if exchanges < 10 {
        return Err(format!("others are served meanwhile: {exchanges}"));
    }
    waited_shortly(longest)
}

/// How much of others' work an exchange waited for at most.
fn waited_shortly(longest: Duration) -> Result<(), String> {
    let deadline = Duration::from_millis(50);
    if longest < deadline { Ok(()) } else { Err(format!("an exchange waited for {longest:?} of others' work")) }
}

#[tokio::test]
async fn what_is_compiled_is_kept_in_a_folder_of_ones_own() {
    let (folder, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = guest(folder.path(), &mischief());
    let cache = own.path().join("cache");
    let timing = Timing { start: PATIENCE, answer: PATIENCE };
    let load =
        async || Plugin::load_cached(&path, &Environment::default(), timing.clone(), Some(&cache)).await.unwrap();
    let files = || walk(&cache).len();
    load().await;
    let first = files();
    assert!(first > 0, "something is kept");
    load().await;
    guest(folder.path(), &mischief().replace("\"bye\"", "\"new\""));
    load().await;
    assert!(files() > first, "another content is another entry");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn an_option_out_of_bounds_is_refused_before_anything_is_bound() {
    let (_plugin, registry) = mischievous().await;
    let error = registry.handler("mischief?deadline=1h").err().unwrap().to_string();
    assert_eq!(error, "the option `deadline` takes 1ms to 10s");
    let handler: Arc<dyn greetd::Handler> = registry.handler("mischief?deadline=100ms&word=Hi").unwrap().handler;
    assert!(handler.needs().responder);
}
