//! Whether this process may make network namespaces, and if not, what would allow it.
//!
//! Root (more exactly `CAP_SYS_ADMIN`) just may. Anybody else first enters a user namespace of their own, in which
//! they have every capability; that works only while the process has a single thread, see `user_namespaces(7)`, so a
//! program calls [`enter`] first of all.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Private network namespaces cannot be had here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no private network namespace: {reason}; {remedy}")]
pub struct Unavailable {
    /// What the kernel said.
    pub reason: String,
    /// What to change, as a command where there is one.
    pub remedy: String,
}

/// Makes sure that threads started from now on can make network namespaces.
///
/// Does nothing where they can already. Otherwise the process moves into a new user namespace, in which it keeps its
/// user and group. Call it before any other thread exists.
///
/// # Errors
/// [`Unavailable`], with the sysctl or the command that would allow it.
pub fn enter() -> Result<(), Unavailable> {
    if probe().is_ok() {
        return Ok(());
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| unavailable("unshare(CLONE_NEWUSER)", errno))?;
    // Without a mapping the process would be nobody; setgroups must be given up first, see `user_namespaces(7)`.
    let map = |file: &str, content: String| {
        fs::write(format!("/proc/self/{file}"), content)
            .map_err(|error| unavailable(&format!("writing /proc/self/{file}"), errno_of(&error)))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("{user} {user} 1"))?;
    map("gid_map", format!("{group} {group} 1"))?;
    probe().map_err(|errno| unavailable("unshare(CLONE_NEWNET)", errno))
}

/// Tries it in a thread that ends at once, because a thread cannot be moved back without `CAP_SYS_ADMIN`.
fn probe() -> Result<(), Errno> {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().unwrap_or(Err(Errno::EAGAIN))
}

/// The error for a call that was not allowed, with what this machine's settings say about it.
pub(super) fn unavailable(call: &str, errno: Errno) -> Unavailable {
    let sysctl = |path: &str| fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap_or_default();
    Unavailable { reason: format!("{call} failed with {errno:?}"), remedy: remedy(errno, sysctl) }
}

/// What to change, from the settings that forbid user or network namespaces on the known distributions.
fn remedy(errno: Errno, sysctl: impl Fn(&str) -> String) -> String {
    let forbidding = [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("user/max_net_namespaces", "0", "user.max_net_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ];
    let found = forbidding.iter().filter(|(path, value, _)| sysctl(path).trim() == *value);
    let found: Vec<_> = found.map(|(.., allowed)| *allowed).collect();
    if !found.is_empty() {
        return format!("allow it with `sysctl -w {}`", found.join(" "));
    }
    if errno == Errno::ENOSPC {
        return "there are as many as user.max_net_namespaces and user.max_user_namespaces allow; raise them with \
                `sysctl -w`"
            .to_owned();
    }
    if errno == Errno::EINVAL {
        return "enter one before other threads start, or run as root".to_owned();
    }
    "no sysctl forbids it, so a container or a seccomp filter does; run as root there, with CAP_SYS_ADMIN".to_owned()
}

pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_setting_that_forbids_it_is_named_with_the_value_that_allows_it() {
        for (path, value, expected) in [
            ("user/max_user_namespaces", "0\n", "user.max_user_namespaces=10000"),
            ("user/max_net_namespaces", "0\n", "user.max_net_namespaces=10000"),
            ("kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone=1"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1\n", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ] {
            let remedy = remedy(Errno::EPERM, |asked| if asked == path { value.to_owned() } else { "1000".to_owned() });
            assert_eq!(remedy, format!("allow it with `sysctl -w {expected}`"));
        }
    }

    #[test]
    fn where_no_setting_forbids_it_the_container_is_suspected() {
        let remedy = remedy(Errno::EPERM, |_| String::new());
        assert!(remedy.contains("CAP_SYS_ADMIN"), "{remedy}");
    }
}
