//! [`Refusals`]: what ICMP said about a connected socket.
//!
//! That a port is closed is told by the other host, later, and shows as an error of the socket; epoll says `EPOLLERR`
//! and nothing else. The reactor wakes a reader for what can be read alone, so whoever waits for an answer must also
//! wait for this.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::sockopt::socket_error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::ReusableBoxFuture;

/// Waits for errors of one socket.
pub(super) struct Refusals {
    socket: Arc<AsyncFd<OwnedFd>>,
    next: ReusableBoxFuture<'static, io::Result<()>>,
}

impl Refusals {
    pub(super) fn of(socket: Arc<AsyncFd<OwnedFd>>) -> Self {
        let next = ReusableBoxFuture::new(next(socket.clone()));
        Refusals { socket, next }
    }

    /// The next error.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let ready = ready!(self.next.poll(cx));
            self.next.set(next(self.socket.clone()));
            if let Err(error) = ready {
                return Poll::Ready(error);
            }
            match socket_error(&self.socket) {
                Ok(Ok(())) => {}
                Ok(Err(errno)) | Err(errno) => return Poll::Ready(errno.into()),
            }
        }
    }
}

async fn next(socket: Arc<AsyncFd<OwnedFd>>) -> io::Result<()> {
    // The readiness stays until it is taken back.
    socket.ready(Interest::ERROR).await?.clear_ready();
    Ok(())
}
