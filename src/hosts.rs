//! Handlers that are not compiled in: programs that speak the process protocol, programs for one session each, and,
//! with the feature `wasm`, WebAssembly components.
//!
//! [`Plugin::load`] finds out from a file's content what kind it is, asks it what it is, and yields handlers that are
//! [registered](Plugin::register) like any other, over every transport. A plugin runs on the runtime that it was loaded
//! on, and as long as it, or a handler of its, is held.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use greetd::hosts::{Environment, Plugin, Timing};
//!
//! let mut registry = greetd::Registry::builtin();
//! let plugin = Plugin::load("plugins/python/hello.py".as_ref(), &Environment::default(), Timing::default()).await?;
//! plugin.register(&mut registry)?;
//! let service = registry.service(&"udp://127.0.0.1:0".parse()?, "py-hello")?;
//! # Ok(()) }
//! ```
//!
//! `plugins/SECURITY.md` says what each kind isolates, and what not.

pub mod check;
mod child;
pub mod exec;
mod failures;
mod frame;
mod observed;
mod process;
mod source;
mod stderr;
pub mod transcript;
#[cfg(feature = "wasm")]
mod wasm;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::named;
use crate::event::{Event, Observer};
use crate::registry::{NameTaken, Registry};

pub use child::Environment;
pub use process::Timing;

use child::Program;
use observed::Observed;
use process::Process;
use source::Source;
#[cfg(feature = "wasm")]
use wasm::Wasm;

/// A file that gives handlers.
pub struct Plugin {
    path: PathBuf,
    source: Source,
    /// As the file was when it was loaded.
    version: Mutex<Version>,
    observed: Observed,
}

/// Why a file gives no handlers.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct PluginError {
    name: String,
    reason: String,
}

impl PluginError {
    /// It cannot be read: all of its path says where it was looked for.
    fn of_file(path: &Path, error: &io::Error) -> Self {
        let name = crate::escape::Escaped::new(path.as_os_str().as_encoded_bytes()).to_string();
        PluginError { name, reason: named(error).to_string() }
    }
}

/// What became of a plugin that was to be loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The file is as it was.
    Unchanged,
    /// New sessions are served by the new one; those that there are stay with the old one until they end.
    Changed,
}

impl Plugin {
    /// Loads a file: finds out what kind it is, starts it and asks for the names of its handlers.
    pub async fn load(path: &Path, environment: &Environment, timing: Timing) -> Result<Self, PluginError> {
        Plugin::load_cached(path, environment, timing, None).await
    }

    /// The same, keeping what is compiled of a WebAssembly component in that folder, which must be this user's alone:
    /// whoever may write there decides what greetd executes. It is made where there is none.
    pub async fn load_cached(
        path: &Path,
        environment: &Environment,
        timing: Timing,
        cache: Option<&Path>,
    ) -> Result<Self, PluginError> {
        let failed = |reason: String| PluginError { name: short(path), reason };
        let version = Version::of(path).map_err(|error| PluginError::of_file(path, &error))?;
        let kind = Kind::of(path).map_err(|error| PluginError::of_file(path, &error))?;
        let observed = Observed::default();
        let source = match kind {
            #[cfg(feature = "wasm")]
            Kind::WebAssembly => {
                let wasm = Wasm::load(path, short(path), timing.start, cache, observed.clone());
                Source::Wasm(Arc::new(wasm.await.map_err(failed)?))
            }
            _ => {
                kind.must_be_program().map_err(failed)?;
                let program = Program::of_file(path, environment).map_err(|error| failed(error.to_string()))?;
                let process = Process::load(program, short(path), timing, observed.clone());
                Source::Process(Arc::new(process.await.map_err(failed)?))
            }
        };
        #[cfg(not(feature = "wasm"))]
        let _ = cache;
        Ok(Plugin { path: path.to_owned(), source, version: Mutex::new(version), observed })
    }

    /// Who is told what becomes of it from now on, in the place of the log: a
    /// [server's observer](crate::server::Running::observer), which logs and counts.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.observed.by(observer);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its handlers.
    pub fn names(&self) -> Vec<String> {
        self.source.names()
    }

    /// Adds its handlers. Names and descriptions stay in memory for good, as those of what is compiled in do.
    pub fn register(&self, registry: &mut Registry) -> Result<(), NameTaken> {
        for item in self.source.items(&self.path.display().to_string()) {
            let source = self.source.clone();
            registry
                .add_handler(item, move |options: BTreeMap<String, String>, _| source.handler(item.name, options))?;
        }
        Ok(())
    }

    /// Loads the file again where it has changed, or where the plugin was disabled. On any failure all stays as it is.
    pub async fn reload(&self) -> Result<Reloaded, PluginError> {
        let plugin = &*short(&self.path);
        let reloaded = self.load_again().await;
        match &reloaded {
            Ok(Reloaded::Unchanged) => {}
            Ok(Reloaded::Changed) => self.observed.tell(&Event::PluginReloaded { plugin }),
            Err(error) => self.observed.tell(&Event::PluginNotReloaded { plugin, error: &error.reason }),
        }
        reloaded
    }

    async fn load_again(&self) -> Result<Reloaded, PluginError> {
        let failed = |reason: String| PluginError { name: short(&self.path), reason };
        let version = Version::of(&self.path).map_err(|error| failed(named(&error).to_string()))?;
        let known = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if version == known && !self.source.is_disabled() {
            return Ok(Reloaded::Unchanged);
        }
        self.source.reload().await.map_err(failed)?;
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
        Ok(Reloaded::Changed)
    }
}

/// A file as the file system tells two of its versions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::metadata(path)?;
        let changed = (file.ctime(), file.ctime_nsec());
        Ok(Version { device: file.dev(), inode: file.ino(), size: file.size(), changed })
    }
}

/// What a file's content makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    NotExecutable,
    SharedLibrary,
    WebAssembly,
}

impl Kind {
    fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no file"));
        }
        let mut start = Vec::new();
        file.take(64).read_to_end(&mut start)?;
        let text = start.trim_ascii_start();
        let executable = status.permissions().mode() & 0o111 != 0;
        Ok(match () {
            () if start.starts_with(b"\0asm") || text.starts_with(b"(component") || text.starts_with(b"(module") => {
                Kind::WebAssembly
            }
            () if executable => Kind::Program,
            () if start.starts_with(b"\x7fELF") => Kind::SharedLibrary,
            () => Kind::NotExecutable,
        })
    }

    /// What is wrong with a file that cannot be started.
    fn must_be_program(self) -> Result<(), String> {
        Err(match self {
            Kind::Program => return Ok(()),
            Kind::NotExecutable => {
                "is not executable. Begin it with #! and the path of its interpreter, and chmod +x it"
            }
            Kind::SharedLibrary => "is a shared library; plugins are programs, or crates with a main of their own",
            Kind::WebAssembly => {
                "is WebAssembly, and this greetd was built without it. With it: cargo build --release --features wasm"
            }
        }
        .to_owned())
    }
}

/// A file as messages name it.
fn short(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    crate::escape::Escaped::new(name.as_encoded_bytes()).to_string()
}
