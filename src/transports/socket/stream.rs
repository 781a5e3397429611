//! A connected socket as a stream of bytes: TCP, or a Unix stream.
//!
//! It writes before it asks whether there is room: there nearly always is. What it reads, it reads when its
//! [`Selector`] says that something came, or is given what that has read then. Of TCP, a read that did not fill its buffer
//! took all there was. A Unix stream also stops behind bytes that came with a descriptor, or from another process (unix(7),
//! `SCM_RIGHTS`): it is read until there is nothing.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::selector::Selector;
use super::slots::{Asks, Key, Says};

/// The most that one read brings into memory that nobody has initialised.
const READ_SIZE: usize = 64 * 1024;

thread_local! {
    static INCOMING: RefCell<Vec<MaybeUninit<u8>>> = const { RefCell::new(Vec::new()) };
}

/// See the module's documentation.
#[expect(clippy::struct_excessive_bools, reason = "independent states of one socket, each documented")]
pub(super) struct SocketStream {
    selector: Arc<Selector>,
    socket: Arc<OwnedFd>,
    key: Key,
    /// There may be more than the last read brought.
    more: bool,
    /// Whether a read may stop before the end of what there is.
    stops_short: bool,
    /// There was no room; the selector will say when there is.
    full: bool,
    /// Whether the selector looks for room.
    room_watched: bool,
}

impl SocketStream {
    /// Takes over a socket that is connected and does not block, within a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        SocketStream::watched(socket, false, false)
    }

    /// The same, of a socket whose reads may stop short.
    pub(super) fn whose_reads_stop_short(socket: OwnedFd) -> io::Result<Self> {
        SocketStream::watched(socket, true, false)
    }

    /// Connects a socket that does not block; connect(2).
    pub(super) async fn connect(socket: OwnedFd, remote: SocketAddr) -> io::Result<Self> {
        match rustix::net::connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Not before: of a socket that is not even connecting, epoll says that it is at its end.
        let stream = SocketStream::watched(socket, false, true)?;
        poll_fn(|cx| stream.selector.poll_writable(stream.key, cx)).await?;
        sockopt::socket_error(&stream.socket)??;
        Ok(stream)
    }

    fn watched(socket: OwnedFd, stops_short: bool, room_watched: bool) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let (selector, key) = Selector::watch(&socket, !stops_short, room_watched)?;
        Ok(SocketStream { selector, socket, key, more: false, stops_short, full: false, room_watched })
    }

    /// Tries to write until it was done or there is no room.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // What goes round tokio must still let other tasks have their turn.
        let turn = ready!(coop::poll_proceed(cx));
        loop {
            if self.full {
                ready!(self.selector.poll_writable(self.key, cx))?;
                self.full = false;
            }
            match send(&self.socket) {
                Ok(count) => {
                    turn.made_progress();
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.full = true;
                    if !self.room_watched {
                        self.selector.watch_for_room(self.key, &self.socket)?;
                        self.room_watched = true;
                    }
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl Drop for SocketStream {
    fn drop(&mut self) {
        if self.selector.forget(self.key) {
            // To the kernel all was read: it would take leave of a peer whom it should tell that some was not (RFC 2525, 2.17).
            let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
    }
}

impl AsFd for SocketStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsyncRead for SocketStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let turn = ready!(coop::poll_proceed(cx));
        let before = buffer.filled().len();
        let mut asks = if self.more { Asks::ReadsAnyway } else { Asks::First };
        loop {
            // What comes after this is told anew, so nothing that comes while it is read is missed.
            let says = ready!(self.selector.poll_readable(self.key, cx, asks, buffer))?;
            let (received, behind) = match says {
                Says::Readable { at_end } => (receive(&self.socket, buffer), at_end),
                Says::Given { more, behind } => (Ok(more), behind),
                Says::Failed(errno) => (Err(errno), false),
            };
            match received {
                Ok(filled) => {
                    let behind = behind && buffer.filled().len() > before;
                    self.more = filled || self.stops_short || behind;
                    if behind {
                        // Of what stands behind it nobody will tell again.
                        cx.waker().wake_by_ref();
                    } else if !self.more && matches!(says, Says::Readable { .. }) {
                        self.selector.let_wait(self.key);
                    }
                    turn.made_progress();
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => asks = Asks::ReadsAnyway,
                Err(Errno::AGAIN) => {
                    self.more = false;
                    asks = Asks::InVain;
                }
                Err(errno) => {
                    // What the selector had said may still be so.
                    self.more = true;
                    return Poll::Ready(Err(errno.into()));
                }
            }
        }
    }
}

/// Reads once; whether that filled what there was to be filled.
fn receive(socket: &OwnedFd, buffer: &mut ReadBuf<'_>) -> rustix::io::Result<bool> {
    if buffer.initialized().len() == buffer.capacity() {
        let room = buffer.initialize_unfilled();
        let size = room.len();
        let (count, _) = recv(socket, room, RecvFlags::empty())?;
        buffer.advance(count);
        return Ok(count == size);
    }
    // Safe code cannot let the kernel write into it, so that what is read is copied. To clear it first costs more: it is
    // large, and what comes is mostly small.
    INCOMING.with_borrow_mut(|incoming| {
        incoming.resize(READ_SIZE, MaybeUninit::uninit());
        let size = buffer.remaining().min(READ_SIZE);
        let ((read, _), _) = recv(socket, &mut incoming[..size], RecvFlags::empty())?;
        buffer.put_slice(read);
        Ok(read.len() == size)
    })
}

impl AsyncWrite for SocketStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| send(socket, bytes, SendFlags::NOSIGNAL))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The kernel has all that was written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.socket, Shutdown::Write).map_err(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::io::{IoSlice, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::pin::pin;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;

    fn pair() -> (SocketStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (SocketStream::new(ours.into()).unwrap(), theirs)
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// What one poll reads, with nobody to be woken.
    fn read_now(stream: &mut SocketStream, size: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut bytes = vec![0; size];
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        polled.map_ok(|()| buffer.filled().to_vec())
    }

    #[tokio::test]
    async fn a_write_leaves_without_a_round_of_the_reactor() {
        let (mut stream, mut peer) = pair();
        // Nothing was awaited since the stream joined the reactor, so that it cannot know of any room.
        let written = Pin::new(&mut stream).poll_write(&mut Context::from_waker(Waker::noop()), b"welcome");
        assert!(matches!(written, Poll::Ready(Ok(7))), "{written:?}");
        let mut greeting = [0; 7];
        peer.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"welcome");
    }

    #[tokio::test]
    async fn where_there_is_no_room_it_waits_for_some() {
        let (mut stream, mut peer) = pair();
        let full = vec![0; 1 << 20];
        let first = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &full)).await.unwrap();
        assert!(first < full.len());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        stream.write_all(&full[first..]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(reader.join().unwrap(), full.len());
    }

    #[tokio::test]
    async fn a_peer_that_left_is_an_error_and_no_signal() {
        let (mut stream, peer) = pair();
        drop(peer);
        let error = stream.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_write_that_waits_hears_that_its_peer_left() {
        let (mut stream, peer) = pair();
        let waiting = tokio::spawn(async move { stream.write_all(&vec![0; 1 << 20]).await });
        yield_now().await;
        drop(peer);
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn parts_are_written_together() {
        let (mut stream, mut peer) = pair();
        let parts = [IoSlice::new(b"wel"), IoSlice::new(b"come")];
        assert_eq!(stream.write_vectored(&parts).await.unwrap(), 7);
        let mut greeting = [0; 7];
        peer.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"welcome");
    }

    #[tokio::test]
    async fn the_end_that_comes_together_with_bytes_is_read_after_them() {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"bye").unwrap();
        drop(peer);
        let mut buffer = [0; 64];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 3);
        for _ in 0..2 {
            assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn what_stands_behind_urgent_data_is_read_too() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        send(&peer, b"one!", SendFlags::OOB).unwrap();
        peer.write_all(b"two").unwrap();
        let mut stream = SocketStream::new(ours.into()).unwrap();
        let mut read = Vec::new();
        while read.len() < 6 {
            let reading = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_buf(&mut read));
            assert!(reading.await.expect("a read stops at urgent data").unwrap() > 0);
        }
        assert_eq!(read, b"onetwo");
        assert!(read_now(&mut stream, 64).is_pending(), "all was read");
        peer.write_all(b"three").unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_peer_that_half_closed_is_still_written_to_and_waited_for() {
        let (mut stream, mut peer) = pair();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        let writing = tokio::spawn(async move { stream.write_all(&vec![0; 1 << 20]).await });
        yield_now().await;
        assert!(!writing.is_finished(), "it waits for room");
        let reader = std::thread::spawn(move || peer.read_to_end(&mut Vec::new()).unwrap());
        writing.await.unwrap().unwrap();
        assert_eq!(reader.join().unwrap(), 1 << 20);
    }

    #[tokio::test]
    async fn a_read_that_filled_its_buffer_is_followed_by_another_without_a_new_event() {
        let (mut stream, mut peer) = pair();
        peer.write_all(&[7; 100]).unwrap();
        yield_now().await;
        for size in [64, 36] {
            let read = read_now(&mut stream, 64);
            assert!(matches!(&read, Poll::Ready(Ok(bytes)) if bytes.len() == size), "{read:?}");
        }
        assert!(read_now(&mut stream, 64).is_pending(), "all was read");
        peer.write_all(&[7; 64]).unwrap();
        yield_now().await;
        assert!(matches!(read_now(&mut stream, 64), Poll::Ready(Ok(bytes)) if bytes.len() == 64));
        assert!(read_now(&mut stream, 64).is_pending(), "there was no more");
    }

    #[tokio::test]
    async fn memory_that_nobody_initialised_is_read_into_as_well() {
        let (mut stream, mut peer) = pair();
        let sent: Vec<u8> = (0..3 * READ_SIZE).map(|at| (at % 251) as u8).collect();
        let all = sent.clone();
        let writer = std::thread::spawn(move || peer.write_all(&all).unwrap());
        let mut read = Vec::with_capacity(2 * READ_SIZE);
        stream.read_to_end(&mut read).await.unwrap();
        writer.join().unwrap();
        assert!(read == sent);
    }

    /// What a drain owes to those who spoke before it rests on this.
    async fn knows_what_came_after_one_turn_of_the_reactor() {
        for _ in 0..100 {
            let (mut stream, mut peer) = pair();
            peer.write_all(b"hello").unwrap();
            assert!(read_now(&mut stream, 64).is_pending(), "it asks nobody by itself");
            yield_now().await;
            assert!(matches!(read_now(&mut stream, 64), Poll::Ready(Ok(_))));
        }
    }

    #[tokio::test]
    async fn what_came_is_known_when_the_reactor_had_its_turn() {
        knows_what_came_after_one_turn_of_the_reactor().await;
    }

    #[test]
    fn what_came_is_known_when_the_reactor_had_its_turn_on_a_worker_of_several_threads() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async { tokio::spawn(knows_what_came_after_one_turn_of_the_reactor()).await.unwrap() });
    }

    #[test]
    fn streams_move_between_the_threads_of_a_runtime_and_lose_nothing() {
        let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks = (0..50).map(|_| {
                let (one, other) = UnixStream::pair().unwrap();
                let [one, other] = [one, other].map(|end| {
                    end.set_nonblocking(true).unwrap();
                    SocketStream::new(end.into()).unwrap()
                });
                tokio::spawn(async move {
                    let [one, other] = [one, other].map(|mut end| {
                        tokio::spawn(async move {
                            let mut message = [0; 16];
                            for number in 0..500_u128 {
                                end.write_all(&number.to_be_bytes()).await.unwrap();
                                end.read_exact(&mut message).await.unwrap();
                                assert_eq!(u128::from_be_bytes(message), number);
                            }
                            end
                        })
                    });
                    let _both = (one.await.unwrap(), other.await.unwrap());
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn one_runtime_after_the_other_on_one_thread_hears_of_its_own_streams() {
        for _ in 0..3 {
            runtime().block_on(async {
                let (mut stream, mut peer) = pair();
                let reader = tokio::spawn(async move { stream.read(&mut [0; 64]).await.unwrap() });
                yield_now().await;
                peer.write_all(b"hello").unwrap();
                assert_eq!(reader.await.unwrap(), 5);
            });
        }
    }

    #[test]
    fn a_stream_whose_runtime_has_ended_fails_rather_than_to_wait_for_ever() {
        let (first, second) = (runtime(), runtime());
        let (mut stream, _peer) = first.block_on(async { pair() });
        let waiting = second.spawn(async move { stream.read(&mut [0; 64]).await });
        second.block_on(yield_now());
        assert!(!waiting.is_finished());
        drop(first);
        let error = second.block_on(waiting).unwrap().unwrap_err();
        assert!(error.to_string().contains("runtime"), "{error}");
        second.block_on(async {
            let (mut stream, mut peer) = pair();
            peer.write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 1);
        });
    }

    #[tokio::test]
    async fn a_copy_of_a_closed_descriptor_is_watched_anew() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let kept = ours.try_clone().unwrap();
        drop(SocketStream::new(ours.into()).unwrap());
        // It has the number that was closed just now, unless another test took it: then it is watched like any other.
        let mut again = SocketStream::new(kept.try_clone().unwrap().into()).unwrap();
        theirs.write_all(b"hello").unwrap();
        assert_eq!(again.read(&mut [0; 64]).await.unwrap(), 5);
    }

    #[test]
    fn a_first_socket_may_be_opened_when_the_budget_of_a_turn_is_used_up() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut cx = Context::from_waker(Waker::noop());
            while tokio::task::coop::has_budget_remaining() {
                let _ = pin!(tokio::task::consume_budget()).poll(&mut cx);
            }
            let (mut stream, mut peer) = pair();
            peer.write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 1);
        });
    }

    #[tokio::test]
    async fn what_stands_behind_bytes_that_came_with_a_descriptor_is_read_too() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = SocketStream::whose_reads_stop_short(ours.into()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [theirs.as_fd()];
        assert!(ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&theirs, &[IoSlice::new(b"one")], &mut ancillary, SendFlags::empty()).unwrap();
        (&theirs).write_all(b"two").unwrap();
        let mut read = Vec::new();
        while read.len() < 6 {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        assert_eq!(read, b"onetwo");
    }
}
