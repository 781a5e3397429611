//! The one place where a bare descriptor joins the reactor.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets a descriptor that does not block be waited for. It must be called within a tokio runtime.
#[expect(
    deprecated,
    reason = "tokio made the successor unsafe, because a descriptor might be closed while it is registered; an OwnedFd \
              in an AsyncFd that nobody else can reach into cannot be"
)]
pub(crate) fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}
