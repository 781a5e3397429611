//! Descriptors of any kind as the two ends of a stream of bytes.
//!
//! `O_NONBLOCK` belongs to the open file, which other processes share: the shell that started this one would find its
//! own terminal changed. So a terminal or a pipe is opened once more, through /proc/self/fd, which makes an open file
//! of our own. What cannot be waited for (a regular file, /dev/null) or cannot be opened again (the terminal of another
//! user) is read and written by a thread that may block. A socket cannot be opened again: its `O_NONBLOCK` is set.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::link::ByteStream;

/// A stream that reads from one descriptor and writes to another. It must be called within a tokio runtime.
pub(super) fn stream(input: OwnedFd, output: OwnedFd) -> io::Result<Box<dyn ByteStream>> {
    let reader: Box<dyn AsyncRead + Send + Unpin> = match Source::of(input, OpenOptions::new().read(true))? {
        Source::Socket(socket) => Box::new(socket),
        Source::Pollable(file) => Box::new(Receiver::from_file_unchecked(file)?),
        Source::Blocking(file) => Box::new(file),
    };
    let writer: Box<dyn AsyncWrite + Send + Unpin> = match Source::of(output, OpenOptions::new().write(true))? {
        Source::Socket(socket) => Box::new(socket),
        Source::Pollable(file) => Box::new(Sender::from_file_unchecked(file)?),
        Source::Blocking(file) => Box::new(file),
    };
    Ok(Box::new(tokio::io::join(reader, Output(Some(writer)))))
}

/// How a descriptor is waited for.
enum Source {
    /// Any stream socket: reading and writing are the same for all families.
    Socket(tokio::net::UnixStream),
    /// A pipe or a terminal, as an open file of our own that does not block.
    Pollable(File),
    Blocking(tokio::fs::File),
}

impl Source {
    fn of(descriptor: OwnedFd, access: &mut OpenOptions) -> io::Result<Self> {
        let file = File::from(descriptor);
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            let socket = UnixStream::from(OwnedFd::from(file));
            socket.set_nonblocking(true)?;
            return Ok(Source::Socket(tokio::net::UnixStream::from_std(socket)?));
        }
        if kind.is_fifo() || file.is_terminal() {
            access.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
            if let Ok(again) = access.open(format!("/proc/self/fd/{}", file.as_raw_fd())) {
                return Ok(Source::Pollable(again));
            }
        }
        Ok(Source::Blocking(tokio::fs::File::from_std(file)))
    }
}

/// The end to write to. Half-closing it closes it: a pipe has no other way to say that no more will come.
struct Output(Option<Box<dyn AsyncWrite + Send + Unpin>>);

impl AsyncWrite for Output {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(end) => Pin::new(end).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(end) => Pin::new(end).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.0 {
            ready!(Pin::new(end).poll_shutdown(cx))?;
            self.0 = None;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, PipeWriter, Read, Seek, Write};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn is_nonblocking(descriptor: impl std::os::fd::AsFd) -> bool {
        nix::fcntl::fcntl(descriptor, nix::fcntl::F_GETFL)
            .is_ok_and(|flags| OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK))
    }

    /// A stream over two pipes, and the peer's ends of them.
    fn over_pipes() -> (Box<dyn ByteStream>, PipeWriter, PipeReader) {
        let (input, to_stream) = std::io::pipe().unwrap();
        let (from_stream, output) = std::io::pipe().unwrap();
        (stream(input.into(), output.into()).unwrap(), to_stream, from_stream)
    }

    #[tokio::test]
    async fn pipes_carry_bytes_both_ways_and_their_end() {
        let (mut stream, mut to_stream, mut from_stream) = over_pipes();
        to_stream.write_all(b"Genji").unwrap();
        drop(to_stream);
        let mut name = String::new();
        stream.read_to_string(&mut name).await.unwrap();
        stream.write_all(format!("Hello {name}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut reply = String::new();
        from_stream.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "Hello Genji");
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_pipe_and_a_terminal_keep_blocking_for_those_who_share_them() {
        let (input, mut to_stream) = std::io::pipe().unwrap();
        let terminal = nix::pty::openpty(None, None).unwrap();
        let (shared_pipe, shared_terminal) = (input.try_clone().unwrap(), terminal.slave.try_clone().unwrap());
        let mut stream = stream(input.into(), terminal.slave).unwrap();

        to_stream.write_all(b"x").unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        stream.write_all(b"y").await.unwrap();
        let mut seen = [0];
        File::from(terminal.master).read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"y");
        assert!(!is_nonblocking(&shared_pipe));
        assert!(!is_nonblocking(&shared_terminal));
    }

    #[tokio::test]
    async fn a_terminal_is_read_as_lines_are_typed() {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut typist = File::from(terminal.master);
        let output = tempfile::tempfile().unwrap();
        let mut stream = stream(terminal.slave, output.into()).unwrap();
        for line in ["one\n", "two\n"] {
            typist.write_all(line.as_bytes()).unwrap();
            let mut read = [0; 16];
            let length = stream.read(&mut read).await.unwrap();
            assert_eq!(&read[..length], line.as_bytes());
        }
    }

    #[tokio::test]
    async fn regular_files_are_read_to_their_end_and_written_in_order() {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(b"from a file").unwrap();
        input.rewind().unwrap();
        let mut written = tempfile::tempfile().unwrap();
        let mut stream = stream(input.into(), written.try_clone().unwrap().into()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        for part in [text.as_str(), " to", " a file"] {
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        written.rewind().unwrap();
        let mut text = String::new();
        written.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from a file to a file");
    }

    #[tokio::test]
    async fn a_reader_that_left_is_an_error() {
        let (mut stream, _to_stream, from_stream) = over_pipes();
        drop(from_stream);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
