//! One child at work, from its first line to its end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::io::poll_read_buf;

use super::Timing;
use super::greeting::{self, Greeting, GreetingError};
use super::inbox::Answer;
use super::link::Link;
use crate::event::PluginFault;
use crate::hosts::child::{Child, Program, why};
use crate::hosts::observed::Observed;
use crate::hosts::stderr::Stderr;

/// How much is read at once.
const READ: usize = 64 * 1024;
/// How long a child that closed its end may take to die by itself, so that how it died is known.
const DYING: Duration = Duration::from_millis(500);

/// A child that said its first line.
pub(super) struct Running {
    child: Child,
    pub(super) link: Arc<Link>,
    stdout: pipe::Receiver,
    /// What was read and is no whole frame yet.
    input: BytesMut,
    stderr: Stderr,
    reading: Reading,
    /// The names of its handlers.
    pub(super) names: Vec<String>,
}

/// Why a child did not come to its first line.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("failed to start: {}", why(.0))]
    Spawn(#[from] io::Error),
    #[error("{0}")]
    Greeting(#[from] GreetingError),
    #[error("said nothing within {0:?}; expected the first line `greetd-plugin 1 NAME` on stdout, unbuffered")]
    Silent(Duration),
    #[error("{0}, before its first line")]
    Died(String),
}

/// What a child did, so that it must go or is gone.
pub(super) struct Fault {
    pub(super) kind: PluginFault,
    /// To be read after its name; safe to print.
    pub(super) words: String,
}

impl Fault {
    pub(super) fn new(kind: PluginFault, words: String) -> Self {
        Fault { kind, words }
    }

    pub(super) fn protocol(words: String) -> Self {
        Fault::new(PluginFault::Protocol, words)
    }
}

impl Running {
    /// Starts the program and waits for its first line.
    pub(super) async fn start(
        program: &Program,
        name: &str,
        timing: &Timing,
        observed: &Observed,
    ) -> Result<Self, StartError> {
        let (mut child, mut pipes) = program.start(&[])?;
        let link = Arc::new(Link::new(pipes.stdin, name.to_owned(), observed.clone())?);
        let mut stderr = Stderr::new(name.to_owned(), pipes.stderr);
        let mut input = BytesMut::new();
        let first_line = async {
            loop {
                if let Some(greeting) = Greeting::take(&mut input)? {
                    return Ok(Some(greeting));
                }
                // A byte or a few more than the line may come with it: they are the first frames.
                input.reserve(greeting::LONGEST);
                if pipes.stdout.read_buf(&mut input).await? == 0 {
                    return Ok(None);
                }
            }
        };
        let first_line = async {
            tokio::pin!(first_line);
            poll_fn(|cx| {
                let _ = stderr.poll(cx);
                first_line.as_mut().poll(cx)
            })
            .await
        };
        let greeting: Result<Option<Greeting>, StartError> =
            timeout(timing.start, first_line).await.map_err(|_| StartError::Silent(timing.start))?;
        match greeting? {
            Some(Greeting { names }) => {
                let reading = Reading::new(timing.answer);
                Ok(Running { child, link, stdout: pipes.stdout, input, stderr, reading, names })
            }
            None if input.is_empty() => Err(StartError::Died(obituary(&mut child, &mut stderr).await)),
            None => Err(GreetingError::of(&input).into()),
        }
    }

    /// Moves bytes between the child and its sessions until it dies or breaks the protocol; says why, after its name.
    /// Cancel-safe.
    pub(super) async fn run(&mut self) -> Fault {
        let end = poll_fn(|cx| self.poll(cx)).await;
        let fault = match end {
            End::Broken(fault) => {
                self.child.kill();
                fault
            }
            End::Closed => Fault::new(PluginFault::Died, obituary(&mut self.child, &mut self.stderr).await),
        };
        self.link.end(&fault.words);
        fault
    }

    /// Opens a session, and closes it once that is answered: whether the child does more than to start.
    pub(super) async fn try_out(&mut self, open: &[u8], patience: Duration) -> Result<(), String> {
        let mut talk = self.link.open(open).map_err(|error| error.to_string())?;
        let answered = async {
            loop {
                match poll_fn(|cx| talk.poll_answer(cx)).await {
                    Answer::Push(_) => {}
                    Answer::Reply(_) | Answer::Silent | Answer::Close(_) => return Ok(()),
                    Answer::Failed(words) => return Err(words),
                    Answer::Over(words) => return Err(words.to_string()),
                }
            }
        };
        let answered = async {
            tokio::select! {
                fault = self.run() => Err(fault.words),
                answered = answered => answered,
            }
        };
        let late = |_| format!("did not answer the opening of a session within {patience:?}");
        timeout(patience, answered).await.map_err(late)?
    }

    /// Closes its stdin, so that it ends by itself; kills it where it does not within the time.
    pub(super) async fn wind_up(self, patience: Duration) {
        let Running { mut child, link, stdout, mut stderr, .. } = self;
        link.end("was unloaded");
        drop((link, stdout));
        let _ = timeout(patience, ended(&mut child, &mut stderr)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let end = self.poll_talks(cx);
        // Behind all else, so that a flood of words keeps no answer waiting.
        let _ = self.stderr.poll(cx);
        end
    }

    fn poll_talks(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(Err(_)) = self.link.poll_write(cx) {
            return Poll::Ready(End::Closed);
        }
        if let Some(reason) = self.link.condemned().or_else(|| self.reading.poll(&self.link, cx)) {
            return Poll::Ready(End::Broken(Fault::new(PluginFault::Silent, reason)));
        }
        // Whatever it said before it ended can be read by now. What it started may hold the pipes open for ever.
        let ended = self.child.poll_ended(cx).is_ready();
        loop {
            if let Err(fault) = self.link.deliver(&mut self.input) {
                return Poll::Ready(End::Broken(fault));
            }
            self.input.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.stdout), cx, &mut self.input) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(End::Closed),
                Poll::Pending if ended => return Poll::Ready(End::Closed),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Whether the child reads: one that stopped is seen even if nobody waits for its answer so long.
struct Reading {
    patience: Duration,
    /// When it is looked at again, and what it had read when it was last looked at.
    next: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Reading {
    fn new(patience: Duration) -> Self {
        Reading { patience, next: None }
    }

    /// What is wrong with it, if anything is.
    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Option<String> {
        if let Some((timer, before)) = &mut self.next {
            if timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            let (read, unread) = link.progress();
            if unread > 0 && read == *before {
                return Some(format!("read nothing of what it was sent for {:?}", self.patience));
            }
        }
        let (read, unread) = link.progress();
        self.next = (unread > 0).then(|| (Box::pin(sleep(self.patience)), read));
        if let Some((timer, _)) = &mut self.next {
            // So that it is woken; it cannot be over yet.
            let _ = timer.as_mut().poll(cx);
        }
        None
    }
}

enum End {
    /// It must go, for this reason.
    Broken(Fault),
    /// It closed a pipe: most likely it is dead.
    Closed,
}

/// How a child died that closed its pipes, with its last words.
async fn obituary(child: &mut Child, stderr: &mut Stderr) -> String {
    let how = timeout(DYING, ended(child, stderr)).await.unwrap_or_else(|_| {
        child.kill();
        "closed its pipes and was killed for that".to_owned()
    });
    match stderr.last() {
        Some(last) => format!("{how}; the last that it said is: {last}"),
        None => how,
    }
}

/// Waits for its end, then for the rest of its stderr, which ends with its group.
async fn ended(child: &mut Child, stderr: &mut Stderr) -> String {
    let exit = {
        let ended = child.ended();
        tokio::pin!(ended);
        poll_fn(|cx| {
            let _ = stderr.poll(cx);
            ended.as_mut().poll(cx)
        })
        .await
    };
    // A program that left its group may hold the pipe for ever.
    let _ = timeout(DYING, poll_fn(|cx| stderr.poll(cx))).await;
    exit.to_string()
}
