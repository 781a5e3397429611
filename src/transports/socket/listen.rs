//! Listening, with the backlog that was asked for.

use socket2::Socket;

use super::FailedStep;

/// The backlog where none is asked for. The kernel clamps it to net.core.somaxconn, which has had this value since
/// Linux 5.4.
pub const DEFAULT_BACKLOG: u32 = 4096;

/// Lets so many connections wait to be accepted, and says so where the kernel allows fewer; see listen(2).
pub fn listen(socket: &Socket, backlog: Option<u32>) -> Result<(), FailedStep> {
    let asked = backlog.unwrap_or(DEFAULT_BACKLOG);
    let number = i32::try_from(asked).unwrap_or(i32::MAX);
    socket.listen(number).map_err(|error| FailedStep::new(format!("listen({asked})"), error))?;
    if let Some(allowed) = somaxconn().filter(|allowed| *allowed < asked) {
        tracing::warn!(asked, allowed, "the kernel limits the backlog; raise net.core.somaxconn");
    }
    Ok(())
}

/// The largest backlog that the kernel allows in this network namespace, where it tells.
pub fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}
