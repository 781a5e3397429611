//! Makes what is measured: the C programs with the system's compiler, greetd with cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The programs, ready to be started.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// Where the C programs are.
    c: PathBuf,
    /// Where cargo puts its binaries.
    release: PathBuf,
}

impl Programs {
    /// One of the files in `reference/`.
    pub(crate) fn c(&self, name: &str) -> PathBuf {
        self.c.join(name)
    }

    /// greetd, or one of the programs in `src/bin/`.
    pub(crate) fn rust(&self, name: &str) -> PathBuf {
        self.release.join(name)
    }
}

/// The directory of this package.
pub(crate) fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles everything that is not up to date.
pub(crate) fn all() -> Result<Programs> {
    let here = std::env::current_exe().context("failed to find this program")?;
    let release = here.parent().context("this program has no directory")?.to_owned();
    ensure!(release.ends_with("release"), "measure optimised code: cargo run --release -p greetd-bench");
    let c = release.join("reference");
    std::fs::create_dir_all(&c)?;
    for name in ["tcp", "udp", "load_tcp", "load_udp"] {
        let source = home().join("reference").join(name).with_extension("c");
        succeed(Command::new("cc").args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(c.join(name)).arg(source))?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(Command::new(&cargo).args(["build", "--quiet", "--release", "-p", "greetd", "--bin", "greetd"]))?;
    succeed(Command::new(&cargo).args(["build", "--quiet", "--release", "-p", "greetd-bench", "--bins"]))?;
    Ok(Programs { c, release })
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.current_dir(home().join("..")).status();
    let status = status.with_context(|| format!("failed to start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}
