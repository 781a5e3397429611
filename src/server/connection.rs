//! One connection, from its opening to its close.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::timeout;
use tracing::Instrument;
use tracing::instrument::Instrumented;

use super::conversation::{Conversing, Ending, converse};
use super::listening::{Listening, Permit};
use super::moment::Moment;
use super::round;
use super::watchman::Watch;
use crate::address::Address;
use crate::error::Error;
use crate::event::{CloseReason, Event, Refusal, Totals};
use crate::handler::Sessions;
use crate::limits::Limits;
use crate::session::{Session, WireRef};
use crate::transport::{Incoming, Opening};

/// A connection that was accepted and may have a session.
pub(super) struct Arrival {
    pub(super) permit: Permit,
    pub(super) incoming: Box<dyn Incoming>,
    /// When that was.
    pub(super) at: Moment,
}

/// Opens the connection, runs the handler and closes. The permit is held until the end; the watch, which is one of the
/// runtime that this is run on, is left to the next in its place.
///
/// An idle connection is this future and little else. So what is rare (a layer's handshake, a peer that does not read, a
/// span) is boxed and makes no room for itself here; and what is done at once, as opening and closing nearly always are,
/// costs neither the box nor a timer.
///
/// It is no `async fn`, and changes its one place as the connection goes on: what is given to an asynchronous block and
/// what is kept in it over an `await` has room of its own in there from the beginning to the end.
pub(super) fn run(arrival: Arrival, mut watch: Watch) -> impl Future<Output = Watch> + Send {
    let mut stage = Stage::Arrived(Some(arrival));
    async move {
        poll_fn(|cx| stage.poll_open(cx)).await;
        if let Stage::Open(record) = &mut stage {
            let mut ending = Some(record.converse_in_span(&mut watch).await);
            poll_fn(|cx| stage.poll_close(&mut ending, cx)).await;
        }
        watch
    }
}

/// How far a connection is.
enum Stage {
    /// None while it is opened.
    Arrived(Option<Arrival>),
    /// Its link or a layer does not open at once.
    Opening(Pin<Box<dyn Future<Output = Stage> + Send>>),
    Open(Record),
    /// Its peer has yet to take what it is owed, or to close.
    Closing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Over,
}

impl Stage {
    /// Ready when the connection is open, or over.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Arrived(arrival) = self
            && let Some(arrival) = arrival.take()
        {
            *self = arrival.open();
        }
        if let Stage::Opening(opening) = self {
            *self = ready!(opening.as_mut().poll(cx));
        }
        Poll::Ready(())
    }

    /// Ready when an open connection is over.
    fn poll_close(&mut self, ending: &mut Option<Ending>, cx: &mut Context<'_>) -> Poll<()> {
        if let (Stage::Open(record), Some(ending)) = (&mut *self, ending.take()) {
            if record.ends_at_once(&ending, cx) {
                *self = Stage::Over;
                return Poll::Ready(());
            }
            if let Stage::Open(record) = mem::replace(self, Stage::Over) {
                *self = Stage::Closing(Box::pin(close(record, ending)));
            }
        }
        if let Stage::Closing(closing) = self {
            ready!(closing.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl Arrival {
    /// Opens the link, and a session, if that is all there is to be done.
    fn open(self) -> Stage {
        let Arrival { permit, incoming, at } = self;
        let remote = incoming.remote().clone();
        match incoming.open() {
            Opening::Done(Ok(dialled)) if permit.service.layers.is_empty() => match permit.service.bare(dialled) {
                Ok(session) => Stage::Open(Record::begin(permit, session, at)),
                Err(error) => Begun { permit, remote, at }.stage(Opened::Failed(error)),
            },
            opening => Stage::Opening(Begun { permit, remote, at }.open_later(opening)),
        }
    }
}

/// A connection that is being opened.
struct Begun {
    permit: Permit,
    remote: Address,
    at: Moment,
}

impl Begun {
    /// [`open`](Self::open), made elsewhere: what is not rare then has its own few variables side by side.
    #[cold]
    #[inline(never)]
    fn open_later(self, opening: Opening) -> Pin<Box<dyn Future<Output = Stage> + Send>> {
        Box::pin(self.open(opening))
    }

    /// Opens link and layers under the handshake clock.
    async fn open(self, link: Opening) -> Stage {
        let listening: &Listening = &self.permit;
        let opening = async { listening.service.open(link.await?).await };
        let opened = unless_cut(listening, within(listening.service.limits.handshake_timeout, opening)).await;
        self.stage(match opened {
            Some(Some(opened)) => opened.map_or_else(Opened::Failed, Opened::Done),
            Some(None) => Opened::TookTooLong,
            None => Opened::Cut,
        })
    }

    /// What comes of it. What fails is counted, and is no session.
    fn stage(self, opened: Opened) -> Stage {
        let Begun { permit: listening, remote, at } = self;
        let (reason, error) = match opened {
            Opened::Done(session) => return Stage::Open(Record::begin(listening, session, at)),
            Opened::Cut => {
                listening.count(CloseReason::Cut);
                return Stage::Over;
            }
            Opened::Failed(error) => (Refusal::HandshakeFailed, Some(error)),
            Opened::TookTooLong => (Refusal::HandshakeTimeout, None),
        };
        let error = error.as_ref().map(|error: &Error| error as &dyn crate::event::ErrorText);
        listening.observe(&Event::ConnectionRefused { listener: &listening.name, remote: &remote, reason, error });
        Stage::Over
    }
}

/// What became of a connection's link and layers.
enum Opened {
    Done(Session),
    Failed(Error),
    TookTooLong,
    Cut,
}

/// Closes a session whose peer is not through with it.
async fn close(mut record: Record, ending: Ending) {
    let Record { permit: listening, session, begun, .. } = &mut record;
    let cut_short = let_it_take_the_rest(listening, session, *begun).await;
    record.end(&cut_short.map_or(ending, Ending::cut));
}

/// Lets the peer take what is left, at its own speed, as long as it takes any of it within the write clock. Then it waits
/// for the peer to close as well, unless the server drains: who has nothing to say any more holds up nobody's end.
///
/// Says why the peer was not given all that it was owed, where it was not.
async fn let_it_take_the_rest(listening: &Listening, session: &mut Session, begun: Moment) -> Option<CloseReason> {
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
    /// Before the permit, so that it is closed first.
    session: Session,
    /// Leads to the listener as well.
    permit: Permit,
    /// 0 once its end was told.
    number: u64,
    begun: Moment,
}

impl Record {
    pub(super) fn begin(permit: Permit, session: Session, begun: Moment) -> Self {
        let number = permit.hub.session_number();
        let record = Record { session, permit, number, begun };
        record.permit.observe(&Event::SessionOpened {
            session: record.number,
            listener: &record.permit.name,
            remote: &record.session.peer().remote,
        });
        record
    }

    /// What the handler logs carries the session's number. Like the session's own events it is for debugging, and it
    /// costs nothing where that is not logged.
    pub(super) fn span(&self) -> tracing::Span {
        let (session, remote) = (self.number, tracing::field::display(&self.session.peer().remote));
        tracing::debug_span!(target: "greetd", "session", session, listener = self.permit.name, remote)
    }

    /// Runs the listener's handler over the session.
    fn converse<'a>(&'a mut self, watch: &'a mut Watch) -> Conversing<'a> {
        let service = &self.permit.service;
        converse(&*service.handler, &mut self.session, &service.limits, watch, self.begun)
    }

    /// The same under limits that are not the listener's.
    pub(super) fn converse_under<'a>(&'a mut self, limits: &'a Limits, watch: &'a mut Watch) -> Conversing<'a> {
        converse(&*self.permit.service.handler, &mut self.session, limits, watch, self.begun)
    }

    /// [`converse`](Self::converse), in the session's span where there is one; without it the span has no room here.
    pub(super) fn converse_in_span<'a>(
        &'a mut self,
        watch: &'a mut Watch,
    ) -> Either<Conversing<'a>, Pin<Box<Instrumented<Conversing<'a>>>>> {
        let span = self.span();
        if span.is_disabled() {
            Either::Left(self.converse(watch))
        } else {
            Either::Right(Box::pin(self.converse(watch).instrument(span)))
        }
    }

    /// The session, between conversations.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Closes the link and tells of the end, if nothing has to be waited for.
    fn ends_at_once(&mut self, ending: &Ending, cx: &mut Context<'_>) -> bool {
        let service = &self.permit.service;
        let totals = if ending.orderly {
            let closing_tells = service.layers.is_empty() && service.transport.closing_tells();
            let Some(totals) = self.session.shut_at_once(closing_tells, cx) else { return false };
            totals
        } else {
            self.session.shut()
        };
        self.tell(ending.reason, ending.error.as_deref(), totals);
        true
    }

    /// Closes the link, and tells of the end.
    pub(super) fn end(mut self, ending: &Ending) {
        let totals = self.session.shut();
        self.tell(ending.reason, ending.error.as_deref(), totals);
    }

    fn tell(&mut self, reason: CloseReason, error: Option<&str>, totals: Totals) {
        let number = mem::take(&mut self.number);
        let lasted = round::about_now(|| self.permit.hub.now()).since(self.begun);
        self.permit.count(reason);
        self.permit.observe(&Event::SessionClosed {
            session: number,
            listener: &self.permit.name,
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
        let shared = !peer.connected() && self.permit.service.handler.sessions() == Sessions::Shared;
        if shared { &Address::Unnamed } else { &peer.remote }
    }
}

/// The task was dropped, or panicked outside the handler.
impl Drop for Record {
    fn drop(&mut self) {
        if self.number != 0 {
            let reason = if std::thread::panicking() { CloseReason::Panicked } else { CloseReason::Cut };
            let totals = self.session.shut();
            self.tell(reason, None, totals);
        }
    }
}
