//! Receiving several datagrams at once, through a buffer that belongs to the thread.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SocketAddrAny, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::transports::arena::Arena;

/// How many datagrams are received before the first of them is looked at.
const BATCH: usize = 32;
/// Room to begin a batch with.
const ROOM: usize = 8 * 1024;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::default());
}

#[derive(Default)]
struct Buffers {
    incoming: Vec<u8>,
    arena: Arena,
}

/// One datagram, as the kernel gave it.
pub(super) struct Received {
    pub(super) from: Option<SocketAddrAny>,
    pub(super) payload: Bytes,
    /// The end of it is missing.
    pub(super) truncated: bool,
}

/// Hands on what came, at least one datagram; of each at most `largest` bytes.
pub(super) fn poll_recv(
    io: &UnixDatagram,
    cx: &mut Context<'_>,
    largest: usize,
    mut deliver: impl FnMut(Received),
) -> Poll<io::Result<()>> {
    loop {
        // Takes from the task's budget, so that a flood on this socket lets other tasks run.
        ready!(io.poll_recv_ready(cx))?;
        let mut count = 0;
        let received = io.try_io(Interest::READABLE, || {
            BUFFERS.with_borrow_mut(|buffers| {
                if buffers.incoming.len() < largest {
                    // Not `resize`, which would write to every page.
                    buffers.incoming = vec![0; largest];
                }
                buffers.arena.make_room(ROOM);
                while count < BATCH {
                    deliver(buffers.receive(io, largest)?);
                    count += 1;
                }
                Ok(())
            })
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && count == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Ready(Ok(())),
            other => return Poll::Ready(other),
        }
    }
}

impl Buffers {
    fn receive(&mut self, io: &UnixDatagram, largest: usize) -> io::Result<Received> {
        let buffer = &mut self.incoming[..largest];
        let mut no_control = RecvAncillaryBuffer::default();
        let came = recvmsg(io, &mut [IoSliceMut::new(buffer)], &mut no_control, RecvFlags::DONTWAIT)?;
        let payload = self.arena.keep(&self.incoming[..came.bytes]);
        Ok(Received { from: came.address, payload, truncated: came.flags.contains(ReturnFlags::TRUNC) })
    }
}
