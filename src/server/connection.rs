//! One connection, from its opening to its close, in a task of its own.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::conversation::{Ending, converse};
use super::listening::Listening;
use super::permits::Permit;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::event::{CloseReason, Event, Refusal, Totals};
use crate::session::Session;
use crate::transport::{Dialled, Incoming};

/// Opens the connection, runs the handler and closes. The permit is held until the end.
///
/// An idle connection is this future and little else. So what is rare (a layer's handshake, a peer that does not read,
/// a span) is boxed and makes no room for itself here; and what is done at once, as opening and closing nearly always
/// are, costs neither the box nor a timer.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep each argument twice, for as long as it runs")]
pub(super) fn run(
    listening: Arc<Listening>,
    incoming: Box<dyn Incoming>,
    permit: Permit,
) -> impl Future<Output = ()> + Send {
    async move {
        let begun = Instant::now();
        let session = {
            let remote = incoming.remote().clone();
            let mut opening = incoming.open();
            let at_once = poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx))).await;
            let opened = match at_once {
                Poll::Ready(Ok(dialled)) if listening.service.layers.is_empty() => {
                    listening.service.bare(dialled).into()
                }
                Poll::Ready(dialled) => Box::pin(open(&listening, async { dialled })).await,
                Poll::Pending => Box::pin(open(&listening, opening)).await,
            };
            match opened {
                Opening::Done(session) => session,
                failed => return failed.tell(&listening, &remote),
            }
        };
        let mut session = session;
        let record = Record::begin(&listening, &session, begun);
        let span = record.span();
        let ending = if span.is_disabled() {
            record.converse(&mut session).await
        } else {
            Box::pin(record.converse(&mut session).instrument(span)).await
        };
        let totals = session.wire().lock().totals();
        let closes_at_once =
            !ending.orderly || poll_fn(|cx| Poll::Ready(session.wire().lock().closes_at_once(cx))).await;
        // The socket is closed before the permit goes: whoever takes it may need the descriptor.
        let cut_short = if closes_at_once {
            drop(session);
            None
        } else {
            Box::pin(close(&listening, session, begun)).await
        };
        record.end(&cut_short.map_or(ending, Ending::cut), totals);
        drop(permit);
        listening.hub.session_ended.notify_one();
    }
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
    /// What fails here is counted and is no session.
    fn tell(self, listening: &Listening, remote: &Address) {
        let (reason, error) = match self {
            Opening::Done(_) => return,
            Opening::Cut => return listening.count(CloseReason::Cut),
            Opening::Failed(error) => (Refusal::HandshakeFailed, Some(error)),
            Opening::TookTooLong => (Refusal::HandshakeTimeout, None),
        };
        let error = error.as_ref().map(|error: &Error| error as &dyn crate::event::ErrorText);
        listening.observe(&Event::ConnectionRefused { listener: &listening.name, remote, reason, error });
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
async fn close(listening: &Listening, mut session: Session, begun: Instant) -> Option<CloseReason> {
    let limits = &listening.service.limits;
    let limit = limits.write_timeout;
    let written = unless_cut(listening, async {
        while within(limit, session.finish()).await.is_none() {
            if !session.wire().lock().take_progress() {
                return Some(CloseReason::WriteTimeout);
            }
            if limits.total_timeout.is_some_and(|total| begun.elapsed() >= total) {
                return Some(CloseReason::TotalTimeout);
            }
        }
        None
    });
    let cut_short = written.await.unwrap_or(Some(CloseReason::Cut));
    if cut_short.is_none() {
        // The reactor has a turn first: of a connection that was accepted just now it does not know yet what has come.
        tokio::task::yield_now().await;
        tokio::select! {
            // In this order what has come is read in any case: closing a socket with unread data resets the connection.
            biased;
            _ = within(limit, session.close()) => {}
            () = listening.hub.shutdown.draining() => {}
        }
    }
    cut_short
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

/// Tells of a session's beginning and, whatever happens to its task, of its end.
pub(super) struct Record {
    listening: Arc<Listening>,
    session: u64,
    remote: Address,
    opened: Instant,
    ended: bool,
}

impl Record {
    pub(super) fn begin(listening: &Arc<Listening>, session: &Session, opened: Instant) -> Self {
        let record = Record {
            listening: listening.clone(),
            session: listening.hub.session_number(),
            remote: session.peer().remote.clone(),
            opened,
            ended: false,
        };
        listening.observe(&Event::SessionOpened {
            session: record.session,
            listener: &listening.name,
            remote: &record.remote,
        });
        record
    }

    /// What the handler logs carries the session's number. Like the session's own events it is for debugging, and it
    /// costs nothing where that is not logged.
    pub(super) fn span(&self) -> tracing::Span {
        let (session, remote) = (self.session, tracing::field::display(&self.remote));
        tracing::debug_span!(target: "greetd", "session", session, listener = self.listening.name, remote)
    }

    /// The session's number.
    pub(super) fn number(&self) -> u64 {
        self.session
    }

    /// Runs the listener's handler over the session.
    pub(super) fn converse<'a>(&'a self, session: &'a mut Session) -> impl Future<Output = Ending> + Send + 'a {
        let service = &self.listening.service;
        converse(&*service.handler, session, &service.limits, &self.listening.hub.shutdown, self.opened)
    }

    pub(super) fn end(mut self, ending: &Ending, totals: Totals) {
        self.tell(ending.reason, ending.error.as_deref(), totals);
    }

    fn tell(&mut self, reason: CloseReason, error: Option<&str>, totals: Totals) {
        self.ended = true;
        self.listening.count(reason);
        self.listening.observe(&Event::SessionClosed {
            session: self.session,
            listener: &self.listening.name,
            remote: &self.remote,
            reason,
            error: error.as_ref().map(|error| error as &dyn crate::event::ErrorText),
            lasted: self.opened.elapsed(),
            totals,
        });
    }
}

/// The task was dropped, or panicked outside the handler.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            let reason = if std::thread::panicking() { CloseReason::Panicked } else { CloseReason::Cut };
            self.tell(reason, None, Totals::default());
        }
    }
}
