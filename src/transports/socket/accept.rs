//! Accepting connections from a listening socket, and opening them as links.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::FailedStep;
use super::file::SocketFile;
use super::names;
use super::reactor::register;
use crate::address::Address;
use crate::transport::{Acceptor, Dialled, Incoming, Opening};

/// Makes a conversation of an accepted socket, which does not block, and its peer's address.
type Open = dyn Fn(OwnedFd, Address) -> io::Result<Dialled> + Send + Sync;

/// Accepts the connections of one listening socket, with one system call each and one to know whether there are more.
pub struct SocketAcceptor {
    /// Before the socket, so that it is dropped first.
    file: Option<SocketFile>,
    socket: AsyncFd<OwnedFd>,
    /// Whether one was accepted since the reactor told that somebody calls.
    accepted: bool,
    local: Address,
    open: Arc<Open>,
}

impl SocketAcceptor {
    /// Accepts from a socket that listens and does not block. `open` runs in the session's own turns.
    ///
    /// It must be called within a tokio runtime.
    pub fn new(
        socket: Socket,
        open: impl Fn(OwnedFd, Address) -> io::Result<Dialled> + Send + Sync + 'static,
    ) -> Result<Self, FailedStep> {
        let local = names::local(&socket).map_err(|error| FailedStep::new("getsockname", error))?;
        let socket = register(socket.into(), Interest::READABLE)
            .map_err(|error| FailedStep::new("epoll_ctl(EPOLL_CTL_ADD)", error))?;
        Ok(SocketAcceptor { file: None, socket, accepted: false, local, open: Arc::new(open) })
    }

    /// The same, with the file that goes when it is dropped.
    #[must_use]
    pub fn with_file(mut self, file: Option<SocketFile>) -> Self {
        self.file = file;
        self
    }
}

impl Acceptor for SocketAcceptor {
    fn local(&self) -> Address {
        self.local.clone()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<dyn Incoming>>>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            if self.accepted && !somebody_calls(&self.socket) {
                self.accepted = false;
                ready.clear_ready();
                continue;
            }
            match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, remote)) => {
                    self.accepted = true;
                    let incoming = Accepted { socket, remote: names::address(remote), open: self.open.clone() };
                    return Poll::Ready(Ok(Some(Box::new(incoming))));
                }
                Err(Errno::AGAIN) => {
                    self.accepted = false;
                    ready.clear_ready();
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

/// Whether a connection waits. To accept one in vain costs ten times as much as to ask: the kernel makes a socket and a file
/// for it before it looks.
fn somebody_calls(listening: impl AsFd) -> bool {
    // Where it cannot be asked, the accept tells.
    poll(&mut [PollFd::new(listening.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
}

struct Accepted {
    socket: OwnedFd,
    remote: Address,
    open: Arc<Open>,
}

impl Incoming for Accepted {
    fn remote(&self) -> &Address {
        &self.remote
    }

    fn open(self: Box<Self>) -> Opening {
        let Accepted { socket, remote, open } = *self;
        open(socket, remote).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::task::Waker;

    use crate::transports::socket::links;

    fn acceptor(listening: UnixListener) -> SocketAcceptor {
        listening.set_nonblocking(true).unwrap();
        let open = |socket, remote| Ok(Dialled::new(links::unix(socket)?, Address::Unnamed, remote));
        SocketAcceptor::new(OwnedFd::from(listening).into(), open).map_err(|step| step.source).unwrap()
    }

    #[tokio::test]
    async fn all_that_call_are_accepted_in_one_turn_and_whoever_calls_later_is_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let mut acceptor = acceptor(UnixListener::bind(&path).unwrap());
        let call = || UnixStream::connect(&path).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        for callers in [3, 1, 2] {
            let _callers: Vec<_> = (0..callers).map(|_| call()).collect();
            assert!(poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap().is_some());
            for _ in 1..callers {
                assert!(matches!(acceptor.poll_accept(&mut cx), Poll::Ready(Ok(Some(_)))));
            }
            assert!(acceptor.poll_accept(&mut cx).is_pending());
        }
    }

    #[test]
    fn it_is_known_whether_somebody_calls() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let listening = UnixListener::bind(&path).unwrap();
        assert!(!somebody_calls(&listening));
        let _first = UnixStream::connect(&path).unwrap();
        let _second = UnixStream::connect(&path).unwrap();
        for there_is_one in [true, false] {
            listening.accept().unwrap();
            assert_eq!(somebody_calls(&listening), there_is_one);
        }
    }
}
