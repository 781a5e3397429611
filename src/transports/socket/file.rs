//! A Unix socket's place in the file system; see unix(7).
//!
//! # Mode
//! Linux gives the file the mode of the socket itself, less the umask. Setting it on the socket before it is bound is
//! therefore enough: there is no moment in which the file has another mode. What the umask took is added afterwards.
//!
//! # Stale files
//! A socket's file outlives its process. One that nobody listens behind refuses a connection, and is replaced; one
//! that is alive, and a file of any other kind, never is. From the look at it until the new socket listens the
//! directory is locked (flock(2)), so that of two servers that start at once one is refused.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::fchmod;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{FailedStep, is};

/// How long, and in which steps, the directory's lock is waited for. It is held for the length of a few system calls.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// The part of `st_mode` that chmod(2) sets.
const MODE_BITS: u32 = 0o7777;

/// A file that a socket of ours stands behind. Dropping it removes the file, if it is still the same one: to be done
/// while the socket is open, lest somebody take it for stale in between.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// What makes a file the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds the socket to the path, in place of a stale file, with exactly this mode; then `listen`s.
    pub async fn create(
        path: &Path,
        socket: &Socket,
        mode: u32,
        listen: impl FnOnce() -> Result<(), FailedStep>,
    ) -> Result<Self, FailedStep> {
        let name = path.display();
        let address = address(path)?;
        let kind = socket.r#type().map_err(|error| FailedStep::new("getsockopt(SO_TYPE)", error))?;
        fchmod(socket, nix::sys::stat::Mode::from_bits_truncate(mode))
            .map_err(|errno| FailedStep::new(format!("fchmod({mode:04o})"), errno))?;
        // Absolute, so that the file is found again should the process change its directory.
        let absolute = std::path::absolute(path).map_err(|error| FailedStep::new("getcwd", error))?;

        let _lock = lock_directory_of(&absolute).await;
        remove_stale(path, &address, kind)?;
        socket.bind(&address).map_err(|error| FailedStep::new(format!("bind({name})"), error))?;
        let held = hold(path).map_err(|error| FailedStep::new(format!("open({name})"), error))?;
        let there = held.metadata().map_err(|error| FailedStep::new(format!("stat({name})"), error))?;
        let file = SocketFile { path: absolute, identity: Identity::of(&there) };
        if there.mode() & MODE_BITS != mode {
            restore_mode(&held, mode).map_err(|error| FailedStep::new(format!("chmod({name}, {mode:04o})"), error))?;
        }
        listen()?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|there| Identity::of(&there) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file cannot be removed");
        }
    }
}

impl Identity {
    fn of(file: &fs::Metadata) -> Self {
        Identity { device: file.dev(), inode: file.ino() }
    }
}

/// The path as a socket address.
pub(super) fn address(path: &Path) -> Result<SockAddr, FailedStep> {
    SockAddr::unix(path).map_err(|_| {
        let length = path.as_os_str().len();
        FailedStep::unsuitable(format!("the path is {length} bytes long, and a Unix socket's has room for 107"))
    })
}

/// Keeps other servers from looking at the directory's sockets. Without the lock, where the directory cannot be read
/// or somebody else sits on it, all works as well, save that two servers may start at once.
async fn lock_directory_of(path: &Path) -> Option<Flock<File>> {
    let mut directory = File::open(path.parent()?).ok()?;
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((_, _)) if tokio::time::Instant::now() >= deadline => {
                tracing::warn!(path = %path.display(), "the socket's directory is locked by somebody else");
                return None;
            }
            Err((back, _)) => directory = back,
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

fn remove_stale(path: &Path, address: &SockAddr, kind: Type) -> Result<(), FailedStep> {
    let name = path.display();
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FailedStep::new(format!("stat({name})"), error)),
    };
    if !there.file_type().is_socket() {
        let reason = format!("the file is {}, no socket; remove it or choose another path", describe(&there));
        return Err(FailedStep::new(format!("bind({name})"), io::Error::new(io::ErrorKind::AddrInUse, reason)));
    }
    let probe = Socket::new(Domain::UNIX, kind.nonblocking(), None)
        .map_err(|error| FailedStep::new("socket(AF_UNIX)", error))?;
    match probe.connect(address) {
        Err(error) if is(&error, Errno::CONNREFUSED) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(FailedStep::new(format!("connect({name})"), error));
        }
        // It answers, or is too busy to (EAGAIN), or is a socket of another type (EPROTOTYPE): somebody is there.
        _ => return Err(FailedStep::new(format!("bind({name})"), Errno::ADDRINUSE)),
    }
    fs::remove_file(path).map_err(|error| FailedStep::new(format!("unlink({name})"), error))?;
    tracing::info!(path = %name, "replaced a socket that nobody listened behind");
    Ok(())
}

fn describe(file: &fs::Metadata) -> &'static str {
    let kind = file.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a pipe or a device"
    }
}

/// A descriptor of the file itself: never of what a symbolic link points to.
fn hold(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits()).open(path)
}

/// Gives back what the umask took. It goes through the descriptor, lest the path stand for another file by now.
fn restore_mode(held: &File, mode: u32) -> io::Result<()> {
    fs::set_permissions(format!("/proc/self/fd/{}", held.as_raw_fd()), Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & MODE_BITS
    }

    async fn listen(path: &Path, mode: u32) -> Result<(SocketFile, Socket), FailedStep> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let listen = || socket.listen(64).map_err(|error| FailedStep::new("listen", error));
        let file = SocketFile::create(path, &socket, mode, listen).await?;
        Ok((file, socket))
    }

    /// A directory, and a path in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        (directory, path)
    }

    #[test]
    fn the_mode_of_a_socket_becomes_that_of_its_file() {
        let (_directory, path) = place();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        fchmod(&socket, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[tokio::test]
    async fn the_mode_is_the_one_that_was_asked_for_whatever_the_umask_is() {
        for asked in [0o600, 0o660, 0o666, 0o777, 0o000] {
            let (_directory, path) = place();
            let _socket = listen(&path, asked).await.unwrap();
            assert_eq!(mode(&path), asked);
        }
    }

    #[tokio::test]
    async fn the_file_goes_with_the_socket() {
        let (_directory, path) = place();
        drop(listen(&path, 0o600).await.unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_longer_ours_stays() {
        let (_directory, path) = place();
        let ours = listen(&path, 0o600).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_stale_file_is_replaced() {
        let (_directory, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = listen(&path, 0o600).await.unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_stale_file_of_another_type_of_socket_is_replaced() {
        let (_directory, path) = place();
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(listen(&path, 0o600).await.is_ok());
    }

    #[tokio::test]
    async fn a_live_socket_is_never_replaced() {
        let (_directory, path) = place();
        let _live = UnixListener::bind(&path).unwrap();
        let before = Identity::of(&fs::symlink_metadata(&path).unwrap());
        let step = listen(&path, 0o600).await.unwrap_err();
        assert_eq!(step.source.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(step.call, format!("bind({})", path.display()));
        assert_eq!(Identity::of(&fs::symlink_metadata(&path).unwrap()), before);
    }

    #[tokio::test]
    async fn a_live_socket_that_accepts_nobody_or_is_of_another_type_is_alive() {
        let (_directory, path) = place();
        let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        full.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        full.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&path, 0o600).await.unwrap_err().source.kind(), io::ErrorKind::AddrInUse);

        let (_directory, path) = place();
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert_eq!(listen(&path, 0o600).await.unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn files_of_other_kinds_are_never_touched() {
        let (directory, path) = place();
        let elsewhere = directory.path().join("elsewhere");
        for (kind, make) in [
            ("a regular file", &(|| fs::write(&path, "precious").unwrap()) as &dyn Fn()),
            ("a directory", &|| fs::create_dir(&path).unwrap()),
            ("a symbolic link", &|| std::os::unix::fs::symlink(&elsewhere, &path).unwrap()),
            ("a pipe or a device", &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ] {
            make();
            let before = Identity::of(&fs::symlink_metadata(&path).unwrap());
            let step = listen(&path, 0o600).await.unwrap_err();
            assert_eq!(
                step.source.to_string(),
                format!("the file is {kind}, no socket; remove it or choose another path")
            );
            assert_eq!(step.source.kind(), io::ErrorKind::AddrInUse);
            assert_eq!(Identity::of(&fs::symlink_metadata(&path).unwrap()), before);
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_that_start_at_once_on_a_stale_file_one_gets_it() {
        let (_directory, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        let starts: Vec<_> = (0..16)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { listen(&path, 0o600).await })
            })
            .collect();
        let mut listening = Vec::new();
        for start in starts {
            listening.extend(start.await.unwrap());
        }
        assert_eq!(listening.len(), 1);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_refused_in_words() {
        let step = listen(Path::new(&format!("/tmp/{}", "x".repeat(200))), 0o600).await.unwrap_err();
        assert_eq!(step.source.to_string(), "the path is 205 bytes long, and a Unix socket's has room for 107");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_somebody_sits_on_delays_and_does_not_prevent() {
        let (directory, path) = place();
        let _lock = Flock::lock(File::open(directory.path()).unwrap(), FlockArg::LockExclusive).unwrap();
        let began = tokio::time::Instant::now();
        assert!(listen(&path, 0o600).await.is_ok());
        assert!(began.elapsed() >= LOCK_PATIENCE);
    }
}
