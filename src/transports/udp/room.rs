//! [`Room`]: waiting until a socket's send buffer takes more.
//!
//! Nearly always it does, and then nothing should wait for that. A socket that is registered for writing makes the
//! kernel tell, for each datagram that has left, that there is room; the reactor then wakes for nothing after each
//! batch of answers. So the socket itself is registered for reading alone, and a second descriptor of it for writing,
//! for as long as there is no room.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::poll_proceed;

use crate::transports::socket::register;

/// Sends on one socket, and waits for room where there is none.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Tells when there is room, while there is none.
    awaited: Option<AsyncFd<OwnedFd>>,
}

impl Room {
    /// Makes a call that sends on the socket, and makes it again when there is room, as long as there is none.
    pub(super) fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &OwnedFd,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if let Some(awaited) = &self.awaited {
                ready!(awaited.poll_write_ready(cx))?.retain_ready();
                self.awaited = None;
            }
            let turn = ready!(poll_proceed(cx));
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.awaited = Some(register(socket.try_clone()?, Interest::WRITABLE)?);
                }
                done => {
                    turn.made_progress();
                    return Poll::Ready(done);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A socket whose buffer is full, and its other end. It stands for a UDP socket, whose buffer is full only before a
    /// slow device.
    fn full() -> (UnixStream, UnixStream) {
        let (mut socket, other_end) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        other_end.set_nonblocking(true).unwrap();
        while socket.write(&[0; 1024]).is_ok() {}
        (socket, other_end)
    }

    fn drain(other_end: &mut UnixStream) {
        while other_end.read(&mut [0; 4096]).is_ok() {}
    }

    #[tokio::test]
    async fn what_finds_no_room_is_sent_when_there_is_some() {
        let (mut socket, mut other_end) = full();
        let descriptor = OwnedFd::from(socket.try_clone().unwrap());
        let mut room = Room::default();
        // Twice, because nothing may be left of the first wait.
        for _ in 0..2 {
            let mut calls = 0;
            let mut waited = false;
            let sent = poll_fn(|cx| {
                let polled = room.poll_send(cx, &descriptor, || {
                    calls += 1;
                    socket.write(b"x")
                });
                if polled.is_pending() && !std::mem::replace(&mut waited, true) {
                    drain(&mut other_end);
                }
                polled
            });
            assert_eq!(sent.await.unwrap(), 1);
            assert_eq!((calls, waited), (2, true));
            assert!(room.awaited.is_none(), "room is no longer waited for");
            while socket.write(&[0; 1024]).is_ok() {}
        }
    }

    #[tokio::test]
    async fn an_error_is_handed_on() {
        let (socket, _other_end) = full();
        let descriptor = OwnedFd::from(socket);
        let mut room = Room::default();
        let refused = || Err::<(), _>(io::ErrorKind::ConnectionRefused.into());
        let error = poll_fn(|cx| room.poll_send(cx, &descriptor, refused)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
