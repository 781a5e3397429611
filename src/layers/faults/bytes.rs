//! A stream of bytes that a seed delays, cuts, joins and breaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Direction, reset};
use crate::faults::Next;
use crate::link::ByteStream;

/// The most that is read from the link at once: a piece.
const READ_SIZE: usize = 16 * 1024;

pub(super) struct FaultyBytes {
    /// Gone once the connection broke.
    inner: Option<Box<dyn ByteStream>>,
    incoming: Direction,
    outgoing: Direction,
    /// The link below will bring no more.
    ended: bool,
}

impl FaultyBytes {
    pub(super) fn new(inner: Box<dyn ByteStream>, incoming: Direction, outgoing: Direction) -> Self {
        FaultyBytes { inner: Some(inner), incoming, outgoing, ended: false }
    }

    /// Takes from the link what it has and what there is room for.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut memory = [0; READ_SIZE];
        while !self.ended && self.incoming.room() > 0 {
            let inner = self.inner.as_mut().ok_or_else(reset)?;
            let mut piece = ReadBuf::new(&mut memory);
            ready!(Pin::new(inner).poll_read(cx, &mut piece))?;
            match piece.filled() {
                [] => self.ended = true,
                bytes => self.incoming.take_piece(bytes)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes to the link what is due, until nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut self.outgoing;
        loop {
            match outgoing.line.peek(Instant::now()) {
                Next::Nothing => return Poll::Ready(Ok(())),
                Next::At(at) => ready!(outgoing.alarm.poll_at(cx, at)),
                Next::Item(bytes) => {
                    let inner = self.inner.as_mut().ok_or_else(reset)?;
                    match ready!(Pin::new(inner).poll_write(cx, bytes))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        count => outgoing.line.advance(count),
                    }
                }
            }
        }
    }

    /// From here on the connection is broken.
    fn broken<T>(&mut self, error: io::Error) -> Poll<io::Result<T>> {
        self.inner = None;
        Poll::Ready(Err(error))
    }
}

impl AsyncRead for FaultyBytes {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.inner.is_none() {
            return Poll::Ready(Err(reset()));
        }
        if let Poll::Ready(Err(error)) = this.poll_fill(cx) {
            return this.broken(error);
        }
        loop {
            match this.incoming.line.read(Instant::now(), into) {
                Next::Item(()) => return Poll::Ready(Ok(())),
                Next::At(at) => ready!(this.incoming.alarm.poll_at(cx, at)),
                Next::Nothing if this.ended => return Poll::Ready(Ok(())),
                Next::Nothing => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for FaultyBytes {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.inner.is_none() {
            return Poll::Ready(Err(reset()));
        }
        let drained = this.poll_drain(cx)?;
        let count = bytes.len().min(this.outgoing.room());
        if count == 0 {
            // Unless there was nothing to write, all that there is room for is under way, and its arrival wakes us.
            return drained.map(|()| Ok(0));
        }
        if let Err(error) = this.outgoing.take_piece(&bytes[..count]) {
            return this.broken(error);
        }
        // What is due at once need not wait for a flush.
        let _ = this.poll_drain(cx)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(this.inner.as_mut().ok_or_else(reset)?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(this.inner.as_mut().ok_or_else(reset)?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fates, Faults};
    use crate::layers::faults::CAPACITY;
    use crate::options::Options;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn pair(query: &str) -> (FaultyBytes, DuplexStream) {
        let faults: Faults = Options::parse(query).unwrap().read().unwrap();
        let (near, far) = duplex(1 << 20);
        let [incoming, outgoing] = [0, 1].map(|lane| Direction::new(Fates::new(&faults, lane)));
        (FaultyBytes::new(Box::new(near), incoming, outgoing), far)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_takes_its_time_in_both_directions() {
        let (mut near, mut far) = pair("delay=5s");
        let start = Instant::now();
        near.write_all(b"ping").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 5);
        let mut four = [0; 4];
        far.read_exact(&mut four).await.unwrap();
        far.write_all(b"pong").await.unwrap();
        near.read_exact(&mut four).await.unwrap();
        assert_eq!((&four, start.elapsed().as_secs()), (b"pong", 10));
    }

    #[tokio::test(start_paused = true)]
    async fn all_bytes_arrive_in_order_and_then_the_end_whatever_befalls_them() {
        for seed in 0..20 {
            let (mut near, mut far) = pair(&format!("seed={seed}&delay=1ms&jitter=9ms&split=0.5&coalesce=0.5"));
            let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
            let sending = async {
                for chunk in sent.chunks(7_001) {
                    near.write_all(chunk).await.unwrap();
                }
                near.shutdown().await.unwrap();
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let answering = async {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.unwrap();
                far.write_all(&received).await.unwrap();
                far.shutdown().await.unwrap();
                received
            };
            let (answer, received) = tokio::join!(sending, answering);
            assert!(received == sent && answer == sent, "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_while_too_much_is_under_way() {
        let (mut near, _far) = pair("delay=1s");
        let block = [0; 10_000];
        let mut written = 0;
        while tokio::time::timeout(Duration::from_millis(1), near.write_all(&block)).await.is_ok() {
            written += block.len();
        }
        assert!(written <= CAPACITY && written > CAPACITY / 2, "{written}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_is_a_reset_here_and_an_end_there() {
        let (mut near, mut far) = pair("reset=1");
        assert_eq!(near.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(near.flush().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_repeats_the_same_run() {
        async fn run(seed: u64) -> Vec<(Vec<u8>, Duration)> {
            let (mut near, mut far) = pair(&format!("seed={seed}&jitter=50ms&split=0.3&coalesce=0.3"));
            for n in 0..50 {
                far.write_all(&[n; 100]).await.unwrap();
            }
            drop(far);
            let (start, mut reads, mut memory) = (Instant::now(), Vec::new(), [0; 500]);
            while let count @ 1.. = near.read(&mut memory).await.unwrap() {
                reads.push((memory[..count].to_vec(), start.elapsed()));
            }
            reads
        }
        assert_eq!(run(1).await, run(1).await);
        assert_ne!(run(1).await, run(2).await);
    }
}
