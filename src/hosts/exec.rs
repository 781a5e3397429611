//! `exec`: a program for each session, with the conversation on its stdin and stdout.
//!
//! Programs written for tcpserver, xinetd or `nc -e` work as they are: their environment names both ends in the manner
//! of UCSPI (`PROTO`, `TCPREMOTEIP`, `TCPREMOTEPORT`, …; <https://cr.yp.to/proto/ucspi.txt>) and of systemd
//! (`REMOTE_ADDR`, `REMOTE_PORT`; systemd.socket(5)).
//!
//! What the peer sends is written to stdin as it comes, and whatever one read of stdout brings is sent; with `lines`,
//! each message is a line. When the peer will send no more, stdin is closed; when the program closes its stdout, the
//! conversation is over. The program is killed, with all that it started, when the session ends.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::child::{Child, Environment, Exit, Program, ProgramError, why};
use super::stderr::Stderr;
use crate::error::{Error, Result};
use crate::handler::{Handler, Needs};
use crate::link::Peer;
use crate::options::{OptionDoc, OptionError};
use crate::session::{Receiving, Sending, Session};

/// The most that one read of stdout brings.
const READ: usize = 16 * 1024;
/// How long the program may take to read what it is written.
const WRITING: Duration = Duration::from_secs(30);
/// How long it may take to end once it has closed its stdout.
const ENDING: Duration = Duration::from_secs(1);
/// The longest line.
const LONGEST_LINE: usize = 1 << 20;

/// What [`Exec`] is made from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    command: String,
    #[serde(default)]
    lines: bool,
}

/// The options of [`Exec`].
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "command",
        value: "WORDS",
        default: "none",
        help: "the program and its arguments, quoted as in a shell; also written exec:WORDS",
    },
    OptionDoc {
        name: "lines",
        value: "yes|no",
        default: "no",
        help: "write each message as a line, and send each line as a message",
    },
];

/// Runs a program for each session.
#[derive(Debug, Clone)]
pub struct Exec {
    program: Program,
    name: String,
    lines: bool,
}

impl Exec {
    /// From its settings, with the variables that the program is given besides those of the conversation.
    pub fn new(settings: &Settings, environment: &Environment) -> std::result::Result<Self, OptionError> {
        let command = &settings.command;
        let invalid = |why: &str| OptionError::Invalid(format!("the option `command` takes {why}, not `{command}`"));
        let words = shlex::split(command).ok_or_else(|| invalid("words with their quotes closed"))?;
        let name = words.first().ok_or_else(|| invalid("the name of a program"))?.clone();
        let words = words.into_iter().map(String::into_bytes);
        let program = Program::new(words, environment).map_err(|error| match error {
            ProgramError::Nul(_) => invalid("words without NUL"),
            ProgramError::Descriptors(_) => OptionError::Invalid(format!("`{command}`: {error}")),
        })?;
        Ok(Exec { program, name, lines: settings.lines })
    }
}

#[async_trait]
impl Handler for Exec {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::handler(format!("failed to start the program {}: {}", self.name, why(&error)))
        };
        // Here, and not in a thread of its own: that starts several at once, and on two processors it made everybody else
        // wait six times as long for their turn.
        let (mut child, pipes) = self.program.start(&variables(session.peer())).map_err(failed)?;
        let stdin = pipe::Sender::from_owned_fd(pipes.stdin).map_err(failed)?;
        let mut stderr = Stderr::new(self.name.clone(), pipes.stderr);
        let (receiving, sending) = session.split();
        {
            let mut logging = pin!(std::future::poll_fn(|cx| stderr.poll(cx)));
            let mut told = pin!(tell(receiving, stdin, self.lines));
            let mut heard = pin!(hear(pipes.stdout, sending, self.lines));
            let (mut all_told, mut all_logged) = (false, false);
            loop {
                tokio::select! {
                    biased;
                    result = &mut heard => {
                        result?;
                        break;
                    }
                    result = &mut told, if !all_told => {
                        result?;
                        all_told = true;
                    }
                    () = &mut logging, if !all_logged => all_logged = true,
                }
            }
        }
        self.bury(&mut child, &mut stderr).await
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

impl Exec {
    /// The program said all that it will say: it may take a moment to end, and says how it went by its status.
    async fn bury(&self, child: &mut Child, stderr: &mut Stderr) -> Result<()> {
        let ended = timeout(ENDING, child.ended()).await;
        std::future::poll_fn(|cx| {
            let _ = stderr.poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        match ended {
            // It closed its stdout and runs on: it is killed as the session ends, and nothing is wrong with that.
            Err(_) | Ok(Exit::Status(0)) => Ok(()),
            Ok(exit) => Err(Error::handler(match stderr.last() {
                Some(last) => format!("the program {} {exit}; the last that it said is: {last}", self.name),
                None => format!("the program {} {exit}", self.name),
            })),
        }
    }
}

/// What the peer says, to the program.
async fn tell(mut receiving: Receiving<'_>, stdin: pipe::Sender, lines: bool) -> Result<()> {
    let mut stdin = Some(stdin);
    while let Some(message) = receiving.recv().await? {
        // A program that reads no more may still have something to say.
        let Some(pipe) = &mut stdin else { continue };
        let written = async {
            pipe.write_all(&message).await?;
            if lines { pipe.write_all(b"\n").await } else { Ok(()) }
        };
        match timeout(WRITING, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => stdin = None,
            Err(_) => return Err(Error::handler(format!("the program read nothing for {WRITING:?}"))),
        }
    }
    Ok(())
}

/// What the program says, to the peer.
async fn hear(stdout: pipe::Receiver, mut sending: Sending<'_>, lines: bool) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        // No memory is held while it is silent.
        stdout.readable().await?;
        buffer.reserve(READ);
        let ended = match stdout.try_read_buf(&mut buffer) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error.into()),
        };
        if lines {
            while let Some(at) = memchr::memchr(b'\n', &buffer) {
                let line = buffer.split_to(at + 1);
                sending.send(&line[..at]).await?;
            }
            if buffer.len() > LONGEST_LINE {
                return Err(Error::TooLong { size: buffer.len(), limit: LONGEST_LINE });
            }
        }
        if (ended || !lines) && !buffer.is_empty() {
            sending.send(&buffer.split()).await?;
        }
        if buffer.is_empty() {
            buffer = BytesMut::new();
        }
        if ended {
            return Ok(());
        }
    }
}

/// The conversation's ends, in the manner of UCSPI, and of systemd.
fn variables(peer: &Peer) -> Vec<(String, String)> {
    let transport = peer.route.scheme.rsplit('+').next().unwrap_or_default();
    let protocol = transport.to_ascii_uppercase();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut add = |name: String, value: String| variables.push((name, value));
    add("PROTO".into(), protocol.clone());
    add("GREETD_CONNECTED".into(), if peer.connected() { "yes" } else { "no" }.into());
    for (side, address) in [("REMOTE", &peer.remote), ("LOCAL", peer.local())] {
        match (address.ip(), address.canonical_ip()) {
            (Some(socket), Some(ip)) => {
                add(format!("{protocol}{side}IP"), ip.to_string());
                add(format!("{protocol}{side}PORT"), socket.port().to_string());
                if side == "REMOTE" {
                    add("REMOTE_ADDR".into(), ip.to_string());
                    add("REMOTE_PORT".into(), socket.port().to_string());
                }
            }
            _ if *address != crate::address::Address::Unnamed => {
                add(format!("{protocol}{side}PATH"), address.to_string());
            }
            _ => {}
        }
    }
    for (name, value) in peer.facts() {
        // `unix.pid` as GREETD_UNIX_PID: what was learned has no place in either manner.
        let name = name.to_ascii_uppercase().replace(['.', '-'], "_");
        variables.push((format!("GREETD_{name}"), value.replace('\0', "")));
    }
    variables
}
