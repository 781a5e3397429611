//! One connection, from its opening to its close, in a task of its own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::conversation::{Ending, converse};
use super::listening::Listening;
use super::permits::Permit;
use super::shutdown::Shutdown;
use crate::address::Address;
use crate::error::Error;
use crate::event::{CloseReason, Event, Refusal, Totals};
use crate::session::Session;
use crate::transport::Incoming;

/// Opens the connection, runs the handler and closes. The permit is held until the end.
pub(super) async fn run(listening: Arc<Listening>, incoming: Box<dyn Incoming>, permit: Permit) {
    let opened = Instant::now();
    let Some(mut session) = open(&listening, incoming).await else { return };
    let mut record = Record::begin(&listening, &session, opened);
    let service = &listening.service;
    let ending = converse(&*service.handler, &mut session, &service.limits, &listening.hub.shutdown, opened)
        .instrument(record.span())
        .await;
    record.totals = session.wire().lock().totals();
    if ending.orderly {
        close(session, service.limits.write_timeout, &listening.hub.shutdown).await;
    }
    record.end(&ending);
    drop(permit);
    listening.hub.session_ended.notify_one();
}

/// Lets the peer take what is left, at its own speed, as long as it takes any of it within the write clock. Then it waits
/// for the peer to close as well, unless the server drains: who has nothing to say any more holds up nobody's end.
async fn close(mut session: Session, limit: Duration, shutdown: &Shutdown) {
    while timeout(limit, session.finish()).await.is_err() {
        if !session.wire().lock().take_progress() {
            return;
        }
    }
    tokio::select! {
        // In this order what has come is read in any case: closing a socket with unread data resets the connection.
        biased;
        _ = timeout(limit, session.close()) => {}
        () = shutdown.draining() => {}
    }
}

/// Opens link and layers under the handshake clock. What fails here is counted and is no session.
async fn open(listening: &Listening, incoming: Box<dyn Incoming>) -> Option<Session> {
    let remote = incoming.remote().clone();
    let (reason, error) = match within(listening.service.limits.handshake_timeout, async {
        let dialled = incoming.open().await?;
        listening.service.open(dialled).await
    })
    .await
    {
        Some(Ok(session)) => return Some(session),
        Some(Err(error)) => (Refusal::HandshakeFailed, Some(error)),
        None => (Refusal::HandshakeTimeout, None),
    };
    let error = error.as_ref().map(|error: &Error| error as &dyn crate::event::ErrorText);
    listening.observe(&Event::ConnectionRefused { listener: &listening.name, remote: &remote, reason, error });
    None
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    timeout(limit, future).await.ok()
}

/// Tells of a session's beginning and, whatever happens to its task, of its end.
pub(super) struct Record {
    listening: Arc<Listening>,
    session: u64,
    remote: Address,
    opened: Instant,
    pub(super) totals: Totals,
    ended: bool,
}

impl Record {
    pub(super) fn begin(listening: &Arc<Listening>, session: &Session, opened: Instant) -> Self {
        let record = Record {
            listening: listening.clone(),
            session: listening.hub.session_number(),
            remote: session.peer().remote.clone(),
            opened,
            totals: Totals::default(),
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

    pub(super) fn end(mut self, ending: &Ending) {
        self.tell(ending.reason, ending.error.as_deref());
    }

    fn tell(&mut self, reason: CloseReason, error: Option<&str>) {
        self.ended = true;
        self.listening.observe(&Event::SessionClosed {
            session: self.session,
            listener: &self.listening.name,
            remote: &self.remote,
            reason,
            error: error.as_ref().map(|error| error as &dyn crate::event::ErrorText),
            lasted: self.opened.elapsed(),
            totals: self.totals,
        });
    }
}

/// The task was aborted at the drain's deadline, or panicked outside the handler.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            let reason = if std::thread::panicking() { CloseReason::Panicked } else { CloseReason::Cut };
            self.tell(reason, None);
        }
    }
}
