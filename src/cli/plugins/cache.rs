//! Where what is compiled of WebAssembly plugins is kept.

use std::path::PathBuf;

/// The option.
#[derive(clap::Args)]
#[group(skip)]
pub(in crate::cli) struct Args {
    /// Keep what is compiled of WebAssembly plugins in this folder, which must be yours alone; `no` keeps nothing
    /// [default: greetd/wasm in $CACHE_DIRECTORY, $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "FOLDER|no")]
    plugin_cache: Option<PathBuf>,
}

impl Args {
    /// The folder, where there is to be one.
    pub(in crate::cli) fn folder(&self) -> Option<PathBuf> {
        match &self.plugin_cache {
            Some(no) if no.as_os_str() == "no" => None,
            Some(folder) => Some(folder.clone()),
            None => usual(),
        }
    }
}

/// In systemd's folder for the service, or in the user's.
fn usual() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let base = folder("CACHE_DIRECTORY")
        .or_else(|| folder("XDG_CACHE_HOME"))
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("greetd/wasm"))
}
