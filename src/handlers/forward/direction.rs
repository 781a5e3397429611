//! One direction of a relay.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::session::{Receiving, Sending};

/// What comes from one side goes to the other, a step at a time.
pub(super) struct Direction<'a> {
    from: Receiving<'a>,
    to: Sending<'a>,
    /// Received, and not yet taken by the other side.
    held: Option<Bytes>,
    /// How long the other side may take nothing.
    patience: Duration,
    /// Whether what cannot be sent is an error rather than a loss.
    reliable: bool,
    ended: bool,
}

impl<'a> Direction<'a> {
    pub(super) fn new(from: Receiving<'a>, to: Sending<'a>, patience: Duration, reliable: bool) -> Self {
        Direction { from, to, held: None, patience, reliable, ended: false }
    }

    /// Whether the one side will send no more, and the other one was told.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Relays one message, or the end. Cancel-safe: what was received is held until it is sent.
    pub(super) async fn step(&mut self) -> Result<()> {
        if self.held.is_none() {
            self.held = self.receive().await?;
        }
        let sending = async {
            match &self.held {
                Some(message) => self.to.send(message).await,
                None => self.to.finish().await,
            }
        };
        let sent = timeout(self.patience, sending).await.unwrap_or_else(|_| {
            Err(Error::handler(format!("the target took nothing of what it was sent for {:?}", self.patience)))
        });
        match sent {
            // A datagram that is too long for the other side is lost alone, as on any link that it does not fit.
            Err(Error::TooLong { .. }) if !self.reliable => {}
            sent => sent?,
        }
        self.ended = self.held.take().is_none();
        // Links that never wait must not keep the other direction, or other sessions, from their turn.
        tokio::task::consume_budget().await;
        Ok(())
    }

    /// The next message. While none comes, what was sent before is written: nobody else may be waiting on that side.
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        tokio::select! {
            biased;
            message = self.from.recv() => message,
            flushed = self.to.flush() => {
                flushed?;
                self.from.recv().await
            }
        }
    }
}
