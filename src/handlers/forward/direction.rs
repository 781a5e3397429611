//! One direction of a relay.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};
use crate::session::{Receiving, Sending};

/// What comes from one side goes to the other, a step at a time.
pub(super) struct Direction<'a> {
    from: Receiving<'a>,
    to: Sending<'a>,
    /// Received, and not yet taken by the other side.
    held: Option<Bytes>,
    /// How long the other side may take nothing; none where somebody else has a clock for that.
    patience: Option<Duration>,
    /// Since when it has taken nothing. A step may be begun many times over before it is done.
    waiting_since: Option<Instant>,
    /// Whether what cannot be sent is an error rather than a loss.
    reliable: bool,
    ended: bool,
}

impl<'a> Direction<'a> {
    pub(super) fn new(from: Receiving<'a>, to: Sending<'a>, patience: Option<Duration>, reliable: bool) -> Self {
        Direction { from, to, held: None, patience, waiting_since: None, reliable, ended: false }
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
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            waited = out_of_patience(&mut self.waiting_since, self.patience) => {
                Err(Error::handler(format!("the target took nothing of what it was sent for {waited:?}")))
            }
        };
        match sent {
            // A datagram that is too long for the other side is lost alone, as on any link that it does not fit.
            Err(Error::TooLong { .. }) if !self.reliable => {}
            sent => sent?,
        }
        self.ended = self.held.take().is_none();
        self.waiting_since = None;
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

/// Looks at the clock only once there is something to wait for.
async fn out_of_patience(waiting_since: &mut Option<Instant>, patience: Option<Duration>) -> Duration {
    let Some(patience) = patience else { return std::future::pending().await };
    let since = *waiting_since.get_or_insert_with(Instant::now);
    sleep_until(since + patience).await;
    patience
}
