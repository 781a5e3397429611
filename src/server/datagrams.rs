//! One datagram socket: the loop that the engine owns, for both kinds of sessions.
//!
//! - [`Sessions::Shared`]: one session answers all peers; when its handler returns, fails or panics it is begun anew.
//! - [`Sessions::PerPeer`]: a bounded table of peers (see [`peers`](super::peers)), all within this task.
//!
//! What comes in passes the rules for responders first, whatever kind the sessions are.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::Report;
use super::connection::Record;
use super::conversation::converse;
use super::guard::{Decision, Guard, OwnListeners};
use super::listening::Listening;
use super::outbox::{Outbox, Unsent};
use super::peers;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::event::{CloseReason, Event, Loss};
use crate::framing;
use crate::handler::Sessions;
use crate::link::Peer;
use crate::session::{Session, SharedSocket, WireLink};
use crate::transport::{Datagram, DatagramSocket};

/// After so many receive errors in a row the loop pauses.
const ERRORS_IN_A_ROW: u32 = 64;
const ERROR_PAUSE: Duration = Duration::from_millis(5);
/// A shared session that ends before it has received anything is begun anew after a pause that doubles to the last.
const FIRST_RESTART_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Serves the socket until the server drains.
pub(super) async fn run(
    listening: Arc<Listening>,
    socket: Box<dyn DatagramSocket>,
    own_listeners: Arc<OwnListeners>,
) -> Report {
    let worker = listening.hub.worker().cloned();
    let serve = async move {
        let port = Port::new(listening.clone(), socket, own_listeners);
        match listening.service.handler.sessions() {
            Sessions::Shared => serve_shared(&listening, port).await,
            Sessions::PerPeer => peers::serve(&listening, port).await,
        }
    };
    let Some(worker) = worker else { return serve.await };
    // Aborted with this task when the server is dropped.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn_on(serve, &worker);
    tasks.join_next().await.and_then(Result::ok).unwrap_or(Report { failed: true, ..Report::default() })
}

async fn serve_shared(listening: &Arc<Listening>, port: Port) -> Report {
    let hub = &listening.hub;
    let clockless = listening.service.limits.without_clocks();
    let route = listening.service.route.clone();
    let mut port: Box<dyn SharedSocket> = Box::new(port);
    let mut pause = FIRST_RESTART_PAUSE;
    loop {
        let opened = Instant::now();
        let nobody = Peer::new(listening.local.clone(), Address::Unnamed, route.clone());
        let mut session = Session::over(WireLink::Shared(port), nobody);
        let mut record = Record::begin(listening, &session, opened);
        let ending = tokio::select! {
            ending = converse(&*listening.service.handler, &mut session, &clockless, &hub.shutdown, opened) => ending,
            () = hub.shutdown.cutting() => {
                return Report { cut: 1, ..Report::default() };
            }
        };
        record.totals = session.wire().lock().totals();
        let received = record.totals.messages_in;
        let drained = ending.reason == CloseReason::Drained;
        record.end(&ending);
        let Some(WireLink::Shared(same)) = session.wire().lock().take_link() else {
            return Report { failed: true, ..Report::default() };
        };
        port = same;
        if drained || hub.shutdown.is_draining() {
            std::future::poll_fn(|cx| port.poll_flush(cx)).await;
            return Report { finished: 1, ..Report::default() };
        }
        if received > 0 {
            pause = FIRST_RESTART_PAUSE;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RESTART_PAUSE);
        }
    }
}

/// A socket with what stands between it and the handlers: the rules, the waiting answers, the events.
pub(super) struct Port {
    listening: Arc<Listening>,
    socket: Box<dyn DatagramSocket>,
    guard: Option<Guard>,
    inbox: VecDeque<Datagram>,
    pub(super) outbox: Outbox,
    largest: Option<usize>,
    /// How long an answer to the last datagram may be, where its source may be forged.
    reply_limit: Option<usize>,
    errors_in_a_row: u32,
    pause: Option<std::pin::Pin<Box<Sleep>>>,
    ending: bool,
}

impl Port {
    fn new(listening: Arc<Listening>, socket: Box<dyn DatagramSocket>, own_listeners: Arc<OwnListeners>) -> Self {
        let service = &listening.service;
        let guard = service.handler.needs().responder.then(|| Guard::new(&service.limits, own_listeners));
        let outbox = Outbox::new(socket.max_segments());
        let largest = service.route.capabilities.largest;
        Port {
            listening,
            socket,
            guard,
            inbox: VecDeque::new(),
            outbox,
            largest,
            reply_limit: None,
            errors_in_a_row: 0,
            pause: None,
            ending: false,
        }
    }

    /// The next datagram that may be answered. What waits to leave is sent before the socket is asked again, so that
    /// one batch of requests is one batch of answers.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Datagram> {
        loop {
            while let Some(datagram) = self.inbox.pop_front() {
                if self.admit(&datagram) {
                    return Poll::Ready(datagram);
                }
            }
            ready!(self.poll_send_all(cx));
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.socket.poll_recv(cx, &mut self.inbox)) {
                Ok(()) => self.errors_in_a_row = 0,
                Err(error) => self.note_receive_error(&error),
            }
        }
    }

    fn admit(&mut self, datagram: &Datagram) -> bool {
        let remote = &datagram.remote;
        if datagram.truncated || datagram.payload.len() > self.listening.service.limits.max_message {
            self.note_loss(remote, Loss::TooLong, None);
            return false;
        }
        let Some(guard) = &mut self.guard else { return true };
        match guard.admit(datagram, Instant::now()) {
            Decision::Answer(answer) => {
                self.reply_limit = answer.limit;
                if answer.over_rate {
                    self.note_ignored(remote, "rate-only-watched");
                }
                true
            }
            Decision::Ignore(reason) => {
                self.note_ignored(remote, reason.label());
                false
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
        let error = error.map(|error| error as &dyn crate::event::ErrorText);
        let listener = &self.listening.name;
        self.listening.observe(&Event::DatagramLost { listener, remote, reason, count: 1, error });
    }

    /// How long an answer to the datagram that [`poll_next`](Self::poll_next) gave last may be.
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
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Datagram>> {
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

    fn end(&mut self) {
        self.ending = true;
    }
}
