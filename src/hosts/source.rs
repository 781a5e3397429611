//! Where a plugin's handlers come from, whatever its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::process::Process;
#[cfg(feature = "wasm")]
use super::wasm::{self, Wasm};
use crate::handler::Handler;
use crate::registry::{Item, ResolveError};

/// What was loaded.
#[derive(Clone)]
pub(super) enum Source {
    Process(Arc<Process>),
    #[cfg(feature = "wasm")]
    Wasm(Arc<Wasm>),
}

impl Source {
    /// Each handler as the registry lists it. Names and descriptions stay in memory for good.
    pub(super) fn items(&self, path: &str) -> Vec<Item> {
        match self {
            Source::Process(process) => {
                let about: &'static str = format!("a process plugin: {path}").leak();
                process.names().into_iter().map(|name| Item::new(name.leak(), about).with_any_options()).collect()
            }
            #[cfg(feature = "wasm")]
            Source::Wasm(wasm) => {
                let item = |(name, summary): (String, String)| {
                    let about = format!("{summary} (a WebAssembly plugin: {path})");
                    Item::new(name.leak(), about.leak()).with_options(wasm::OPTIONS).with_any_options()
                };
                wasm.handlers().into_iter().map(item).collect()
            }
        }
    }

    /// The names of its handlers.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Source::Process(process) => process.names(),
            #[cfg(feature = "wasm")]
            Source::Wasm(wasm) => wasm.handlers().into_iter().map(|(name, _)| name).collect(),
        }
    }

    /// The handler of that name.
    #[cfg_attr(not(feature = "wasm"), expect(clippy::unnecessary_wraps, reason = "a component's options can be wrong"))]
    pub(super) fn handler(
        &self,
        name: &'static str,
        options: BTreeMap<String, String>,
    ) -> Result<Arc<dyn Handler>, ResolveError> {
        match self {
            Source::Process(process) => Ok(process.handler(name, options)),
            #[cfg(feature = "wasm")]
            Source::Wasm(wasm) => Ok(wasm.handler(name, options)?),
        }
    }

    /// Whether it failed too often.
    pub(super) fn is_disabled(&self) -> bool {
        match self {
            Source::Process(process) => process.is_disabled(),
            #[cfg(feature = "wasm")]
            Source::Wasm(wasm) => wasm.is_disabled(),
        }
    }

    /// Loads it once more; from then on new sessions go there. On any failure all stays as it is.
    pub(super) async fn reload(&self) -> Result<(), String> {
        match self {
            Source::Process(process) => process.reload().await,
            #[cfg(feature = "wasm")]
            Source::Wasm(wasm) => wasm.reload().await,
        }
    }
}
