//! A child process that sees descriptors 0 to 2, the environment that it is given, and nothing else of this process.
//!
//! It leads a process group of its own, which is killed with it, so that nothing that it started stays behind.
//! `posix_spawn(3)` rather than fork: descriptors that this process inherited, and that would pass on to any child,
//! can be closed there without unsafe code, and nothing of a large process is copied. Which these are is looked up when
//! a program is named, not when it is started: whatever is opened later closes by itself at an exec, and looking at
//! thousands of connections for each program would take longer than to start it.

use std::ffi::{CString, NulError, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;

use crate::error::named;

/// The variables that children are given. Nothing of this process's own environment reaches them.
#[derive(Debug, Clone)]
pub struct Environment(Arc<Vec<(OsString, OsString)>>);

/// Where programs are looked for, and what text is written in.
const STANDARD: [(&str, &str); 2] = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")];

impl Environment {
    /// `PATH` and `LANG`, as every system has them, and these; a name that is given again is set anew.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut all: Vec<(OsString, OsString)> =
            STANDARD.iter().map(|(name, value)| (name.into(), value.into())).collect();
        for (name, value) in variables {
            all.retain(|(known, _)| *known != name);
            all.push((name, value));
        }
        Environment(Arc::new(all))
    }
}

impl Default for Environment {
    fn default() -> Self {
        Environment::new([])
    }
}

/// A program with its arguments.
#[derive(Debug, Clone)]
pub(super) struct Program {
    words: Arc<Vec<CString>>,
    environment: Environment,
    /// The descriptors that would pass on to it.
    inherited: Arc<Vec<RawFd>>,
}

/// Why there is no such program.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("holds a NUL: {0}")]
    Nul(#[from] NulError),
    #[error("failed to see which descriptors it would inherit: {}", named(.0))]
    Descriptors(#[from] io::Error),
}

/// What a child is connected with.
pub(super) struct Pipes {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

impl Program {
    /// The program is the first word; without a slash it is looked for in the `PATH` that it is given.
    pub(super) fn new(
        words: impl IntoIterator<Item = Vec<u8>>,
        environment: &Environment,
    ) -> std::result::Result<Self, ProgramError> {
        let words = words.into_iter().map(CString::new).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Program { words: Arc::new(words), environment: environment.clone(), inherited: Arc::new(inherited()?) })
    }

    pub(super) fn of_file(path: &Path, environment: &Environment) -> std::result::Result<Self, ProgramError> {
        // Without a slash it would be looked for elsewhere.
        let here = Path::new(".").join(path);
        Program::new([here.as_os_str().as_bytes().to_vec()], environment)
    }

    /// Starts it. `more` is added to its environment. Must be called within a runtime.
    pub(super) fn start(&self, more: &[(String, String)]) -> io::Result<(Child, Pipes)> {
        let (stdin_theirs, stdin) = io::pipe()?;
        let (stdout, stdout_theirs) = io::pipe()?;
        let (stderr, stderr_theirs) = io::pipe()?;
        let pipes = Pipes {
            stdin: stdin.into(),
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        };
        let mut actions = PosixSpawnFileActions::init()?;
        let theirs = [stdin_theirs.as_raw_fd(), stdout_theirs.as_raw_fd(), stderr_theirs.as_raw_fd()];
        for (number, end) in (0..).zip(theirs) {
            actions.add_dup2(end, number)?;
        }
        for inherited in &*self.inherited {
            // One that was closed since is not missed, and one that took its number would have closed by itself.
            actions.add_close(*inherited)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
        // This process ignores SIGPIPE, as every Rust program does; no other program expects that.
        let mut ignored = SigSet::empty();
        ignored.add(Signal::SIGPIPE);
        attributes.set_sigdefault(&ignored)?;
        attributes.set_sigmask(&SigSet::empty())?;
        let pid = posix_spawn(&self.path()?, &actions, &attributes, &self.words[..], &self.variables(more)?)?;
        let pid = Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::NotFound)?;
        Ok((Child::adopt(pid)?, pipes))
    }

    fn path(&self) -> io::Result<PathBuf> {
        let word = self.words.first().ok_or(io::ErrorKind::NotFound)?;
        let word = Path::new(OsStr::from_bytes(word.to_bytes()));
        if word.as_os_str().as_bytes().contains(&b'/') {
            return Ok(word.to_owned());
        }
        let path = self.environment.0.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path);
        let mut found = path.into_iter().flat_map(std::env::split_paths).map(|folder| folder.join(word));
        found.find(|file| file.is_file()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn variables(&self, more: &[(String, String)]) -> io::Result<Vec<CString>> {
        let given = self.environment.0.iter().map(|(name, value)| (name.clone(), value.clone()));
        let more = more.iter().map(|(name, value)| (name.into(), value.into()));
        given
            .chain(more)
            .map(|(mut variable, value): (OsString, OsString)| {
                variable.push("=");
                variable.push(value);
                CString::new(variable.into_vec()).map_err(io::Error::from)
            })
            .collect()
    }
}

/// Why a program does not start, with what mends the two commonest causes.
pub(super) fn why(error: &io::Error) -> String {
    let hint = match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOEXEC) => {
            "; begin it with #! and the path of its interpreter, or build it for this machine"
        }
        Some(nix::errno::Errno::ENOENT) => {
            "; either it is not there, or the interpreter that its first line names is not"
        }
        _ => "",
    };
    format!("{}{hint}", named(error))
}

/// The descriptors above 2 that would pass on to a child. Those that this process opened itself close by themselves
/// (`O_CLOEXEC`); these were inherited.
fn inherited() -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let info = match std::fs::read_to_string(entry.path()) {
            Ok(info) => info,
            // It was closed since, as another thread does at any time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // One that cannot be looked at, as at the end of descriptors, must not pass on unseen.
            Err(error) => return Err(error),
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        let closes = flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() != 0);
        if number > 2 && !closes {
            found.push(number);
        }
    }
    Ok(found)
}

/// A child that runs, or has ended and was not yet asked how. When this is dropped its group is killed.
pub(super) struct Child {
    pid: Pid,
    /// Readable once it has ended; gone once that was seen.
    handle: Option<AsyncFd<OwnedFd>>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Status(i32),
    Signal(i32),
    /// Somebody else took the answer.
    Unknown,
}

impl Child {
    fn adopt(pid: Pid) -> io::Result<Self> {
        let handle = pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|handle| register(handle, Interest::READABLE));
        if handle.is_err() {
            let _ = kill_process_group(pid, rustix::process::Signal::KILL);
            // It dies at once, and nobody else will ask how it ended.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
        Ok(Child { pid, handle: Some(handle?) })
    }

    /// Kills its group.
    pub(super) fn kill(&self) {
        // While it was not asked how it ended, its number cannot become anybody else's.
        if self.handle.is_some() {
            let _ = kill_process_group(self.pid, rustix::process::Signal::KILL);
        }
    }

    /// Whether it has ended.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.handle {
            // It fails only where the runtime is shutting down.
            Some(handle) => handle.poll_read_ready(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Waits for its end, kills what is left of its group, and says how it ended. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Exit {
        let Some(handle) = &self.handle else { return Exit::Unknown };
        // It fails only where the runtime is shutting down.
        let _ = handle.readable().await;
        self.kill();
        self.handle.take().map_or(Exit::Unknown, |handle| reap(&handle))
    }
}

/// Kills the group, and leaves nobody behind who waits to be asked how it ended.
impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        let Some(handle) = self.handle.take() else { return };
        if reap(&handle) == Exit::Unknown
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = handle.readable().await;
                reap(&handle);
            });
        }
    }
}

/// Registers a descriptor with the runtime.
#[expect(
    deprecated,
    reason = "what takes its place is unsafe, for the sake of types that can lose their descriptor; an OwnedFd in an \
              AsyncFd that hands out shared references alone cannot"
)]
pub(super) fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

fn reap(handle: &AsyncFd<OwnedFd>) -> Exit {
    let id = WaitId::PidFd(handle.get_ref().as_fd());
    let Ok(Some(status)) = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) else { return Exit::Unknown };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Reads after the program's name.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Status(code) => write!(f, "ended with status {code}"),
            Exit::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
            Exit::Unknown => f.write_str("ended"),
        }
    }
}
