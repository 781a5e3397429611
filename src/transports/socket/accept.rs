//! Accepting connections from a listening socket, and opening them as links.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop;

use super::FailedStep;
use super::file::SocketFile;
use super::names;
use super::reactor::register;
use crate::address::Address;
use crate::transport::{Acceptor, Dialled, Incoming, Opening};

/// Makes a conversation of an accepted socket, which does not block, and its peer's address.
type Open = dyn Fn(OwnedFd, Address) -> io::Result<Dialled> + Send + Sync;

/// Accepts the connections of one listening socket, with one system call each.
pub struct SocketAcceptor {
    /// Before the socket, so that it is dropped first.
    file: Option<SocketFile>,
    socket: AsyncFd<OwnedFd>,
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
        Ok(SocketAcceptor { file: None, socket, local, open: Arc::new(open) })
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
        // What goes round tokio must still let other tasks have their turn.
        let turn = ready!(coop::poll_proceed(cx));
        let accept = |socket: &OwnedFd| Ok(acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?);
        loop {
            match self.socket.try_io(Interest::READABLE, accept) {
                // There is none, or the reactor knows of none: only now is it asked to wake this task.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_read_ready(cx))?.retain_ready();
                }
                accepted => {
                    turn.made_progress();
                    let (socket, remote) = accepted?;
                    let incoming = Accepted { socket, remote: names::address(remote), open: self.open.clone() };
                    return Poll::Ready(Ok(Some(Box::new(incoming))));
                }
            }
        }
    }
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
