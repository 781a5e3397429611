//! Connections: two ends, and a line in each direction.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::Instant;

use super::LARGEST_MESSAGE;
use crate::error::{Error, Result};
use crate::faults::{Alarm, Fates, Line, Next};
use crate::framing;
use crate::link::{Link, MessageStream};

/// The two ends of a connection; the fates, and how many bytes may wait to be received, of what the first sends and of
/// what it is sent.
pub(super) fn pair(lanes: [(Fates, usize); 2]) -> (End, End) {
    let connection = Connection { lanes: lanes.map(|(fates, capacity)| Lane::new(fates, capacity)), broken: false };
    let shared = Arc::new(Mutex::new(connection));
    let end = |side| End { shared: shared.clone(), side, alarm: Alarm::default() };
    (end(0), end(1))
}

/// An end as a stream of bytes.
pub(super) fn bytes(end: End) -> Link {
    Link::Bytes(Box::new(Bytewise(end)))
}

/// An end as a stream of messages.
pub(super) fn messages(end: End) -> Link {
    Link::Messages(Box::new(Messagewise { end, outbox: VecDeque::new(), waiting: 0 }))
}

struct Connection {
    /// What each side sends.
    lanes: [Lane; 2],
    broken: bool,
}

struct Lane {
    line: Line<Bytes>,
    capacity: usize,
    fates: Fates,
    /// Its sender will send no more.
    ended: bool,
    /// Its receiver is gone.
    abandoned: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl Lane {
    fn new(fates: Fates, capacity: usize) -> Self {
        Lane { line: Line::default(), capacity, fates, ended: false, abandoned: false, receiver: None, sender: None }
    }

    fn wake_receiver(&mut self) {
        self.receiver.take().into_iter().for_each(Waker::wake);
    }

    fn wake_sender(&mut self) {
        self.sender.take().into_iter().for_each(Waker::wake);
    }
}

impl Connection {
    fn wake_all(&mut self) {
        for lane in &mut self.lanes {
            lane.wake_receiver();
            lane.wake_sender();
        }
    }
}

/// One end of a connection.
pub(super) struct End {
    shared: Arc<Mutex<Connection>>,
    side: usize,
    alarm: Alarm,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what arrives next; `None` at the end.
    fn poll_take<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Line<Bytes>) -> Next<T>,
    ) -> Poll<io::Result<Option<T>>> {
        let budget = ready!(coop::poll_proceed(cx));
        loop {
            let mut connection = self.lock();
            if connection.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let lane = &mut connection.lanes[1 - self.side];
            let due = match take(&mut lane.line) {
                Next::Item(item) => {
                    lane.wake_sender();
                    budget.made_progress();
                    return Poll::Ready(Ok(Some(item)));
                }
                Next::Nothing if lane.ended => return Poll::Ready(Ok(None)),
                Next::Nothing => None,
                Next::At(at) => Some(at),
            };
            // Also while the alarm is set: what is sent later may arrive sooner.
            lane.receiver = Some(cx.waker().clone());
            drop(connection);
            match due {
                Some(at) => ready!(self.alarm.poll_at(cx, at)),
                None => return Poll::Pending,
            }
        }
    }

    /// Puts something on the line once there is room; a break is an error for both ends.
    fn poll_put<T>(
        &mut self,
        cx: &mut Context<'_>,
        put: impl FnOnce(&mut Line<Bytes>, &mut Fates, usize) -> Option<T>,
    ) -> Poll<io::Result<T>> {
        let budget = ready!(coop::poll_proceed(cx));
        let mut connection = self.lock();
        if connection.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let lane = &mut connection.lanes[self.side];
        if lane.ended || lane.abandoned {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = lane.capacity.saturating_sub(lane.line.cost());
        if room == 0 {
            lane.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        budget.made_progress();
        let Some(done) = put(&mut lane.line, &mut lane.fates, room) else {
            connection.broken = true;
            connection.wake_all();
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        lane.wake_receiver();
        Poll::Ready(Ok(done))
    }

    /// Says that no more will be sent.
    fn end(&mut self) {
        let mut connection = self.lock();
        let lane = &mut connection.lanes[self.side];
        lane.ended = true;
        lane.wake_receiver();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut connection = self.lock();
        connection.lanes[self.side].ended = true;
        let incoming = &mut connection.lanes[1 - self.side];
        incoming.abandoned = true;
        // As TCP resets a connection whose unread bytes are dropped with it; RFC 1122, 4.2.2.13.
        connection.broken |= incoming.line.cost() > 0;
        connection.wake_all();
    }
}

struct Bytewise(End);

impl AsyncRead for Bytewise {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_take(cx, |line| line.read(Instant::now(), into)).map_ok(|_| ())
    }
}

impl AsyncWrite for Bytewise {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().0.poll_put(cx, |line, fates, room| {
            let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(room)]);
            let count = piece.len();
            line.write(Instant::now(), piece, fates).ok().map(|()| count)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.end();
        Poll::Ready(Ok(()))
    }
}

struct Messagewise {
    end: End,
    /// What was taken and is not on the line yet.
    outbox: VecDeque<Bytes>,
    waiting: usize,
}

/// What a message counts, so that empty ones do not wait without end either.
fn weight(message: &Bytes) -> usize {
    message.len() + 1
}

impl MessageStream for Messagewise {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.end.poll_take(cx, |line| line.receive(Instant::now())).map_err(Into::into)
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if size > LARGEST_MESSAGE {
            return Err(Error::TooLong { size, limit: LARGEST_MESSAGE });
        }
        let mut message = BytesMut::with_capacity(size);
        framing::append(parts, &mut message);
        let message = message.freeze();
        self.waiting += weight(&message);
        self.outbox.push_back(message);
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.waiting
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some(message) = self.outbox.front() {
            ready!(self.end.poll_put(cx, |line, fates, _| {
                let fate = fates.draw();
                line.send(Instant::now(), message.clone(), message.len(), &fate);
                (!fate.reset).then_some(())
            }))?;
            self.waiting -= weight(message);
            self.outbox.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.end.end();
        Poll::Ready(Ok(()))
    }
}
