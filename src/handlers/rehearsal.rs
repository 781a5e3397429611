//! Rehearsals: a handler in a real session over memory, and a test in the part of its peer.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::error::{Error, Result};
use crate::framing::{self, Framing};
use crate::framings::raw::Raw;
use crate::handler::Handler;
use crate::link::{Capabilities, Link, MessageStream, Opened, Peer, Route};
use crate::session::{Session, WireRef};

/// What carries the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A connection of plain bytes.
    Raw,
    /// A connection that keeps messages apart.
    Messages,
    /// Datagrams.
    Datagrams,
    /// Datagrams whose answers may have so many bytes.
    DatagramsUpTo(usize),
}

impl Stage {
    pub(crate) fn capabilities(self) -> Capabilities {
        match self {
            Stage::Raw => Capabilities::BYTES,
            Stage::Messages => Capabilities { boundaries: true, ..Capabilities::BYTES },
            Stage::Datagrams | Stage::DatagramsUpTo(_) => Capabilities::DATAGRAMS,
        }
    }
}

/// A conversation with a handler.
pub(crate) struct Rehearsal {
    client: Session,
    serving: Option<JoinHandle<Result<()>>>,
    handlers_end: WireRef,
}

impl Rehearsal {
    /// How many bytes a raw connection holds on their way.
    pub(crate) const PIPE: usize = 4096;

    /// Begins a conversation, from a loopback address.
    pub(crate) fn of(handler: impl Handler + 'static, stage: Stage) -> Self {
        Rehearsal::from(Arc::new(handler), stage, "127.0.0.1:5000")
    }

    /// Begins a conversation from that IP address and port.
    pub(crate) fn from(handler: Arc<dyn Handler>, stage: Stage, remote: &str) -> Self {
        let (client, server) = sessions(stage, remote);
        let handlers_end = server.wire().clone();
        let serving = Some(tokio::spawn(serve(handler, server)));
        Rehearsal { client, serving, handlers_end }
    }

    pub(crate) async fn says(&mut self, message: impl AsRef<[u8]>) {
        self.client.send(message.as_ref()).await.expect("the handler listens");
        self.client.flush().await.expect("the handler listens");
    }

    pub(crate) async fn hears(&mut self) -> String {
        String::from_utf8(self.hears_bytes().await).expect("it is text")
    }

    pub(crate) async fn hears_bytes(&mut self) -> Vec<u8> {
        self.client.recv().await.expect("the link holds").expect("the handler has not ended").to_vec()
    }

    /// What is there once every task had its turns.
    pub(crate) async fn hears_at_once(&mut self) -> Option<String> {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        let heard = poll_fn(|cx| match self.client.poll_recv(cx) {
            Poll::Ready(heard) => Poll::Ready(heard.expect("the link holds")),
            Poll::Pending => Poll::Ready(None),
        });
        heard.await.map(|message| String::from_utf8_lossy(&message).into_owned())
    }

    pub(crate) async fn hears_nothing_more(&mut self) -> bool {
        self.hears_at_once().await.is_none()
    }

    /// All that comes until the handler's side ends.
    pub(crate) async fn hears_the_rest(&mut self) -> String {
        let mut heard = String::new();
        while let Some(message) = self.client.recv().await.expect("the link holds") {
            heard.push_str(std::str::from_utf8(&message).expect("it is text"));
        }
        heard
    }

    /// All that comes until that is the end of it.
    pub(crate) async fn hears_until(&mut self, end: &str) -> String {
        let mut heard = String::new();
        while !heard.ends_with(end) {
            heard.push_str(&self.hears().await);
        }
        heard
    }

    /// Half-closes; on datagrams the session ends, as it does when the idle clock runs out.
    pub(crate) async fn falls_silent(&mut self) {
        self.client.finish().await.expect("the link holds");
    }

    /// With a paused clock: everything that can happen without the peer happens.
    pub(crate) async fn lets_time_pass(&mut self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// The peer's own session.
    pub(crate) fn client(&mut self) -> &mut Session {
        &mut self.client
    }

    /// How the handler ended.
    pub(crate) async fn ends(&mut self) -> Result<()> {
        self.serving.take().expect("it is asked once").await.expect("the handler does not panic")
    }

    /// Cuts the session where it waits, as a clock or an eviction does.
    pub(crate) fn is_cut(&mut self) {
        self.serving.take().expect("it is running").abort();
    }

    /// How much the handler's end keeps until the test reads on, beside what is on its way.
    pub(crate) fn bytes_kept_for_it(&self) -> usize {
        self.handlers_end.lock().buffered()
    }
}

/// Both ends of a conversation.
pub(crate) fn sessions(stage: Stage, remote: &str) -> (Session, Session) {
    let (client, server) = links(stage);
    (session(client, stage, remote), session(server, stage, remote))
}

/// Both ends of a link.
pub(crate) fn links(stage: Stage) -> (Link, Link) {
    match stage {
        Stage::Raw => {
            let (client, server) = tokio::io::duplex(Rehearsal::PIPE);
            (Link::Bytes(Box::new(client)), Link::Bytes(Box::new(server)))
        }
        Stage::Messages | Stage::Datagrams => message_links(stage.capabilities().largest, None),
        Stage::DatagramsUpTo(limit) => message_links(stage.capabilities().largest, Some(limit)),
    }
}

/// A session over one end of a link, as the server made it for that address.
pub(crate) fn session(link: Link, stage: Stage, remote: &str) -> Session {
    let (scheme, framing) = match stage {
        Stage::Raw => ("tcp", Some("raw".to_owned())),
        Stage::Messages => ("unixpacket", None),
        Stage::Datagrams | Stage::DatagramsUpTo(_) => ("udp", None),
    };
    let capabilities = stage.capabilities();
    let keeps_messages = capabilities.boundaries;
    let route = Arc::new(Route { scheme: scheme.to_owned(), framing, capabilities, keeps_messages });
    let ip = |text: &str| Address::Ip(text.parse().expect("it is an address"));
    let peer = Peer::new(ip("127.0.0.1:8080"), ip(remote), route);
    let raw: Arc<dyn Framing> = Arc::new(Raw { largest: 1 << 20 });
    Session::new(Opened { link, peer }, Some(raw)).expect("there is a framing")
}

/// Runs a session as the server does: polls the handler, then writes what it or others sent.
pub(crate) async fn serve(handler: Arc<dyn Handler>, mut session: Session) -> Result<()> {
    let wire = session.wire().clone();
    {
        let mut serving = handler.serve(&mut session);
        poll_fn(|cx| {
            let polled = serving.as_mut().poll(cx);
            let mut wire = wire.lock();
            // Afterwards: whom to wake matters once the handler has let somebody push.
            wire.set_driver(cx.waker());
            let _ = wire.poll_flush(cx);
            polled
        })
        .await?;
    }
    session.close().await
}

/// One direction of a link that keeps messages apart. It holds as many bytes as a raw one.
#[derive(Default)]
struct Lane {
    messages: std::collections::VecDeque<Bytes>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn bytes(&self) -> usize {
        self.messages.iter().map(Bytes::len).sum()
    }

    fn close(&mut self) {
        self.closed = true;
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

struct MessageLink {
    incoming: Arc<Mutex<Lane>>,
    outgoing: Arc<Mutex<Lane>>,
    waiting: Vec<Bytes>,
    largest: Option<usize>,
    reply_limit: Option<usize>,
}

/// Both ends of a link that keeps messages apart; the second one may answer with so many bytes.
fn message_links(largest: Option<usize>, reply_limit: Option<usize>) -> (Link, Link) {
    let (there, back) = (Arc::<Mutex<Lane>>::default(), Arc::<Mutex<Lane>>::default());
    let link = |incoming: &Arc<Mutex<Lane>>, outgoing: &Arc<Mutex<Lane>>, reply_limit| {
        let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
        Link::Messages(Box::new(MessageLink { incoming, outgoing, waiting: Vec::new(), largest, reply_limit }))
    };
    (link(&back, &there, None), link(&there, &back, reply_limit))
}

impl MessageStream for MessageLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let mut lane = self.incoming.lock().expect("no test panics with the lock");
        if let Some(message) = lane.messages.pop_front() {
            lane.writer.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(Some(message)));
        }
        if lane.closed {
            return Poll::Ready(Ok(None));
        }
        lane.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let size = framing::length(parts);
        if let Some(limit) = self.largest.filter(|largest| size > *largest) {
            return Err(Error::TooLong { size, limit });
        }
        assert!(self.reply_limit.is_none_or(|limit| size <= limit), "the server would not send {size} bytes");
        self.waiting.push(parts.concat().into());
        Ok(())
    }

    fn buffered(&self) -> usize {
        // An empty message counts too: it must be written.
        self.waiting.iter().map(|message| message.len().max(1)).sum()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut lane = self.outgoing.lock().expect("no test panics with the lock");
        while !self.waiting.is_empty() {
            if lane.closed {
                return Poll::Ready(Err(Error::Closed));
            }
            if lane.bytes() >= Rehearsal::PIPE {
                lane.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            lane.messages.push_back(self.waiting.remove(0));
            lane.reader.take().into_iter().for_each(Waker::wake);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        std::task::ready!(self.poll_flush(cx))?;
        self.outgoing.lock().expect("no test panics with the lock").close();
        Poll::Ready(Ok(()))
    }

    fn reply_limit(&self) -> Option<usize> {
        self.reply_limit
    }
}

impl Drop for MessageLink {
    fn drop(&mut self) {
        for lane in [&self.incoming, &self.outgoing] {
            lane.lock().expect("no test panics with the lock").close();
        }
    }
}
