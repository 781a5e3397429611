//! What a selector has read for those that wait, when it heard that something had come for them.
//!
//! A session reads cold: what its message passed on the way here has emptied the processor's caches. Read one after the other,
//! with hardly anything in between, messages share the way through the kernel.
//!
//! It is read as much at a time as a session would read by itself, so that nobody sees where something was read.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::ReadBuf;

/// How much one read brings at most.
const ROOM: usize = 64 * 1024;
/// How much a round reads before it leaves the rest to the sessions: they read into one and the same memory, which the
/// processor's caches hold.
const MUCH: usize = 64 * 1024;
/// For how many it is held at a time, those included that do not fetch it. While they hold all, the others read by themselves.
const MOST: u8 = 64;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Ahead {
    /// Room for each, in one piece once it is needed: so large a one has pages only where something was read into it.
    memory: Vec<u8>,
    all: Vec<Came>,
    vacant: Vec<u8>,
    /// How many bytes this round has left.
    left: usize,
}

/// What one read brought.
struct Came {
    read: rustix::io::Result<usize>,
    given: usize,
}

impl Ahead {
    pub(super) fn begin_round(&mut self) {
        self.left = MUCH;
    }

    /// Reads a socket; says where what came is. Nowhere, if nothing was read.
    #[inline]
    pub(super) fn read(&mut self, socket: &OwnedFd) -> Option<u8> {
        if self.left == 0 {
            return None;
        }
        let at = match self.vacant.last() {
            Some(at) => *at,
            None => self.grow()?,
        };
        let came = &mut self.all[usize::from(at)];
        let read = match recv(socket, &mut self.memory[usize::from(at) * ROOM..][..ROOM], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return None,
            read => read.map(|(count, _)| count),
        };
        self.left = self.left.saturating_sub(read.unwrap_or(0));
        (came.read, came.given) = (read, 0);
        self.vacant.pop();
        Some(at)
    }

    #[cold]
    fn grow(&mut self) -> Option<u8> {
        let at = u8::try_from(self.all.len()).ok().filter(|at| *at < MOST)?;
        if self.memory.is_empty() {
            // Not `resize`, which would write to every page.
            self.memory = vec![0; usize::from(MOST) * ROOM];
        }
        self.all.push(Came { read: Ok(0), given: 0 });
        self.vacant.push(at);
        Some(at)
    }

    /// Gives what came; it is not to be asked for once more unless it was [not all](Given::Part).
    #[inline]
    pub(super) fn give(&mut self, at: u8, buffer: &mut ReadBuf<'_>) -> rustix::io::Result<Given> {
        let came = &mut self.all[usize::from(at)];
        let bytes = &self.memory[usize::from(at) * ROOM..][..ROOM];
        if let Ok(count) = came.read
            && count - came.given > buffer.remaining()
        {
            let given = came.given;
            came.given += buffer.remaining();
            buffer.put_slice(&bytes[given..came.given]);
            return Ok(Given::Part);
        }
        self.vacant.push(at);
        let count = came.read?;
        buffer.put_slice(&bytes[came.given..count]);
        Ok(Given::All { filled: count == ROOM })
    }

    /// Nobody will fetch it; whether there were bytes in it.
    pub(super) fn forget(&mut self, at: u8) -> bool {
        self.vacant.push(at);
        self.all[usize::from(at)].read.is_ok_and(|count| count > 0)
    }
}

/// How much of what came was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Part,
    All {
        /// There was no room for more, which there may be.
        filled: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::mem;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use rustix::io::ioctl_fionread;
    use rustix::net::{SendFlags, send};
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::runtime::Builder;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    use super::super::stream::SocketStream;
    use crate::random::Random;

    /// How often somebody was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection of which one side reads, and counts how often it is woken.
    struct Reader {
        stream: SocketStream,
        peer: TcpStream,
        woken: Arc<Count>,
        waker: Waker,
    }

    impl Reader {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_nodelay(true).unwrap();
            let ours = listener.accept().unwrap().0;
            ours.set_nonblocking(true).unwrap();
            let woken = Arc::new(Count::default());
            let (stream, waker) = (SocketStream::new(ours.into()).unwrap(), Waker::from(woken.clone()));
            Reader { stream, peer, woken, waker }
        }

        /// One that waits.
        fn waiting() -> Self {
            let mut reader = Reader::new();
            assert!(reader.read(64).is_pending());
            reader
        }

        fn read(&mut self, size: usize) -> Poll<std::io::Result<Vec<u8>>> {
            let mut bytes = vec![0; size];
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(&self.waker), &mut buffer);
            polled.map_ok(|()| buffer.filled().to_vec())
        }

        #[track_caller]
        fn reads(&mut self, size: usize, expected: &[u8]) {
            match self.read(size) {
                Poll::Ready(Ok(bytes)) => assert_eq!(bytes, expected),
                other => panic!("{other:?} rather than {expected:?}"),
            }
        }

        /// Whether the kernel holds nothing for it.
        fn is_read(&self) -> bool {
            ioctl_fionread(self.stream.as_fd()).unwrap() == 0
        }
    }

    #[tokio::test]
    async fn who_waits_is_given_what_was_read_when_it_came_and_who_does_not_reads_by_itself() {
        let (mut waiting, mut busy) = (Reader::waiting(), Reader::new());
        for reader in [&mut waiting, &mut busy] {
            reader.peer.write_all(b"hello").unwrap();
        }
        yield_now().await;
        assert_eq!((waiting.is_read(), waiting.woken.get(), busy.is_read()), (true, 1, false));
        for reader in [&mut waiting, &mut busy] {
            reader.reads(64, b"hello");
            assert!(reader.read(64).is_pending());
        }
    }

    #[tokio::test]
    async fn a_small_buffer_is_given_a_part_and_the_rest_comes_next() {
        let mut reader = Reader::waiting();
        reader.peer.write_all(b"hello").unwrap();
        yield_now().await;
        reader.reads(2, b"he");
        reader.peer.write_all(b"!").unwrap();
        yield_now().await;
        reader.reads(2, b"ll");
        reader.reads(64, b"o");
        reader.reads(64, b"!");
        assert!(reader.read(64).is_pending());
    }

    #[tokio::test]
    async fn who_is_given_what_was_read_is_woken_once_more_for_what_has_come_behind_it() {
        let mut reader = Reader::waiting();
        for (index, part) in [&b"one"[..], b"two"].into_iter().enumerate() {
            reader.peer.write_all(part).unwrap();
            yield_now().await;
            assert_eq!(reader.woken.get(), index + 1);
        }
        // It may take what fills no buffer for all there is, and wait.
        reader.reads(64, b"one");
        assert_eq!(reader.woken.get(), 3);
        reader.reads(64, b"two");
    }

    #[tokio::test]
    async fn the_end_behind_what_was_read_is_told() {
        let mut reader = Reader::waiting();
        reader.peer.write_all(b"bye").unwrap();
        yield_now().await;
        reader.peer.shutdown(std::net::Shutdown::Write).unwrap();
        yield_now().await;
        let before = reader.woken.get();
        reader.reads(64, b"bye");
        assert_eq!(reader.woken.get(), before + 1);
        reader.reads(64, b"");
    }

    #[tokio::test]
    async fn who_was_given_all_there_was_is_read_for_again_without_asking() {
        let (mut waiting, mut busy) = (Reader::waiting(), Reader::new());
        for round in 0..3 {
            for reader in [&mut waiting, &mut busy] {
                reader.peer.write_all(b"hello").unwrap();
            }
            yield_now().await;
            // One that read all by itself waits from then on, too.
            assert_eq!((waiting.is_read(), busy.is_read()), (true, round > 0), "round {round}");
            for reader in [&mut waiting, &mut busy] {
                reader.reads(64, b"hello");
            }
        }
    }

    #[tokio::test]
    async fn a_round_reads_for_so_many_and_so_much_and_leaves_the_rest_to_the_readers() {
        let most = usize::from(MOST);
        for (size, count, expected) in [(5, 2 * most, most), (MUCH / 2, 4, 2)] {
            // With the budget of a new turn: without any nobody asks.
            yield_now().await;
            let mut readers: Vec<_> = (0..count).map(|_| Reader::waiting()).collect();
            for reader in &mut readers {
                reader.peer.write_all(&vec![7; size]).unwrap();
                while ioctl_fionread(reader.stream.as_fd()).unwrap() < size as u64 {}
            }
            yield_now().await;
            assert_eq!(readers.iter().filter(|reader| reader.is_read()).count(), expected);
            for reader in &mut readers {
                reader.reads(ROOM, &vec![7; size]);
            }
        }
    }

    #[test]
    fn a_read_that_had_no_room_for_more_says_so() {
        let (ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut ahead, ours) = (Ahead::default(), OwnedFd::from(ours));
        peer.write_all(&vec![7; ROOM + 100]).unwrap();
        for (size, filled) in [(ROOM, true), (100, false)] {
            ahead.begin_round();
            let at = ahead.read(&ours).unwrap();
            let mut bytes = vec![0; ROOM];
            let mut buffer = ReadBuf::new(&mut bytes);
            assert_eq!(ahead.give(at, &mut buffer), Ok(Given::All { filled }));
            assert_eq!(buffer.filled().len(), size);
        }
    }

    /// As the kernel has it, and the memory transport (RFC 2525, 2.17).
    #[tokio::test]
    async fn a_stream_that_is_dropped_with_bytes_that_nobody_fetched_is_reset() {
        for sent in [&b"hello"[..], b""] {
            let mut reader = Reader::waiting();
            reader.peer.write_all(sent).unwrap();
            yield_now().await;
            assert!(reader.is_read());
            let Reader { stream, mut peer, .. } = reader;
            drop(stream);
            let read = peer.read(&mut [0; 8]);
            match sent {
                b"" => assert_eq!(read.unwrap(), 0),
                _ => assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset),
            }
        }
    }

    #[tokio::test]
    async fn a_reset_behind_what_was_read_is_told_after_it() {
        let mut reader = Reader::waiting();
        reader.peer.write_all(b"hello").unwrap();
        yield_now().await;
        socket2::SockRef::from(&reader.peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(mem::replace(&mut reader.peer, Reader::new().peer));
        yield_now().await;
        reader.reads(64, b"hello");
        let error = match reader.read(64) {
            Poll::Ready(Err(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    /// A failure is told once, to whoever asks first: that is a writer's too.
    #[tokio::test]
    async fn a_reset_is_left_to_who_reads_or_writes() {
        let mut reader = Reader::waiting();
        socket2::SockRef::from(&reader.peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(mem::replace(&mut reader.peer, Reader::new().peer));
        yield_now().await;
        assert!(reader.woken.get() > 0);
        let mut cx = Context::from_waker(&reader.waker);
        match Pin::new(&mut reader.stream).poll_write(&mut cx, b"x") {
            Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_stands_behind_urgent_data_is_told_of() {
        let mut reader = Reader::waiting();
        send(&reader.peer, b"one!", SendFlags::OOB).unwrap();
        reader.peer.write_all(b"two").unwrap();
        yield_now().await;
        let before = reader.woken.get();
        reader.reads(64, b"one");
        assert!(reader.woken.get() > before);
        reader.reads(64, b"two");
        assert!(reader.read(64).is_pending());
    }

    #[tokio::test]
    async fn what_nobody_fetches_is_held_for_so_many_and_let_go_of_with_its_socket() {
        for _ in 0..3 {
            let mut readers: Vec<_> = (0..2 * usize::from(MOST)).map(|_| Reader::waiting()).collect();
            for reader in &mut readers {
                reader.peer.write_all(b"hello").unwrap();
                yield_now().await;
            }
            let read = readers.iter().filter(|reader| reader.is_read()).count();
            assert_eq!(read, usize::from(MOST));
            for reader in &mut readers {
                reader.reads(64, b"hello");
            }
            // And now without being fetched.
            for reader in &mut readers {
                assert!(reader.read(64).is_pending());
                reader.peer.write_all(b"again").unwrap();
                yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_failure_is_given_to_who_asks() {
        let mut ahead = Ahead::default();
        ahead.begin_round();
        let no_socket = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let at = ahead.read(&no_socket).unwrap();
        assert_eq!(ahead.give(at, &mut ReadBuf::new(&mut [0; 8])), Err(Errno::NOTSOCK));
        assert_eq!(ahead.read(&no_socket), Some(at), "its place is free again");
    }

    #[tokio::test]
    async fn where_nothing_can_be_read_nothing_is_held() {
        let mut ahead = Ahead::default();
        ahead.begin_round();
        let (ours, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        assert_eq!(ahead.read(&ours.into()), None);
        assert_eq!(ahead.vacant, [0]);
    }

    #[test]
    fn a_runtime_of_several_threads_reads_nothing_ahead() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let read = runtime.block_on(async {
            let task = tokio::spawn(async {
                let mut reader = Reader::waiting();
                reader.peer.write_all(b"hello").unwrap();
                while reader.woken.get() == 0 {
                    yield_now().await;
                }
                reader.is_read()
            });
            task.await.unwrap()
        });
        assert!(!read);
    }

    /// Whatever is written when, and read in what pieces: a reader that waits whenever a read did not fill its buffer, as a
    /// session does, misses nothing.
    #[tokio::test]
    async fn readers_that_take_a_short_read_for_all_there_is_get_all_bytes_in_order_and_the_end() {
        for seed in 1..400_u64 {
            let mut random = Random::new(seed);
            let mut roll = |sides| random.below(sides);
            let mut reader = Reader::new();
            reader.peer.set_nonblocking(true).unwrap();
            let most = if roll(4) == 0 { 4 * ROOM } else { 5000 };
            let all: Vec<u8> = (0..roll(most)).map(|at| (at % 251) as u8).collect();
            let (mut left, mut ended, mut received) = (&all[..], false, Vec::new());
            // How often it was woken when it last ran; it runs first of all.
            let (mut seen, mut first) = (0, true);
            for step in 0.. {
                assert!(step < 100_000, "seed {seed}: {} of {} came", received.len(), all.len());
                if roll(3) == 0 {
                    let size = if roll(4) == 0 { roll(most) } else { roll(40) };
                    // What there is no room for comes later.
                    left = &left[reader.peer.write(&left[..size.min(left.len())]).unwrap_or(0)..];
                }
                if left.is_empty() && !ended && roll(3) == 0 {
                    reader.peer.shutdown(std::net::Shutdown::Write).unwrap();
                    ended = true;
                }
                if roll(2) == 0 {
                    yield_now().await;
                }
                if !(first || reader.woken.get() > seen) || roll(3) == 0 {
                    continue;
                }
                (seen, first) = (reader.woken.get(), false);
                let size = if roll(2) == 0 { 2 * ROOM } else { roll(most / 50) + 1 };
                let is_over = loop {
                    match reader.read(size) {
                        Poll::Pending => break false,
                        Poll::Ready(Ok(bytes)) if bytes.is_empty() => break true,
                        Poll::Ready(Ok(bytes)) => {
                            received.extend_from_slice(&bytes);
                            if bytes.len() < size {
                                break false;
                            }
                        }
                        Poll::Ready(Err(error)) => panic!("seed {seed}: {error}"),
                    }
                };
                if is_over {
                    break;
                }
            }
            assert!(received == all, "seed {seed}");
        }
    }

    /// Reads a stream to its end, a short read at a time, as who waits to be told of more.
    async fn read_to_the_end(mut stream: SocketStream, size: usize) -> Vec<u8> {
        let woken = Arc::new(Notified::default());
        let waker = Waker::from(woken.clone());
        let (mut all, mut bytes) = (Vec::new(), vec![0; size]);
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return all,
                Poll::Ready(Ok(())) => all.extend_from_slice(buffer.filled()),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => {}
            }
            if buffer.filled().len() < size {
                let waits = tokio::time::timeout(Duration::from_secs(20), woken.0.notified());
                waits.await.expect("it was not told of more");
            }
        }
    }

    #[derive(Default)]
    struct Notified(Notify);

    impl Wake for Notified {
        fn wake(self: Arc<Self>) {
            self.0.notify_one();
        }
    }

    #[test]
    fn a_stream_that_is_read_on_another_thread_than_its_runtime_s_gives_all_bytes_in_order() {
        let (streams, taken) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let home = std::thread::spawn(move || {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                for _ in 0..30 {
                    let Reader { stream, peer, .. } = Reader::new();
                    streams.send((stream, peer)).unwrap();
                }
                drop(streams);
                let _ = stopped.await;
            });
        });
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let both: Vec<_> = taken
            .iter()
            .enumerate()
            .map(|(index, (stream, mut peer))| {
                let reader = runtime.spawn(read_to_the_end(stream, if index % 2 == 0 { 8192 } else { 100 }));
                let writer = std::thread::spawn(move || {
                    let mut all = Vec::new();
                    for number in 0..2000 {
                        let piece: Vec<u8> = (0..=(number * 7 + index) % 61).map(|at| (at + number) as u8).collect();
                        peer.write_all(&piece).unwrap();
                        all.extend_from_slice(&piece);
                    }
                    all
                });
                (reader, writer)
            })
            .collect();
        for (reader, writer) in both {
            let written = writer.join().unwrap();
            assert!(runtime.block_on(reader).unwrap() == written);
        }
        let _ = stop.send(());
        home.join().unwrap();
    }
}
