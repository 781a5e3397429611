//! Datagrams: a mailbox for everybody who can be sent one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use tokio::task::coop;
use tokio::time::Instant;

use super::network::Claim;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::faults::{Alarm, Fate, Fates, Line, Next};
use crate::framing;
use crate::link::{Capabilities, MessageStream};
use crate::transport::{DatagramSocket, Datagrams, Transmit};

/// The size in bytes of the largest datagram: that of UDP over IPv4.
const LARGEST: usize = match Capabilities::DATAGRAMS.largest {
    Some(largest) => largest,
    None => usize::MAX,
};

/// How many datagrams one call sends or receives at most; as many as the kernel groups (UDP_SEGMENT).
const BATCH: usize = 64;

/// What one end was sent and has not received yet.
#[derive(Clone)]
pub(super) struct Mailbox(Arc<Mutex<Mail>>);

struct Mail {
    line: Line<(Bytes, Address)>,
    capacity: usize,
    /// Its owner is gone.
    closed: bool,
    receiver: Option<Waker>,
}

/// Nobody has the mailbox any more.
struct Gone;

impl Mailbox {
    pub(super) fn new(capacity: usize) -> Self {
        Mailbox(Arc::new(Mutex::new(Mail { line: Line::default(), capacity, closed: false, receiver: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a datagram, which is lost where there is no room.
    fn deliver(&self, payload: Bytes, from: Address, fate: &Fate) -> std::result::Result<(), Gone> {
        let mut mail = self.lock();
        if mail.closed {
            return Err(Gone);
        }
        if mail.line.cost() < mail.capacity {
            let size = payload.len();
            mail.line.send(Instant::now(), (payload, from), size, fate);
            mail.receiver.take().into_iter().for_each(Waker::wake);
        }
        Ok(())
    }

    fn poll_take(&self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Poll<(Bytes, Address)> {
        let budget = ready!(coop::poll_proceed(cx));
        loop {
            let mut mail = self.lock();
            let due = match mail.line.receive(Instant::now()) {
                Next::Item(datagram) => {
                    budget.made_progress();
                    return Poll::Ready(datagram);
                }
                Next::At(at) => Some(at),
                Next::Nothing => None,
            };
            // Also while the alarm is set: what is sent later may arrive sooner.
            mail.receiver = Some(cx.waker().clone());
            drop(mail);
            match due {
                Some(at) => ready!(alarm.poll_at(cx, at)),
                None => return Poll::Pending,
            }
        }
    }
}

/// A bound socket.
pub(super) struct MemorySocket {
    claim: Claim,
    mailbox: Mailbox,
    alarm: Alarm,
}

impl MemorySocket {
    pub(super) fn new(claim: Claim, mailbox: Mailbox) -> Self {
        MemorySocket { claim, mailbox, alarm: Alarm::default() }
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        self.mailbox.lock().closed = true;
    }
}

impl DatagramSocket for MemorySocket {
    fn local(&self) -> Address {
        self.claim.name().address()
    }

    fn max_segments(&self) -> usize {
        BATCH
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<Datagrams>) -> Poll<io::Result<()>> {
        for received in 0..BATCH {
            match self.mailbox.poll_take(cx, &mut self.alarm) {
                Poll::Ready((payload, remote)) => {
                    into.push_back(Datagrams::one(payload, remote, self.local()));
                }
                Poll::Pending if received == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if transmit.payload.len().min(transmit.segment) > LARGEST {
            return Poll::Ready(Err(Errno::MSGSIZE.into()));
        }
        // To whoever is gone it is lost, as on any network.
        if let Some(caller) = self.claim.network().find_caller(transmit.remote) {
            let mut fates = caller.fates.lock().unwrap_or_else(PoisonError::into_inner);
            let mut send = |segment| {
                let _ = caller.mailbox.deliver(Bytes::copy_from_slice(segment), self.local(), &fates.draw());
            };
            if transmit.payload.is_empty() {
                send(b"");
            }
            transmit.payload.chunks(transmit.segment.max(1)).for_each(send);
        }
        Poll::Ready(Ok(transmit.payload.len()))
    }
}

/// Somebody who sends datagrams to that mailbox and receives the answers in its own.
pub(super) fn caller(to: Mailbox, fates: Fates, (claim, mailbox): (Claim, Mailbox)) -> impl MessageStream {
    MemoryCaller { to, fates, claim, mailbox, alarm: Alarm::default(), refused: false }
}

struct MemoryCaller {
    to: Mailbox,
    fates: Fates,
    claim: Claim,
    mailbox: Mailbox,
    alarm: Alarm,
    /// Nobody took what was sent, which the next call says, as ICMP would.
    refused: bool,
}

impl MemoryCaller {
    fn take_refusal(&mut self) -> Result<()> {
        if std::mem::take(&mut self.refused) { Err(io::Error::from(Errno::CONNREFUSED).into()) } else { Ok(()) }
    }
}

impl MessageStream for MemoryCaller {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.take_refusal()?;
        self.mailbox.poll_take(cx, &mut self.alarm).map(|(payload, _)| Ok(Some(payload)))
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.take_refusal()?;
        let size = framing::length(parts);
        if size > LARGEST {
            return Err(Error::TooLong { size, limit: LARGEST });
        }
        let mut payload = BytesMut::with_capacity(size);
        framing::append(parts, &mut payload);
        let from = self.claim.name().address();
        self.refused = self.to.deliver(payload.freeze(), from, &self.fates.draw()).is_err();
        Ok(())
    }

    /// Nothing: a datagram is on its way as soon as it is taken.
    fn buffered(&self) -> usize {
        0
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.take_refusal())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }
}
