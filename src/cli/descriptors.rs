//! How many files this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::service::Service;

/// What a daemon needs beside its sessions: standard streams, the reactors, the listeners, plugins, log files.
const RESERVE: u64 = 64;

/// Raises the soft limit to the hard one (R7): a daemon that waits with epoll(7) has no use for the low default, which
/// is there for select(2). Gives what may be open from now on, where the kernel tells.
pub(super) fn raise_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return Some(hard);
    }
    Some(soft)
}

/// In words, where the sessions that the services may hold need more descriptors than there may be.
pub(super) fn shortage(services: &[Service], limit: u64) -> Option<String> {
    let connections = services.iter().filter(|service| service.route.capabilities.connected);
    let sessions: u64 = connections.map(|service| service.limits.max_sessions as u64).sum();
    (sessions.saturating_add(RESERVE) > limit).then(|| {
        format!(
            "{sessions} sessions (max-sessions) need {} descriptors, and RLIMIT_NOFILE allows {limit}: raise its hard \
             limit (LimitNOFILE= of systemd, or limits.conf), or lower --max-sessions to {} in all",
            sessions.saturating_add(RESERVE),
            limit.saturating_sub(RESERVE)
        )
    })
}
