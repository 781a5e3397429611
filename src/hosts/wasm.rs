//! Handlers in WebAssembly components: `greetd:plugin@1.0.0`, as `plugins/wit/greetd.wit` has it.
//!
//! A component is compiled once. Each session is served by an instance of its own, or, where the component says so, by
//! one that all share. An instance has a memory and a deadline, and nothing else of this process. One that fails ends
//! its sessions; a plugin whose instances keep failing is disabled, in public. `plugins/WASM.md` says all of it.

mod bindings;
mod cache;
mod contents;
mod engine;
mod fault;
mod guest;
mod loaded;
mod memory;
mod meter;
mod said;
mod seat;
mod settings;
mod shared;
mod ticker;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::bindings::Action;
use self::engine::Engine;
use self::fault::Fault;
use self::loaded::Loaded;
use self::seat::Seat;
use self::settings::Settings;
use crate::error::{Error, Result, named};
use crate::handler::{Handler, Needs};
use crate::hosts::observed::Observed;
use crate::link::Peer;
use crate::options::OptionError;
use crate::session::Session;

pub(super) use self::settings::OPTIONS;
pub(super) use self::trial::check;

/// The version of the interface that this greetd offers.
const API: &str = "1.0.0";
/// A longer file is no plugin.
const LARGEST_FILE: u64 = 256 << 20;

/// A component that is loaded: what its handlers, once made, have in common.
pub(super) struct Wasm {
    path: PathBuf,
    name: String,
    engine: Arc<Engine>,
    /// How long it may take to make an instance, and to describe itself.
    patience: Duration,
    observed: Observed,
    /// What new sessions are served by. Old ones keep theirs, and it stays as long as one does.
    current: RwLock<Arc<Loaded>>,
}

impl Wasm {
    /// Compiles the file, asks it what it is and tries it. `name` is what it is called in the log.
    pub(super) async fn load(
        path: &Path,
        name: String,
        patience: Duration,
        cached: Option<&Path>,
        observed: Observed,
    ) -> std::result::Result<Self, String> {
        let engine = Arc::new(Engine::new(cached)?);
        let loaded = load(&engine, path, &name, patience, &observed).await?;
        Ok(Wasm { path: path.to_owned(), name, engine, patience, observed, current: RwLock::new(Arc::new(loaded)) })
    }

    fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of its handlers, and what each does.
    pub(super) fn handlers(&self) -> Vec<(String, String)> {
        self.current().handlers().to_vec()
    }

    /// Whether it failed too often.
    pub(super) fn is_disabled(&self) -> bool {
        self.current().is_disabled()
    }

    /// Loads the file once more and tries it; from then on new sessions go there. On any failure all stays as it is.
    pub(super) async fn reload(&self) -> std::result::Result<(), String> {
        let loaded = load(&self.engine, &self.path, &self.name, self.patience, &self.observed).await?;
        let names = |loaded: &Loaded| loaded.handlers().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let (new, old) = (names(&loaded), names(&self.current()));
        if new != old {
            return Err(format!(
                "now names the handlers {}, where {} are served; start greetd anew",
                new.join(", "),
                old.join(", ")
            ));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        Ok(())
    }

    /// The handler of that name.
    pub(super) fn handler(
        self: &Arc<Self>,
        name: &'static str,
        options: BTreeMap<String, String>,
    ) -> std::result::Result<Arc<dyn Handler>, OptionError> {
        let settings = Settings::take(options)?;
        Ok(Arc::new(WasmHandler { wasm: self.clone(), name, settings }))
    }
}

/// Reads, compiles and tries a file. The compiler runs beside the sessions, not between them.
async fn load(
    engine: &Arc<Engine>,
    path: &Path,
    name: &str,
    patience: Duration,
    observed: &Observed,
) -> std::result::Result<Loaded, String> {
    let (engine, path, name, observed) = (engine.clone(), path.to_owned(), name.to_owned(), observed.clone());
    let compiled = tokio::task::spawn_blocking(move || {
        let bytes = read(&path)?;
        let (component, contents) = loaded::compile(&engine, &bytes)?;
        contents.must_be_plugin()?;
        Loaded::new(&engine, &component, name, observed)
    });
    let loaded = compiled.await.map_err(|error| format!("cannot be compiled: {error}"))??;
    loaded.tried(patience).await.map_err(|fault| fault.to_string())
}

pub(super) fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| named(&error).to_string();
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LARGEST_FILE {
        return Err(format!("has {} MiB, and may have {}", size >> 20, LARGEST_FILE >> 20));
    }
    std::fs::read(path).map_err(failed)
}

struct WasmHandler {
    wasm: Arc<Wasm>,
    name: &'static str,
    settings: Settings,
}

impl WasmHandler {
    /// What the guest is told of a session.
    fn peer(&self, peer: &Peer) -> bindings::Peer {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        bindings::Peer {
            handler: self.name.to_owned(),
            transport: peer.route.scheme.clone(),
            local: peer.local().to_string(),
            remote: peer.remote.to_string(),
            connected: peer.connected(),
            options: self.settings.options.iter().map(|(name, value)| owned((name, value))).collect(),
            facts: peer.facts().map(owned).collect(),
        }
    }
}

#[async_trait]
impl Handler for WasmHandler {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let loaded = self.wasm.current();
        let failed = |fault: Fault| Error::handler(format!("the plugin {} {fault}", self.wasm.name));
        let mut seat =
            Seat::take(loaded, &self.settings, self.peer(session.peer()), self.wasm.patience).await.map_err(failed)?;
        let mut action = seat.on_open().await.map_err(failed)?;
        loop {
            match action {
                Action::Reply(message) => session.send(&message).await?,
                Action::Silent => {}
                Action::Close(last) => {
                    if !last.is_empty() {
                        session.send(&last).await?;
                    }
                    return Ok(());
                }
            }
            let Some(message) = session.recv().await? else { break };
            action = seat.on_message(message).await.map_err(failed)?;
        }
        seat.on_close().await.map_err(failed)
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}
