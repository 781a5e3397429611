//! Which processes have a socket open, and with which options.

use std::collections::{BTreeMap, BTreeSet};

use procfs::process::{FDTarget, Process as ProcEntry};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::Serialize;
use socket2::SockRef;

/// How many characters of a command line are kept.
const COMMAND_LENGTH: usize = 256;

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its name, as the kernel has it: at most 15 bytes of the program's.
    pub name: String,
    /// Its command line, cut after a few words.
    pub command: String,
    /// The number of its descriptor for the socket.
    pub descriptor: i32,
}

/// The options of a socket that decide whether another one may be bound beside it; see socket(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SharingOptions {
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
}

/// The processes that have these sockets open, by the socket's inode. Those of other users are seen by root alone.
pub fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Process>> {
    let mut found: BTreeMap<u64, Vec<Process>> = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    // A process that ends while it is looked at is as good as one that ended before.
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        for descriptor in process.fd().into_iter().flatten().flatten() {
            if let FDTarget::Socket(inode) = descriptor.target
                && inodes.contains(&inode)
            {
                found.entry(inode).or_default().push(describe(&process, descriptor.fd));
            }
        }
    }
    found
}

/// The name of a user, or the number where it has none.
pub fn user(uid: u32) -> String {
    let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Asks the socket itself, through a second descriptor for it that is closed at once. `None` where the kernel does not
/// allow that (`pidfd_getfd(2)` asks for the right to trace the process).
pub fn sharing_options(process: &Process) -> Option<SharingOptions> {
    let pidfd = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    let socket = pidfd_getfd(pidfd, process.descriptor, PidfdGetfdFlags::empty()).ok()?;
    let socket = SockRef::from(&socket);
    Some(SharingOptions { reuse_addr: socket.reuse_address().ok()?, reuse_port: socket.reuse_port().ok()? })
}

fn describe(process: &ProcEntry, descriptor: i32) -> Process {
    let mut command = process.cmdline().unwrap_or_default().join(" ");
    if let Some((end, _)) = command.char_indices().nth(COMMAND_LENGTH) {
        command.truncate(end);
        command.push('…');
    }
    Process { pid: process.pid, name: process.stat().map(|stat| stat.comm).unwrap_or_default(), command, descriptor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::AsRawFd as _;

    use crate::machine::sockets::{Protocol, sockets};

    #[test]
    fn a_socket_leads_to_its_process_and_to_its_options() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let socket = sockets(Protocol::Tcp, address.port()).unwrap().into_iter().find(|s| s.local == address).unwrap();
        let inode = u64::from(socket.inode);

        let owners = owners(&BTreeSet::from([inode]));
        let this = owners[&inode].iter().find(|process| process.pid == std::process::id().cast_signed()).unwrap();
        assert_eq!(this.descriptor, listener.as_raw_fd());
        assert!(!this.name.is_empty() && !this.command.is_empty(), "{this:?}");
        // The standard library sets SO_REUSEADDR on its listeners.
        assert_eq!(sharing_options(this), Some(SharingOptions { reuse_addr: true, reuse_port: false }));
    }
}
