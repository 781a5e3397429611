//! [`Refusals`]: what ICMP said about a connected socket.
//!
//! That a port is closed is told by the other host, later, and shows as an error of the socket; epoll says `EPOLLERR`
//! and nothing else. The reactor wakes a reader for what can be read alone, so whoever waits for an answer must also
//! wait for this.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio_util::sync::ReusableBoxFuture;

/// Waits for errors of one socket.
pub(super) struct Refusals {
    socket: Arc<UdpSocket>,
    next: ReusableBoxFuture<'static, io::Result<Ready>>,
}

impl Refusals {
    pub(super) fn of(socket: Arc<UdpSocket>) -> Self {
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
            // The readiness stays until it is taken back.
            let taken = self.socket.take_error();
            let _ = self.socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            match taken {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Poll::Ready(error),
            }
        }
    }
}

async fn next(socket: Arc<UdpSocket>) -> io::Result<Ready> {
    socket.ready(Interest::ERROR).await
}
