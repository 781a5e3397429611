//! Handlers in a program of their own, in whatever language: process protocol 1.
//!
//! One child serves all sessions; frames on its stdin and stdout carry them, and `plugins/PROTOCOL.md` specifies them.
//! Answers are ordered within a session and free across sessions. A child that dies, hangs or breaks the protocol
//! fails its open sessions with a reason and is started again; one that keeps failing is disabled, in public.

pub(super) mod greeting;
mod host;
mod inbox;
mod link;
mod running;
mod window;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};

use self::host::{Expected, Host};
use self::inbox::Answer;
use self::link::Talk;
use super::child::Program;
use super::observed::Observed;
use crate::error::{Error, Result};
use crate::handler::{Handler, Needs};
use crate::link::Peer;
use crate::session::Session;

/// How long a plugin may take.
#[derive(Debug, Clone)]
pub struct Timing {
    /// To its first line.
    pub start: Duration,
    /// To answer a message. A plugin that says nothing at all for so long, and owes an answer, is started again.
    pub answer: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { start: Duration::from_secs(2), answer: Duration::from_secs(10) }
    }
}

/// A program that is loaded: what its handlers, once made, have in common.
pub(super) struct Process {
    program: Program,
    name: String,
    timing: Timing,
    observed: Observed,
    /// The handlers that were asked for, with their options: what a new child is tried with.
    made: Mutex<Vec<(&'static str, BTreeMap<String, String>)>>,
    /// The host that new sessions go to. Old ones keep theirs, and it stays as long as one does.
    current: RwLock<Arc<Host>>,
}

impl Process {
    /// Starts the program. `name` is what it is called in the log.
    pub(super) async fn load(
        program: Program,
        name: String,
        timing: Timing,
        observed: Observed,
    ) -> std::result::Result<Self, String> {
        let host = Host::start(program.clone(), name.clone(), timing.clone(), observed.clone(), None).await?;
        Ok(Process { program, name, timing, observed, made: Mutex::default(), current: RwLock::new(Arc::new(host)) })
    }

    fn host(&self) -> Arc<Host> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of its handlers.
    pub(super) fn names(&self) -> Vec<String> {
        self.host().names.clone()
    }

    /// Whether it failed too often.
    pub(super) fn is_disabled(&self) -> bool {
        self.host().is_disabled()
    }

    /// Starts the program once more and tries it; from then on new sessions go there. On any failure all stays as it is.
    pub(super) async fn reload(&self) -> std::result::Result<(), String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let trials: Vec<_> = made.iter().map(|(handler, options)| trial(handler, options)).collect();
        let expected = Expected { names: &self.names(), trials: &trials };
        let (program, name) = (self.program.clone(), self.name.clone());
        let host = Host::start(program, name, self.timing.clone(), self.observed.clone(), Some(expected)).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(host);
        Ok(())
    }

    /// The handler of that name.
    pub(super) fn handler(self: &Arc<Self>, name: &'static str, options: BTreeMap<String, String>) -> Arc<dyn Handler> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.iter().any(|known| *known == (name, options.clone())) {
            made.push((name, options.clone()));
        }
        drop(made);
        Arc::new(ProcessHandler { process: self.clone(), name, options })
    }
}

struct ProcessHandler {
    process: Arc<Process>,
    name: &'static str,
    options: BTreeMap<String, String>,
}

/// What the child is told of a session.
#[derive(Serialize)]
struct Open<'a> {
    handler: &'a str,
    transport: &'a str,
    local: String,
    remote: String,
    connected: bool,
    options: &'a BTreeMap<String, String>,
    facts: BTreeMap<&'static str, &'a str>,
}

impl<'a> Open<'a> {
    fn new(handler: &'a ProcessHandler, peer: &'a Peer) -> Self {
        Open {
            handler: handler.name,
            transport: &peer.route.scheme,
            local: peer.local().to_string(),
            remote: peer.remote.to_string(),
            connected: peer.connected(),
            options: &handler.options,
            facts: peer.facts().collect(),
        }
    }
}

/// The opening of a session that nobody began, by which a new child is tried.
fn trial(handler: &str, options: &BTreeMap<String, String>) -> Vec<u8> {
    serde_json::json!({
        "handler": handler,
        "transport": "memory",
        "local": "trial",
        "remote": "",
        "connected": true,
        "options": options,
        "facts": { "trial": "yes" },
    })
    .to_string()
    .into_bytes()
}

#[async_trait]
impl Handler for ProcessHandler {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let host = self.process.host();
        let link = host.link().await?;
        let open = serde_json::to_vec(&Open::new(self, session.peer()))
            .map_err(|error| Error::handler(format!("failed to describe the peer: {error}")))?;
        let patience = self.process.timing.answer;
        if timeout(patience, link.room()).await.is_err() {
            return Err(self.failed(&format!("did not read what it was sent within {patience:?}")));
        }
        let mut talk = link.open(&open).map_err(|error| self.failed(&error.to_string()))?;
        drop(link);
        self.converse(session, &mut talk).await
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

/// What a session waits for.
enum Step {
    Answer(Answer),
    Message(Bytes),
    PeerEnded,
    Overdue,
}

impl ProcessHandler {
    async fn converse(&self, session: &mut Session, talk: &mut Talk) -> Result<()> {
        let patience = self.process.timing.answer;
        let mut timer = pin!(sleep_until(Instant::now() + patience));
        let mut peer_ended = false;
        loop {
            let step = poll_fn(|cx| {
                if let Poll::Ready(answer) = talk.poll_answer(cx) {
                    return Poll::Ready(Ok(Step::Answer(answer)));
                }
                if !peer_ended
                    && talk.poll_room(cx).is_ready()
                    && let Poll::Ready(message) = session.poll_recv(cx)
                {
                    return Poll::Ready(message.map(|message| message.map_or(Step::PeerEnded, Step::Message)));
                }
                talk.flush();
                // One timer, set again when it fires: none is touched per message.
                while let Some(since) = talk.owed_since() {
                    if timer.as_mut().poll(cx).is_pending() {
                        break;
                    }
                    if since.elapsed() >= patience {
                        return Poll::Ready(Ok(Step::Overdue));
                    }
                    timer.as_mut().reset(since + patience);
                }
                Poll::Pending
            })
            .await?;
            match step {
                Step::Message(message) => talk.tell(&message),
                Step::Answer(Answer::Reply(message) | Answer::Push(message)) => session.send(&message).await?,
                Step::Answer(Answer::Silent) => {}
                Step::Answer(Answer::Close(last)) => {
                    if !last.is_empty() {
                        session.send(&last).await?;
                    }
                    return Ok(());
                }
                Step::Answer(Answer::Failed(words)) => return Err(self.failed(&words)),
                Step::Answer(Answer::Over(words)) => return Err(self.failed(&words)),
                Step::PeerEnded => peer_ended = true,
                Step::Overdue => {
                    let reason = format!("did not answer within {patience:?}");
                    talk.overdue(&reason);
                    return Err(self.failed(&reason));
                }
            }
            if peer_ended && talk.is_answered() {
                return Ok(());
            }
        }
    }

    fn failed(&self, reason: &str) -> Error {
        Error::handler(format!("the plugin {} {reason}", self.process.name))
    }
}
