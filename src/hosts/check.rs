//! Whether a program speaks the process protocol: all of it is said to it, and more that is broken. What is checked of
//! a WebAssembly component stands with its host.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout, timeout_at};

use super::child::{Child, Exit, Program, why};
use super::frame::{self, Frame, Type};
use super::process::greeting::{Greeting, GreetingError};
use super::stderr::Stderr;
use super::{Environment, Kind, PluginError, Timing, short};
use crate::error::named;
use crate::escape::Escaped;

/// How long a plugin may take to end once its stdin has.
const ENDING: Duration = Duration::from_secs(2);
/// A message beyond what one read or one pipe holds.
const LONG: usize = 1 << 20;

/// What was found out about a plugin that conforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The names of its handlers.
    pub names: Vec<String>,
    /// What it did right, a sentence each.
    pub passed: Vec<String>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// Starts a plugin, says to it all that greetd may say and what greetd never says, and judges what it answers.
/// The first thing that is wrong is the error.
pub async fn check(path: &Path, environment: &Environment, timing: &Timing) -> Result<Checked, PluginError> {
    let failed = |reason: String| PluginError { name: short(path), reason };
    let kind = Kind::of(path).map_err(|error| PluginError::of_file(path, &error))?;
    #[cfg(feature = "wasm")]
    if kind == Kind::WebAssembly {
        let bytes = super::wasm::read(path).map_err(failed)?;
        return Box::pin(super::wasm::check(&bytes, short(path), timing.start)).await.map_err(failed);
    }
    kind.must_be_program().map_err(failed)?;
    let program = Program::of_file(path, environment).map_err(|error| failed(error.to_string()))?;
    let mut probe = Probe::start(&program, timing).await.map_err(failed)?;
    let judged = probe.judge().await;
    match judged {
        Ok(checked) => Ok(checked),
        Err(reason) => Err(failed(probe.with_last_words(reason).await)),
    }
}

/// What goes wrong, to be read after the plugin's name.
type Outcome<T = ()> = Result<T, String>;

struct Probe {
    child: Child,
    stdin: Option<pipe::Sender>,
    stdout: pipe::Receiver,
    stderr: Stderr,
    input: BytesMut,
    names: Vec<String>,
    patience: Duration,
    /// When what is owed is late; pushes do not put it off.
    until: Option<Instant>,
    session: u32,
    /// Those that were closed while an answer was owed.
    left: Vec<u32>,
    warnings: Vec<String>,
}

impl Probe {
    async fn start(program: &Program, timing: &Timing) -> Outcome<Self> {
        let failed = |error: std::io::Error| format!("failed to start: {}", why(&error));
        let (child, pipes) = program.start(&[]).map_err(failed)?;
        let mut probe = Probe {
            child,
            stdin: Some(pipe::Sender::from_owned_fd(pipes.stdin).map_err(failed)?),
            stdout: pipes.stdout,
            stderr: Stderr::new("the plugin".to_owned(), pipes.stderr),
            input: BytesMut::new(),
            names: Vec::new(),
            patience: timing.answer,
            until: None,
            session: 0,
            left: Vec::new(),
            warnings: Vec::new(),
        };
        let greeting = timeout(timing.start, probe.greeting()).await;
        let greeting = greeting.map_err(|_| {
            format!(
                "said nothing within {:?}; expected the first line `greetd-plugin 1 NAME` on stdout, unbuffered",
                timing.start
            )
        });
        match greeting.and_then(|greeting| greeting) {
            Ok(greeting) => probe.names = greeting.names,
            Err(reason) => return Err(probe.with_last_words(reason).await),
        }
        Ok(probe)
    }

    async fn greeting(&mut self) -> Outcome<Greeting> {
        loop {
            if let Some(greeting) = Greeting::take(&mut self.input).map_err(|error| error.to_string())? {
                return Ok(greeting);
            }
            if self.read().await? == 0 {
                return Err(if self.input.is_empty() {
                    "ended before its first line".to_owned()
                } else {
                    GreetingError::of(&self.input).to_string()
                });
            }
        }
    }

    async fn judge(&mut self) -> Outcome<Checked> {
        let mut passed = vec![format!("names its handlers: {}", self.names.join(", "))];
        for name in self.names.clone() {
            self.answers_connections(&name).await?;
            self.answers_datagrams(&name).await?;
            passed.push(format!("{name} answers openings and messages, on connections and on datagrams"));
            self.keeps_sessions_apart(&name).await?;
            passed.push(format!("{name} keeps sessions apart, and answers what comes at once"));
            self.takes_any_bytes(&name).await?;
            passed.push(format!("{name} takes empty, binary and long messages, however they are cut"));
            self.ignores_what_it_does_not_know(&name).await?;
            passed.push(format!("{name} ignores frames that it does not know, and serves on"));
            self.bears_sudden_ends(&name).await?;
            passed.push(format!("{name} bears peers that leave in the middle, and messages that come too late"));
        }
        self.ends().await?;
        passed.push("ends when its stdin does".to_owned());
        Ok(Checked { names: self.names.clone(), passed, warnings: std::mem::take(&mut self.warnings) })
    }

    async fn answers_connections(&mut self, name: &str) -> Outcome {
        let session = self.open(name, true).await?;
        self.answer("the opening of a connection", session).await?;
        self.message(session, b"greetd").await?;
        let answer = self.answer("a message", session).await?;
        self.close(session, &answer).await
    }

    async fn answers_datagrams(&mut self, name: &str) -> Outcome {
        let session = self.open(name, false).await?;
        let answer = self.answer("the opening of a session of datagrams", session).await?;
        if answer.kind == Type::Reply as u8 {
            self.warnings.push(format!(
                "{name} replies to the opening of a session of datagrams: the peer hears it before its first answer"
            ));
        }
        self.message(session, b"greetd").await?;
        let answer = self.answer("a datagram", session).await?;
        self.close(session, &answer).await
    }

    async fn keeps_sessions_apart(&mut self, name: &str) -> Outcome {
        let (one, other) = (self.open(name, true).await?, self.open(name, true).await?);
        let mut frames = BytesMut::new();
        for number in 0..8 {
            for session in [one, other] {
                frame::encode(Type::Message, session, &[format!("message {number}").as_bytes()], &mut frames);
            }
        }
        self.write(&frames).await?;
        let mut owed = [(one, 9, false), (other, 9, false)];
        while owed.iter().any(|(_, owed, closed)| *owed > 0 && !closed) {
            let frame = self.next("one of many messages that came at once").await?;
            let Some((_, owed, closed)) = owed.iter_mut().find(|(session, ..)| *session == frame.session) else {
                return Err(format!("answered in session {}, where it was asked in {one} and {other}", frame.session));
            };
            match frame.kind {
                _ if *closed => return Err("answered in a session that it had closed".to_owned()),
                kind if kind == Type::Close as u8 => *closed = true,
                kind if kind == Type::Push as u8 => {}
                _ if *owed == 0 => return Err("gave more answers than it was sent messages".to_owned()),
                _ => *owed -= 1,
            }
        }
        for (session, _, closed) in owed {
            if !closed {
                self.send(Type::Close, session, b"").await?;
            }
        }
        Ok(())
    }

    async fn takes_any_bytes(&mut self, name: &str) -> Outcome {
        let long = vec![b'x'; LONG];
        for (what, message) in [
            ("an empty message", &b""[..]),
            ("a message with NUL, line feed and bytes that are no text", b"\0\n\r\xff\xfe"),
            ("a message of a megabyte", &long),
        ] {
            let session = self.open(name, true).await?;
            self.answer("the opening of a connection", session).await?;
            self.message(session, message).await?;
            let answer = self.answer(what, session).await?;
            self.close(session, &answer).await?;
        }
        let session = self.open(name, true).await?;
        self.answer("the opening of a connection", session).await?;
        let mut frame = BytesMut::new();
        frame::encode(Type::Message, session, &[b"in pieces"], &mut frame);
        for byte in frame {
            self.write(&[byte]).await?;
            // So that it may read each by itself.
            tokio::task::yield_now().await;
        }
        let answer = self.answer("a message that came a byte at a time", session).await?;
        self.close(session, &answer).await
    }

    async fn ignores_what_it_does_not_know(&mut self, name: &str) -> Outcome {
        let mut frames = BytesMut::new();
        frame::encode(Type::Message, 4_000_000_000, &[b"to nobody"], &mut frames);
        frame::encode(Type::Close, 4_000_000_000, &[], &mut frames);
        frame::header(200, 0, 9, &mut frames);
        frames.extend_from_slice(b"of a type");
        self.write(&frames).await?;
        let session = self.open(name, true).await?;
        let answer = self.next("an opening after frames of unknown sessions and types").await?;
        if answer.session != session {
            return Err("answered a frame of an unknown session or type; such frames are to be ignored".to_owned());
        }
        self.close(session, &answer).await
    }

    /// Whoever asked may be gone before the answer: it may come or not, and no other session notices.
    async fn bears_sudden_ends(&mut self, name: &str) -> Outcome {
        let left = self.open(name, true).await?;
        self.left.push(left);
        let mut frames = BytesMut::new();
        for (kind, payload) in [(Type::Message, &b"asked"[..]), (Type::Close, b""), (Type::Message, b"too late")] {
            frame::encode(kind, left, &[payload], &mut frames);
        }
        frame::encode(Type::Close, left, &[], &mut frames);
        self.write(&frames).await?;
        let session = self.open(name, true).await?;
        self.answer("an opening after another session was closed in the middle", session).await?;
        self.message(session, b"greetd").await?;
        let answer = self.answer("a message after another session was closed in the middle", session).await?;
        self.close(session, &answer).await
    }

    /// It ends with its stdin, and has nothing left to say.
    async fn ends(&mut self) -> Outcome {
        self.stdin = None;
        let ended = async {
            loop {
                // What was under way for sessions that are over may still come; what is no frame may not.
                while frame::decode(&mut self.input).map_err(|error| error.to_string())?.is_some() {}
                if self.read().await? == 0 {
                    return Ok::<_, String>(self.child.ended().await);
                }
            }
        };
        let late = || format!("did not end within {ENDING:?} after its stdin did");
        match timeout(ENDING, ended).await.map_err(|_| late())?? {
            Exit::Status(0) | Exit::Unknown => {}
            exit => self.warnings.push(format!("{exit} when its stdin ended; 0 is expected")),
        }
        Ok(())
    }

    async fn open(&mut self, handler: &str, connected: bool) -> Outcome<u32> {
        self.session += 1;
        let open = serde_json::json!({
            "handler": handler,
            "transport": if connected { "tcp" } else { "udp" },
            "local": "127.0.0.1:8080",
            "remote": "127.0.0.1:40123",
            "connected": connected,
            "options": {},
            "facts": {},
            "a member that nobody knows yet": [1, 2, 3],
        });
        self.send(Type::Open, self.session, open.to_string().as_bytes()).await?;
        Ok(self.session)
    }

    async fn message(&mut self, session: u32, message: &[u8]) -> Outcome {
        self.send(Type::Message, session, message).await
    }

    /// Closes a session, unless its last answer did.
    async fn close(&mut self, session: u32, answer: &Frame) -> Outcome {
        if answer.kind == Type::Close as u8 { Ok(()) } else { self.send(Type::Close, session, b"").await }
    }

    async fn send(&mut self, kind: Type, session: u32, payload: &[u8]) -> Outcome {
        let mut output = BytesMut::new();
        frame::encode(kind, session, &[payload], &mut output);
        self.write(&output).await
    }

    /// Writes, and reads meanwhile: a plugin may answer before it has read all.
    async fn write(&mut self, mut bytes: &[u8]) -> Outcome {
        let late = format!("did not read what it was sent within {:?}", self.patience);
        let all = async {
            while !bytes.is_empty() {
                let Some(stdin) = &mut self.stdin else { return Ok(()) };
                self.input.reserve(LONG);
                tokio::select! {
                    written = stdin.write(bytes) => {
                        let written = written.map_err(|_| "closed its stdin".to_owned())?;
                        bytes = &bytes[written..];
                    }
                    read = self.stdout.read_buf(&mut self.input) => {
                        if matches!(read, Ok(0) | Err(_)) {
                            return Err("closed its stdout".to_owned());
                        }
                        if self.input.len() > frame::LARGEST {
                            return Err(format!("wrote {} bytes where it was to read", self.input.len()));
                        }
                    }
                }
            }
            Ok(())
        };
        timeout(self.patience, all).await.map_err(|_| late)?
    }

    async fn read(&mut self) -> Outcome<usize> {
        self.input.reserve(64 * 1024);
        self.stdout.read_buf(&mut self.input).await.map_err(|error| format!("failed to answer: {}", named(&error)))
    }

    /// The next frame.
    async fn next(&mut self, asked: &str) -> Outcome<Frame> {
        let patience = self.patience;
        let until = *self.until.get_or_insert_with(|| Instant::now() + patience);
        let late = || format!("did not answer {asked} within {patience:?}; each wants a reply, silent, close or error");
        let frame = async {
            loop {
                match frame::decode(&mut self.input).map_err(|error| error.to_string())? {
                    Some(frame) if self.left.contains(&frame.session) => continue,
                    Some(frame) => return Ok(frame),
                    None => {}
                }
                if self.read().await? == 0 {
                    return Err(format!("closed its stdout where {asked} was to be answered"));
                }
            }
        };
        let frame: Outcome<Frame> = timeout_at(until, frame).await.map_err(|_| late())?;
        let frame = frame?;
        if frame.kind != Type::Push as u8 {
            self.until = None;
        } else if Instant::now() >= until {
            return Err(late());
        }
        match frame.kind {
            kind if kind == Type::Error as u8 => {
                Err(format!("answered {asked} with an error: {}", Escaped::new(&frame.payload)))
            }
            3..=5 | 7 => Ok(frame),
            other => Err(format!("wrote a frame of type {other}, which plugins do not send")),
        }
    }

    /// The next answer in that session, which must be the only one that is owed.
    async fn answer(&mut self, asked: &str, session: u32) -> Outcome<Frame> {
        loop {
            let frame = self.next(asked).await?;
            if frame.session != session {
                return Err(format!("answered {asked} in session {}, not in {session}", frame.session));
            }
            if frame.kind != Type::Push as u8 {
                return Ok(frame);
            }
        }
    }

    async fn with_last_words(&mut self, reason: String) -> String {
        self.child.kill();
        let _ = timeout(ENDING, std::future::poll_fn(|cx| self.stderr.poll(cx))).await;
        match self.stderr.last() {
            Some(last) => format!("{reason}; the last that it said on stderr is: {last}"),
            None => reason,
        }
    }
}
