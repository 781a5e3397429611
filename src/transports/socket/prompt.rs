//! A stream that writes before it asks the reactor whether there is room.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

/// There nearly always is room, so this one tries. Of a socket that was just accepted the reactor has not even heard:
/// tokio's stream would wait for a round of it, which is 1.6 system calls a connection; and for each later message it
/// would look up what the reactor last heard.
pub(super) struct PromptStream<S> {
    stream: S,
    /// There was no room; the reactor will say when there is.
    full: bool,
}

impl<S> PromptStream<S> {
    /// Wraps a stream that does not block.
    pub(super) fn new(stream: S) -> Self {
        PromptStream { stream, full: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PromptStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for PromptStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.full {
            // What goes round the reactor must still let other tasks have their turn.
            let turn = ready!(coop::poll_proceed(cx));
            match send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    turn.made_progress();
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.full = polled.is_pending();
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Read;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    fn pair() -> (PromptStream<UnixStream>, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (PromptStream::new(UnixStream::from_std(ours).unwrap()), theirs)
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
}
