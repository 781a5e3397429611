//! Connected sockets that keep the boundaries of their messages: `SOCK_SEQPACKET`; unix(7).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::poll_proceed;

use super::reactor::register;
use crate::error::{Error, Result};
use crate::framing;
use crate::link::MessageStream;
use crate::transports::arena::Arena;
use crate::transports::outgoing::Outgoing;

/// The largest message in bytes: what fits into the send buffer that Linux gives a socket (net.core.wmem_default, of
/// which it needs 32 bytes itself).
pub const LARGEST_PACKET: usize = 212_992 - 32;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::default());
}

/// What the kernel writes into, and where it is kept. They belong to the thread: an idle stream has no memory.
#[derive(Default)]
struct Buffers {
    incoming: Vec<u8>,
    arena: Arena,
}

/// Messages over a connected socket.
pub(super) struct PacketStream {
    socket: AsyncFd<OwnedFd>,
    outgoing: Outgoing,
}

impl PacketStream {
    /// Takes over a socket that is connected and does not block, within a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = register(socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(PacketStream { socket, outgoing: Outgoing::default() })
    }
}

impl MessageStream for PacketStream {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx)).map_err(Error::Link)?;
            match receive(self.socket.get_ref()) {
                Err(Error::Link(error)) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                received => return Poll::Ready(received),
            }
        }
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if size > LARGEST_PACKET {
            return Err(Error::TooLong { size, limit: LARGEST_PACKET });
        }
        self.outgoing.push(parts);
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.outgoing.buffered()
    }

    /// Tries first and asks the reactor only where there is no room: of a fresh socket it knows nothing yet.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some((message, _)) = self.outgoing.first(1, LARGEST_PACKET) {
            let step = ready!(poll_proceed(cx));
            match send(&self.socket, message, SendFlags::NOSIGNAL) {
                Ok(_) => {
                    step.made_progress();
                    self.outgoing.forget_first();
                }
                Err(Errno::AGAIN) => ready!(self.socket.poll_write_ready(cx)).map_err(Error::Link)?.clear_ready(),
                Err(errno) => return Poll::Ready(Err(Error::Link(errno.into()))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(cx))?;
        match shutdown(&self.socket, Shutdown::Write) {
            // The peer closed its side entirely: there is nobody left to tell.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(Error::Link(errno.into()))),
        }
    }
}

/// The next message; `None` at the end.
fn receive(socket: &OwnedFd) -> Result<Option<Bytes>> {
    BUFFERS.with_borrow_mut(|Buffers { incoming, arena }| {
        incoming.resize(LARGEST_PACKET, 0);
        // With MSG_TRUNC the kernel tells the whole size, also of what it had to cut.
        let (_, size) = recv(socket, &mut incoming[..], RecvFlags::TRUNC).map_err(io::Error::from)?;
        if size > LARGEST_PACKET {
            return Err(Error::TooLong { size, limit: LARGEST_PACKET });
        }
        if size == 0 && is_at_end(socket)? {
            return Ok(None);
        }
        Ok(Some(arena.keep(&incoming[..size])))
    })
}

/// Nothing was received: is that an empty message, or the end? It is the end if the peer will send no more and there is
/// nothing behind. Empty messages right before the end cannot be told from it.
fn is_at_end(socket: &OwnedFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if !asked[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP) {
        return Ok(false);
    }
    match recv(socket, &mut [0; 1], RecvFlags::PEEK) {
        Ok((_, size)) => Ok(size == 0),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    use socket2::{Domain, Socket, Type};

    fn pair() -> (PacketStream, PacketStream) {
        let (one, other) = raw_pair();
        (PacketStream::new(one.into()).unwrap(), PacketStream::new(other.into()).unwrap())
    }

    fn raw_pair() -> (Socket, Socket) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        one.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    async fn send(stream: &mut PacketStream, message: &[u8]) {
        stream.start_send(&[message]).unwrap();
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    }

    async fn next(stream: &mut PacketStream) -> Result<Option<Bytes>> {
        poll_fn(|cx| stream.poll_recv(cx)).await
    }

    #[tokio::test]
    async fn messages_arrive_as_they_were_sent_and_then_the_end() {
        let (mut ours, mut theirs) = pair();
        let largest = vec![7; LARGEST_PACKET];
        for message in [&b"a"[..], b"", b"", b"bc", &largest, b"d"] {
            send(&mut ours, message).await;
            assert_eq!(next(&mut theirs).await.unwrap().unwrap(), message);
        }
        poll_fn(|cx| ours.poll_finish(cx)).await.unwrap();
        assert_eq!(next(&mut theirs).await.unwrap(), None);
        assert_eq!(next(&mut theirs).await.unwrap(), None);
        // The other direction is still open.
        send(&mut theirs, b"bye").await;
        assert_eq!(next(&mut ours).await.unwrap().unwrap(), "bye");
    }

    #[tokio::test]
    async fn an_empty_message_before_others_is_not_taken_for_the_end() {
        let (mut ours, mut theirs) = pair();
        for message in [&b""[..], b"x"] {
            send(&mut ours, message).await;
        }
        drop(ours);
        assert_eq!(next(&mut theirs).await.unwrap().unwrap(), "");
        assert_eq!(next(&mut theirs).await.unwrap().unwrap(), "x");
        assert_eq!(next(&mut theirs).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_at_either_end() {
        let (mut ours, _theirs) = pair();
        let long = vec![0; LARGEST_PACKET + 1];
        let refused = ours.start_send(&[&long]);
        assert!(matches!(refused, Err(Error::TooLong { limit: LARGEST_PACKET, .. })), "{refused:?}");
        assert_eq!(ours.buffered(), 0);

        let (sender, receiver) = raw_pair();
        super::super::Buffer::Send.resize(&sender, 1 << 20).unwrap();
        if let Err(error) = sender.send(&long) {
            eprintln!("left out: the kernel lets nobody send a message over the limit here ({error})");
            assert!(std::env::var_os("GREETD_REQUIRE_TOOLS").is_none(), "{error}");
            return;
        }
        let mut receiver = PacketStream::new(receiver.into()).unwrap();
        let cut = next(&mut receiver).await;
        assert!(matches!(cut, Err(Error::TooLong { size, .. }) if size == long.len()), "{cut:?}");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_waited_for() {
        let (mut ours, mut theirs) = pair();
        let messages: u32 = 2_000;
        for number in 0..messages {
            ours.start_send(&[&number.to_be_bytes(), &[0; 1020]]).unwrap();
        }
        let writer = tokio::spawn(async move {
            poll_fn(|cx| ours.poll_flush(cx)).await.unwrap();
            assert_eq!(ours.buffered(), 0);
        });
        for number in 0..messages {
            let message = next(&mut theirs).await.unwrap().unwrap();
            assert_eq!((&message[..4], message.len()), (&number.to_be_bytes()[..], 1024));
        }
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_left_is_an_error_and_no_signal() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        ours.start_send(&[b"x"]).unwrap();
        let error = poll_fn(|cx| ours.poll_flush(cx)).await.unwrap_err();
        assert!(error.is_disconnect(), "{error}");
    }
}
