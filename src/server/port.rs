//! A datagram socket with what stands between it and the handlers: the rules for responders, the answers that wait to
//! leave, the events.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::guard::{Answer, Decision, Guard, OwnListeners};
use super::listening::Listening;
use super::outbox::{Outbox, Unsent};
use crate::address::Address;
use crate::error::{Error, Result};
use crate::event::{ErrorText, Event, Loss};
use crate::framing;
use crate::session::SharedSocket;
use crate::transport::{DatagramSocket, Datagrams};

/// After so many receive errors in a row the loop pauses.
const ERRORS_IN_A_ROW: u32 = 64;
const ERROR_PAUSE: Duration = Duration::from_millis(5);

/// A socket with what stands between it and the handlers: the rules, the waiting answers, the events.
pub(super) struct Port {
    listening: Arc<Listening>,
    socket: Box<dyn DatagramSocket>,
    guard: Option<Guard>,
    inbox: VecDeque<Datagrams>,
    /// When the last batch came, where anybody asked: the clock is read at most once for all of it.
    arrived: Option<Instant>,
    pub(super) outbox: Outbox,
    largest: Option<usize>,
    /// How long an answer to the last datagram may be, where its source may be forged.
    reply_limit: Option<usize>,
    errors_in_a_row: u32,
    pause: Option<Pin<Box<Sleep>>>,
    ending: bool,
}

/// Which of some datagrams that came together may be answered. Where it is not all, what follows the first is looked at anew.
#[derive(PartialEq, Eq)]
enum Admitted {
    All,
    First,
    No,
}

impl Port {
    pub(super) fn new(
        listening: Arc<Listening>,
        socket: Box<dyn DatagramSocket>,
        own_listeners: Arc<OwnListeners>,
    ) -> Self {
        let service = &listening.service;
        let guard = service.handler.needs().responder.then(|| Guard::new(&service.limits, own_listeners));
        let outbox = Outbox::new(socket.max_segments());
        let largest = service.route.capabilities.largest;
        Port {
            listening,
            socket,
            guard,
            inbox: VecDeque::new(),
            arrived: None,
            outbox,
            largest,
            reply_limit: None,
            errors_in_a_row: 0,
            pause: None,
            ending: false,
        }
    }

    /// The next datagrams that may be answered: more than one only where there is no limit to their answers. What waits to
    /// leave is sent before the socket is asked again, so that one batch of requests is one batch of answers.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Datagrams> {
        loop {
            if let Some(datagrams) = self.next_received() {
                return Poll::Ready(datagrams);
            }
            ready!(self.poll_send_all(cx));
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let received = ready!(self.socket.poll_recv(cx, &mut self.inbox));
            self.arrived = None;
            match received {
                Ok(()) => self.errors_in_a_row = 0,
                Err(error) => self.note_receive_error(&error),
            }
        }
    }

    /// The next of those that were received with others and may be answered.
    pub(super) fn next_received(&mut self) -> Option<Datagrams> {
        while let Some(mut datagrams) = self.inbox.pop_front() {
            let admitted = self.admit(&datagrams);
            if admitted == Admitted::All {
                return Some(datagrams);
            }
            let first = if let Some(first) = datagrams.split_first() {
                self.inbox.push_front(datagrams);
                first
            } else {
                datagrams
            };
            if admitted == Admitted::First {
                return Some(first);
            }
        }
        None
    }

    fn admit(&mut self, datagrams: &Datagrams) -> Admitted {
        let remote = &datagrams.remote;
        let size = datagrams.payload.len().min(datagrams.segment);
        if datagrams.truncated || size > self.listening.service.limits.max_message {
            self.note_loss(remote, Loss::TooLong, None);
            return Admitted::No;
        }
        let Some(guard) = &mut self.guard else { return Admitted::All };
        match guard.admit(datagrams, || *self.arrived.get_or_insert_with(Instant::now)) {
            Decision::Answer(answer) => {
                self.reply_limit = answer.limit;
                if answer.over_rate {
                    self.note_ignored(remote, "rate-only-watched");
                }
                if answer == Answer::UNLIMITED { Admitted::All } else { Admitted::First }
            }
            Decision::Ignore(reason) => {
                self.note_ignored(remote, reason.label());
                Admitted::No
            }
        }
    }

    fn note_ignored(&self, remote: &Address, reason: &'static str) {
        let listener = &self.listening.name;
        self.listening.observe(&Event::DatagramIgnored { listener, remote, reason });
    }

    /// No error ends the loop; many in a row slow it down.
    fn note_receive_error(&mut self, error: &io::Error) {
        self.listening.observe(&Event::SocketFailed { listener: &self.listening.name, error });
        self.errors_in_a_row += 1;
        if self.errors_in_a_row >= ERRORS_IN_A_ROW {
            self.errors_in_a_row = 0;
            self.pause = Some(Box::pin(sleep(ERROR_PAUSE)));
        }
    }

    pub(super) fn note_loss(&self, remote: &Address, reason: Loss, error: Option<&io::Error>) {
        let error = error.map(|error| error as &dyn ErrorText);
        let listener = &self.listening.name;
        self.listening.observe(&Event::DatagramLost { listener, remote, reason, count: 1, error });
    }

    /// How long an answer to what [`poll_next`](Self::poll_next) gave last may be.
    pub(super) fn reply_limit(&self) -> Option<usize> {
        self.reply_limit
    }

    pub(super) fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let listening = &self.listening;
        self.outbox.poll_flush(cx, &mut *self.socket, |Unsent { remote, error }| {
            listening.observe(&Event::DatagramLost {
                listener: &listening.name,
                remote: &remote,
                reason: Loss::SendFailed,
                count: 1,
                error: Some(&error),
            });
        })
    }

    /// Takes an answer, unless it is longer than what is left of `limit`; then it is counted as lost.
    pub(super) fn answer(
        &mut self,
        parts: &[&[u8]],
        remote: &Address,
        local: &Address,
        limit: &mut Option<usize>,
    ) -> Result<()> {
        let size = framing::length(parts);
        if let Some(largest) = self.largest.filter(|largest| size > *largest) {
            return Err(Error::TooLong { size, limit: largest });
        }
        if let Some(left) = limit {
            let Some(still_left) = left.checked_sub(size) else {
                self.note_loss(remote, Loss::Amplification, None);
                return Ok(());
            };
            *left = still_left;
        }
        self.outbox.push(parts, remote, local);
        Ok(())
    }
}

impl SharedSocket for Port {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Datagrams>> {
        if self.ending && self.inbox.is_empty() {
            return Poll::Ready(None);
        }
        self.poll_next(cx).map(Some)
    }

    fn start_send(&mut self, parts: &[&[u8]], remote: &Address, local: &Address) -> Result<()> {
        let mut limit = self.reply_limit;
        let answered = self.answer(parts, remote, local, &mut limit);
        self.reply_limit = limit;
        answered
    }

    fn reply_limit(&self) -> Option<usize> {
        self.reply_limit
    }

    fn buffered(&self) -> usize {
        self.outbox.buffered()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_send_all(cx)
    }

    fn put_back(&mut self, datagrams: Datagrams) {
        self.inbox.push_front(datagrams);
    }

    fn end(&mut self) {
        self.ending = true;
    }
}
