//! `--plugin`: handlers that are not compiled in, for whichever command knows handlers.

#[cfg(feature = "wasm")]
pub(super) mod cache;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::failure::Failure;
use crate::event::Observer;
use crate::hosts::{Environment, Plugin, Reloaded, Timing};
use crate::registry::Registry;
use crate::verdict::Verdict;

/// The options.
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// A plugin, whose handlers are then known by name; repeatable
    #[arg(long, value_name = "PATH")]
    plugin: Vec<PathBuf>,
    /// A variable that plugins see, beside PATH and LANG: its name, or NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME[=VALUE]")]
    plugin_env: Vec<String>,
    #[cfg(feature = "wasm")]
    #[command(flatten)]
    cache: cache::Args,
}

impl Args {
    /// Loads what is asked for, in a runtime that must go on as long as its handlers are used.
    pub(super) fn load(&self, runtime: &Runtime, registry: &Registry) -> Result<Plugins, Failure> {
        let environment = environment(&self.plugin_env);
        #[cfg(feature = "wasm")]
        let cache = self.cache.folder();
        #[cfg(not(feature = "wasm"))]
        let cache: Option<PathBuf> = None;
        let mut plugins = Plugins { loaded: Vec::new(), registry: registry.clone() };
        for path in &self.plugin {
            let loading = Plugin::load_cached(path, &environment, Timing::default(), cache.as_deref());
            let failed = |reason: String| Failure::new(Verdict::Failed, format!("failed to load the plugin {reason}"));
            let plugin = runtime.block_on(loading).map_err(|error| failed(error.to_string()))?;
            let taken = |error| failed(format!("{}: {error}", path.display()));
            plugin.register(&mut plugins.registry).map_err(taken)?;
            plugins.loaded.push(plugin);
        }
        Ok(plugins)
    }
}

/// The variables that were given, or taken over from this process by their name.
pub(super) fn environment(given: &[String]) -> Environment {
    Environment::new(given.iter().filter_map(|variable| match variable.split_once('=') {
        Some((name, value)) => Some((OsString::from(name), OsString::from(value))),
        None => std::env::var_os(variable).map(|value| (OsString::from(variable), value)),
    }))
}

/// Plugins that are loaded.
pub(super) struct Plugins {
    loaded: Vec<Plugin>,
    /// What is known with them.
    pub(super) registry: Registry,
}

impl Plugins {
    pub(super) fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// What becomes of them is told to whoever is told of the server's events.
    pub(super) fn observe(&self, observer: &Arc<dyn Observer>) {
        for plugin in &self.loaded {
            plugin.observe(observer.clone());
        }
    }

    /// Loads those again whose file changed; on a failure the old one serves on.
    pub(super) async fn reload(&self) {
        for plugin in &self.loaded {
            // Whatever comes of it is logged and counted.
            if let Ok(Reloaded::Unchanged) = plugin.reload().await {
                tracing::debug!(plugin = %plugin.path().display(), "plugin.unchanged");
            }
        }
    }
}
