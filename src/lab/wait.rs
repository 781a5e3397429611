//! Waiting for a socket, for a while.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether a socket can be read (or has come to an end) within the time.
pub(crate) fn readable(socket: &impl AsFd, within: Duration) -> bool {
    ready(socket, PollFlags::POLLIN, within)
}

/// Whether a socket can be written within the time, which is when a connect has ended.
pub(crate) fn writable(socket: &impl AsFd, within: Duration) -> bool {
    ready(socket, PollFlags::POLLOUT, within)
}

fn ready(socket: &impl AsFd, what: PollFlags, within: Duration) -> bool {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    // An interruption counts as not yet; whoever asks either asks again or takes it as an answer.
    poll(&mut [PollFd::new(socket.as_fd(), what)], timeout).is_ok_and(|count| count > 0)
}
