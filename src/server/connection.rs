//! One connection, from its opening to its close.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::timeout;
use tracing::Instrument;
use tracing::instrument::Instrumented;

use super::conversation::{Conversing, Ending, converse};
use super::listening::Listening;
use super::moment::Moment;
use super::permits::Permit;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::event::{CloseReason, Event, Refusal};
use crate::handler::Sessions;
use crate::limits::Limits;
use crate::session::{Session, WireRef};
use crate::transport::{Dialled, Incoming};

/// A connection that was accepted and may have a session.
pub(super) struct Arrival {
    pub(super) listening: Arc<Listening>,
    pub(super) incoming: Box<dyn Incoming>,
    pub(super) permit: Permit,
    /// That of the runtime that it is given to.
    pub(super) watchman: u32,
}

/// Opens the connection, runs the handler and closes. The permit is held until the end.
///
/// An idle connection is this future and little else. So what is rare (a layer's handshake, a peer that does not read,
/// a span) is boxed and makes no room for itself here; and what is done at once, as opening and closing nearly always
/// are, costs neither the box nor a timer.
///
/// It is no `async fn`, which would keep each argument twice, for as long as it runs.
pub(super) fn run(arrival: Arrival) -> impl Future<Output = ()> + Send {
    let Arrival { listening, incoming, permit, watchman } = arrival;
    async move {
        let begun = listening.hub.now();
        let Some(session) = begin(&listening, incoming).await else { return };
        let mut record = Record::begin(listening, session, begun, watchman);
        let ending = record.converse_in_span().await;
        let cut_short = record.close(ending.orderly).await;
        let listening = record.end(&cut_short.map_or(ending, Ending::cut));
        // The socket is closed before the permit goes: whoever takes it may need the descriptor.
        drop(permit);
        listening.hub.session_ended.notify_one();
    }
}

/// Opens the link and its layers. What fails here is counted and is no session.
async fn begin(listening: &Listening, incoming: Box<dyn Incoming>) -> Option<Session> {
    let remote = incoming.remote().clone();
    let mut opening = incoming.open();
    // What is opened at once is never kept while something is awaited: there would have to be room for it.
    let later: Pin<Box<dyn Future<Output = Opening> + Send + '_>> =
        match poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx))).await {
            Poll::Ready(Ok(dialled)) if listening.service.layers.is_empty() => {
                return Opening::from(listening.service.bare(dialled)).session(listening, &remote);
            }
            Poll::Ready(dialled) => Box::pin(open(listening, std::future::ready(dialled))),
            Poll::Pending => Box::pin(open(listening, opening)),
        };
    later.await.session(listening, &remote)
}

/// What became of a connection's link and layers.
enum Opening {
    Done(Session),
    Failed(Error),
    TookTooLong,
    Cut,
}

impl From<Result<Session>> for Opening {
    fn from(opened: Result<Session>) -> Self {
        opened.map_or_else(Opening::Failed, Opening::Done)
    }
}

impl Opening {
    /// The session; of one that is none it is told why.
    fn session(self, listening: &Listening, remote: &Address) -> Option<Session> {
        let (reason, error) = match self {
            Opening::Done(session) => return Some(session),
            Opening::Cut => {
                listening.count(CloseReason::Cut);
                return None;
            }
            Opening::Failed(error) => (Refusal::HandshakeFailed, Some(error)),
            Opening::TookTooLong => (Refusal::HandshakeTimeout, None),
        };
        let error = error.as_ref().map(|error: &Error| error as &dyn crate::event::ErrorText);
        listening.observe(&Event::ConnectionRefused { listener: &listening.name, remote, reason, error });
        None
    }
}

/// Opens link and layers under the handshake clock.
async fn open(listening: &Listening, link: impl Future<Output = io::Result<Dialled>>) -> Opening {
    let opening = async { listening.service.open(link.await?).await };
    match unless_cut(listening, within(listening.service.limits.handshake_timeout, opening)).await {
        Some(Some(opened)) => opened.into(),
        Some(None) => Opening::TookTooLong,
        None => Opening::Cut,
    }
}

/// Lets the peer take what is left, at its own speed, as long as it takes any of it within the write clock. Then it waits
/// for the peer to close as well, unless the server drains: who has nothing to say any more holds up nobody's end.
///
/// Says why the peer was not given all that it was owed, where it was not.
async fn close(listening: &Listening, session: &mut Session, begun: Moment) -> Option<CloseReason> {
    let limits = &listening.service.limits;
    let limit = limits.write_timeout;
    let written = unless_cut(listening, async {
        while within(limit, session.finish()).await.is_none() {
            if !session.wire().lock().take_progress() {
                return Some(CloseReason::WriteTimeout);
            }
            if limits.total_timeout.is_some_and(|total| listening.hub.now() >= begun.after(total)) {
                return Some(CloseReason::TotalTimeout);
            }
        }
        None
    });
    let cut_short = written.await.unwrap_or(Some(CloseReason::Cut));
    if cut_short.is_none() {
        // The reactor has a turn first: of a connection that was accepted just now it does not know yet what has come.
        tokio::task::yield_now().await;
        let wire = session.wire().clone();
        tokio::select! {
            // In this order what has come is read in any case: closing a socket with unread data resets the connection.
            biased;
            _ = within(limit, session.end()) => {}
            () = quiet_drain(listening, &wire) => {}
        }
    }
    cut_short
}

/// Until the server drains and nothing more comes: what the peer is sending just then is read, lest it destroys what the
/// peer has not read yet.
async fn quiet_drain(listening: &Listening, wire: &WireRef) {
    listening.hub.shutdown.draining().await;
    while wire.lock().take_look() {
        tokio::task::yield_now().await;
    }
}

/// What is done at once, as it is nearly always, needs no timer.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => timeout(limit, future).await.ok(),
    }
}

/// `None` at the drain's deadline.
async fn unless_cut<T>(listening: &Listening, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = listening.hub.shutdown.cutting() => None,
    }
}

/// A session, of whose beginning it tells and, whatever happens to its task, of its end.
pub(super) struct Record {
    listening: Arc<Listening>,
    session: Session,
    number: u64,
    begun: Moment,
    /// Whether its end was told.
    over: bool,
    /// Who keeps its clocks.
    watchman: u32,
}

impl Record {
    pub(super) fn begin(listening: Arc<Listening>, session: Session, begun: Moment, watchman: u32) -> Self {
        let number = listening.hub.session_number();
        let record = Record { number, listening, session, begun, over: false, watchman };
        record.listening.observe(&Event::SessionOpened {
            session: record.number,
            listener: &record.listening.name,
            remote: &record.session.peer().remote,
        });
        record
    }

    /// What the handler logs carries the session's number. Like the session's own events it is for debugging, and it
    /// costs nothing where that is not logged.
    pub(super) fn span(&self) -> tracing::Span {
        let (session, remote) = (self.number, tracing::field::display(&self.session.peer().remote));
        tracing::debug_span!(target: "greetd", "session", session, listener = self.listening.name, remote)
    }

    /// Runs the listener's handler over the session.
    fn converse(&mut self) -> Conversing<'_> {
        let Listening { service, hub, .. } = &*self.listening;
        let watchman = hub.shutdown.watchman(self.watchman);
        converse(&*service.handler, &mut self.session, &service.limits, watchman, self.begun)
    }

    /// The same under limits that are not the listener's.
    pub(super) fn converse_under<'a>(&'a mut self, limits: &'a Limits) -> Conversing<'a> {
        let Listening { service, hub, .. } = &*self.listening;
        let watchman = hub.shutdown.watchman(self.watchman);
        converse(&*service.handler, &mut self.session, limits, watchman, self.begun)
    }

    /// [`converse`](Self::converse), in the session's span where there is one; without it the span has no room here.
    pub(super) fn converse_in_span(&mut self) -> Either<Conversing<'_>, Pin<Box<Instrumented<Conversing<'_>>>>> {
        let span = self.span();
        if span.is_disabled() {
            Either::Left(self.converse())
        } else {
            Either::Right(Box::pin(self.converse().instrument(span)))
        }
    }

    /// The session, between conversations.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Closes the session; says why the peer was not given all that it was owed, where it was not.
    async fn close(&mut self, orderly: bool) -> Option<CloseReason> {
        let service = &self.listening.service;
        let closing_tells = service.layers.is_empty() && service.transport.closing_tells();
        let wire = self.session.wire();
        if !orderly || poll_fn(|cx| Poll::Ready(wire.lock().closes_at_once(closing_tells, cx))).await {
            return None;
        }
        Box::pin(close(&self.listening, &mut self.session, self.begun)).await
    }

    /// Closes the link, and tells of the end.
    pub(super) fn end(mut self, ending: &Ending) -> Arc<Listening> {
        self.session.wire().lock().close();
        self.tell(ending.reason, ending.error.as_deref());
        self.listening.clone()
    }

    fn tell(&mut self, reason: CloseReason, error: Option<&str>) {
        self.over = true;
        let lasted = self.listening.hub.now().since(self.begun);
        self.listening.count(reason);
        let totals = self.session.totals();
        self.listening.observe(&Event::SessionClosed {
            session: self.number,
            listener: &self.listening.name,
            remote: self.remote(),
            reason,
            error: error.as_ref().map(|error| error as &dyn crate::event::ErrorText),
            lasted,
            totals,
        });
    }

    /// Whom the session is with: nobody in particular, where it answers all peers of a socket.
    fn remote(&self) -> &Address {
        let peer = self.session.peer();
        let shared = !peer.connected() && self.listening.service.handler.sessions() == Sessions::Shared;
        if shared { &Address::Unnamed } else { &peer.remote }
    }
}

/// The task was dropped, or panicked outside the handler.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.over {
            let reason = if std::thread::panicking() { CloseReason::Panicked } else { CloseReason::Cut };
            self.tell(reason, None);
        }
    }
}
