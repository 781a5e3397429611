//! Sending to a peer from elsewhere: another task, another session, a timer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::WATERMARK;
use super::common::WireRef;
use crate::address::Address;
use crate::error::Error;
use crate::link::Peer;

/// Sends to one session's peer, unprompted. Cheap to clone; useless once the session is over.
///
/// Its queue is the session's own buffer and is bounded by [`WATERMARK`]: a peer that does not read fills it, and
/// whoever pushes decides what then happens.
#[derive(Clone)]
pub struct Pusher {
    wire: WireRef,
    remote: Address,
    local: Arc<Address>,
}

/// Why a message could not be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The peer has not taken what it was sent before.
    #[error("the peer reads too slowly: {WATERMARK} bytes wait already")]
    Full,
    /// The session is over.
    #[error("the session is closed")]
    Closed,
    /// The message cannot be sent on this link.
    #[error(transparent)]
    Unsendable(Error),
}

impl Pusher {
    pub(super) fn new(wire: &WireRef, peer: &Peer) -> Self {
        wire.lock_settled().let_push();
        Pusher { wire: wire.clone(), remote: peer.remote.clone(), local: peer.shared_local().clone() }
    }

    /// Sends one message, given in parts, or says at once why not.
    pub fn try_push(&self, parts: &[&[u8]]) -> Result<(), PushError> {
        let mut wire = self.wire.lock();
        if wire.is_closed() {
            return Err(PushError::Closed);
        }
        if wire.buffered() >= WATERMARK {
            return Err(PushError::Full);
        }
        wire.start_send(parts, &self.remote, &self.local, self.wire.framing()).map_err(|error| match error {
            Error::Closed => PushError::Closed,
            other => PushError::Unsendable(other),
        })?;
        wire.wake_driver();
        Ok(())
    }

    /// Sends one message, waiting while the peer has not taken what it was sent before.
    pub async fn push(&self, parts: &[&[u8]]) -> Result<(), PushError> {
        loop {
            match self.try_push(parts) {
                Err(PushError::Full) => self.ready().await,
                done => return done,
            }
        }
    }

    /// Waits until there is room for a message, or the session is over.
    pub async fn ready(&self) {
        poll_fn(|cx| {
            let mut wire = self.wire.lock();
            if wire.is_closed() || wire.buffered() < WATERMARK {
                return Poll::Ready(());
            }
            wire.wait_for_room(cx);
            // Where sessions share what waits for their socket, others may have filled it: this one's driver has to ask
            // to be told when there is room.
            wire.wake_driver();
            Poll::Pending
        })
        .await;
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.wire.lock().is_closed()
    }
}
