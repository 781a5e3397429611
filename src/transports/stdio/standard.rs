//! The two descriptors of a conversation, and how they are taken away from the rest of the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Whether the standard descriptors of this process are taken: there is one pair of them.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A pair of descriptors that can be taken once.
pub(super) enum Standard {
    /// Standard input and output.
    OfThisProcess,
    /// Others in their place.
    Given(Mutex<Option<Pair>>),
}

/// The descriptor to read from and the one to write to.
pub(super) struct Pair {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
}

impl Pair {
    /// Whether both stand for the same socket, pipe or file.
    pub(super) fn is_one(&self) -> io::Result<bool> {
        is_same(self.input.as_fd(), self.output.as_fd())
    }
}

impl Standard {
    /// A look at the input, with its number; `None` once it is taken.
    pub(super) fn with_input<T>(&self, look: impl FnOnce(BorrowedFd<'_>, RawFd) -> T) -> Option<T> {
        match self {
            Standard::OfThisProcess if TAKEN.load(Ordering::Relaxed) => None,
            Standard::OfThisProcess => Some(look(io::stdin().as_fd(), io::stdin().as_raw_fd())),
            Standard::Given(pair) => {
                let pair = pair.lock().unwrap_or_else(PoisonError::into_inner);
                pair.as_ref().map(|pair| look(pair.input.as_fd(), pair.input.as_raw_fd()))
            }
        }
    }

    /// Takes both; `None` if they are taken already. Of this process's they leave /dev/null in their place.
    pub(super) fn take(&self) -> io::Result<Option<Pair>> {
        match self {
            Standard::OfThisProcess if TAKEN.swap(true, Ordering::Relaxed) => Ok(None),
            Standard::OfThisProcess => {
                let input = io::stdin().as_fd().try_clone_to_owned()?;
                let output = io::stdout().as_fd().try_clone_to_owned()?;
                self.silence()?;
                let nothing = nothing()?;
                dup2_stdin(&nothing)?;
                dup2_stdout(&nothing)?;
                Ok(Some(Pair { input, output }))
            }
            Standard::Given(pair) => Ok(pair.lock().unwrap_or_else(PoisonError::into_inner).take()),
        }
    }

    /// Lets nothing be printed into a socket that came as standard input: inetd(8) makes it standard output and
    /// standard error as well.
    pub(super) fn silence(&self) -> io::Result<()> {
        if let Standard::OfThisProcess = self {
            if is_same(io::stdin().as_fd(), io::stdout().as_fd())? && is_socket(io::stdin().as_fd())? {
                dup2_stdout(nothing()?)?;
            }
            if is_same(io::stdin().as_fd(), io::stderr().as_fd())? && is_socket(io::stdin().as_fd())? {
                dup2_stderr(nothing()?)?;
            }
        }
        Ok(())
    }
}

fn nothing() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (metadata(one)?, metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn is_socket(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    Ok(metadata(descriptor)?.file_type().is_socket())
}

fn metadata(descriptor: BorrowedFd<'_>) -> io::Result<std::fs::Metadata> {
    File::from(descriptor.try_clone_to_owned()?).metadata()
}
