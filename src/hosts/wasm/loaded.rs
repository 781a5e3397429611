//! A component that is compiled, asked what it is, and fit to be instantiated.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker};

use super::API;
use super::bindings::{About, Description, Instances, Peer, Plugin, PluginPre};
use super::contents::{Contents, Form};
use super::engine::Engine;
use super::fault::Fault;
use super::guest::{Allowance, Guest, State};
use super::memory::Together;
use super::meter::Turns;
use super::said::Said;
use super::shared::Shared;
use super::ticker::Ticker;
use crate::escape::Escaped;
use crate::event::Event;
use crate::hosts::failures::{FAILURES, Failures};
use crate::hosts::observed::Observed;
use crate::hosts::process::greeting::{LONGEST_NAME, is_name};

/// A summary is cut here, in characters.
const LONGEST_SUMMARY: usize = 80;
/// What an instance may have that is asked what it is.
const DESCRIBING: usize = 64 << 20;

/// What new sessions are served by, until a newer one is loaded.
pub(super) struct Loaded {
    name: String,
    pub(super) kit: Arc<Kit>,
    observed: Observed,
    failures: Mutex<Failures>,
    disabled: OnceLock<String>,
    /// Each handler's name, and what it does.
    handlers: Vec<(String, String)>,
    instances: Instances,
    /// The instances that sessions share: one for each allowance.
    pub(super) shared: tokio::sync::Mutex<Vec<Arc<Shared>>>,
}

/// What instances are made of, and have in common.
pub(super) struct Kit {
    pub(super) component: PluginPre<State>,
    pub(super) ticker: Arc<Ticker>,
    pub(super) turns: Arc<Turns>,
    pub(super) together: Arc<Together>,
    pub(super) said: Arc<Said>,
}

/// Compiles a component and finds out what it imports and exports.
pub(super) fn compile(engine: &Engine, bytes: &[u8]) -> Result<(Component, Contents), String> {
    Form::of(bytes).must_be_component()?;
    let component = Component::new(&engine.wasmtime, bytes)
        .map_err(|error| format!("is no component that this greetd reads: {}", error.root_cause()))?;
    let contents = Contents::of(&component, &engine.wasmtime);
    Ok((component, contents))
}

impl Loaded {
    /// `name` is what it is called in the log.
    pub(super) fn new(
        engine: &Engine,
        component: &Component,
        name: String,
        observed: Observed,
    ) -> Result<Self, String> {
        let differs = |error: wasmtime::Error| format!("does not fit greetd:plugin@{API}: {error:#}");
        let mut linker = Linker::new(&engine.wasmtime);
        Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(differs)?;
        let component = linker.instantiate_pre(component).and_then(PluginPre::new).map_err(differs)?;
        let kit = Kit {
            component,
            ticker: engine.ticker.clone(),
            turns: Arc::default(),
            together: Arc::default(),
            said: Arc::new(Said::new(name.clone())),
        };
        Ok(Loaded {
            name,
            kit: Arc::new(kit),
            observed,
            failures: Mutex::default(),
            disabled: OnceLock::new(),
            handlers: Vec::new(),
            instances: Instances::PerSession,
            shared: tokio::sync::Mutex::default(),
        })
    }

    /// Asks it what it is, and opens a session of each of its handlers.
    pub(super) async fn tried(mut self, patience: Duration) -> Result<Self, Fault> {
        let allowance = Allowance { deadline: patience, memory: DESCRIBING };
        let mut guest = Guest::start(self.kit.clone(), allowance, patience).await?;
        let Description { handlers, instances } = guest.describe(patience).await?;
        self.handlers = named(handlers)?;
        self.instances = instances;
        for (name, _) in &self.handlers {
            let failed = |fault: Fault| fault.and(&format!(" when a session of `{name}` was opened on trial"));
            let mut guest = Guest::start(self.kit.clone(), allowance, patience).await?;
            let session = guest.session(&stranger(name)).await.map_err(failed)?;
            guest.on_open(session).await.map_err(failed)?;
        }
        Ok(self)
    }

    pub(super) fn handlers(&self) -> &[(String, String)] {
        &self.handlers
    }

    pub(super) fn instances(&self) -> Instances {
        self.instances
    }

    /// Notes what an instance did wrong, and whether that is once too often.
    pub(super) fn failed(&self, fault: &Fault) {
        let Some(reason) = fault.kind else { return };
        let plugin = &*self.name;
        self.observed.tell(&Event::PluginSessionFailed { plugin, reason, error: fault });
        if self.failures.lock().unwrap_or_else(PoisonError::into_inner).add() {
            let words = format!("{FAILURES} failures within a minute; the last: it {fault}");
            self.observed.tell(&Event::PluginDisabled { plugin, error: &words });
            let _ = self.disabled.set(format!("is disabled: {words}"));
        }
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.disabled.get().is_some()
    }

    pub(super) fn must_be_enabled(&self) -> Result<(), Fault> {
        self.disabled.get().map_or(Ok(()), |reason| Err(Fault::other(reason)))
    }
}

/// What a guest says of its handlers, where that can be typed and printed.
fn named(handlers: Vec<About>) -> Result<Vec<(String, String)>, Fault> {
    let mut named: Vec<(String, String)> = Vec::new();
    for About { name, summary } in handlers {
        let escaped = |text: &str| Escaped::new(text.as_bytes()).to_string();
        if !is_name(&name) {
            return Err(Fault::other(format!(
                "`{}` is no name for a handler: write up to {LONGEST_NAME} of a-z, 0-9, - and _",
                escaped(&name)
            )));
        }
        if named.iter().any(|(known, _)| *known == name) {
            return Err(Fault::other(format!("names `{name}` twice")));
        }
        let short: String = summary.chars().take(LONGEST_SUMMARY).collect();
        named.push((name, escaped(&short)));
    }
    if named.is_empty() { Err(Fault::other("names no handler")) } else { Ok(named) }
}

/// Who opens a session on trial.
pub(super) fn stranger(handler: &str) -> Peer {
    Peer {
        handler: handler.to_owned(),
        transport: "tcp".to_owned(),
        local: "127.0.0.1:8080".to_owned(),
        remote: "127.0.0.1:40123".to_owned(),
        connected: true,
        options: Vec::new(),
        facts: Vec::new(),
    }
}
