//! What a program says on stderr, line by line, into the log: escaped, cut, and not more of it than anybody reads.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::escape::Escaped;

/// A line is cut here.
const LONGEST_LINE: usize = 1024;
/// How many lines a second are logged; more are counted.
const LINES: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// The lines of one program.
pub(super) struct Stderr {
    program: String,
    pipe: Option<pipe::Receiver>,
    buffer: BytesMut,
    /// The rest of a line that was cut is not a line.
    skipping: bool,
    last: Option<String>,
    second: Instant,
    said: u32,
    kept_back: u64,
}

impl Stderr {
    pub(super) fn new(program: String, pipe: pipe::Receiver) -> Self {
        Stderr {
            program,
            pipe: Some(pipe),
            buffer: BytesMut::new(),
            skipping: false,
            last: None,
            second: Instant::now(),
            said: 0,
            kept_back: 0,
        }
    }

    /// The last line so far, safe to print.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Logs what comes, until it is closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(pipe) = &mut self.pipe {
            self.buffer.reserve(LONGEST_LINE);
            if let Ok(1..) = ready!(poll_read_buf(std::pin::Pin::new(pipe), cx, &mut self.buffer)) {
                self.cut();
            } else {
                // Nobody will say more. What it said without an end of line was meant as one.
                self.pipe = None;
                self.line_until(self.buffer.len());
            }
        }
        Poll::Ready(())
    }

    fn cut(&mut self) {
        while let Some(at) = memchr::memchr(b'\n', &self.buffer) {
            self.line_until(at);
            let _ = self.buffer.split_to(1);
            self.skipping = false;
        }
        if self.buffer.len() >= LONGEST_LINE {
            self.line_until(self.buffer.len());
            self.skipping = true;
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    fn line_until(&mut self, at: usize) {
        let line = self.buffer.split_to(at);
        if self.skipping || line.is_empty() {
            return;
        }
        let line = Escaped::new(&line).to_string();
        let now = Instant::now();
        if now - self.second >= SECOND {
            self.second = now;
            self.said = 0;
        }
        self.said += 1;
        if self.said > LINES {
            self.kept_back += 1;
        } else {
            let kept_back = Some(std::mem::take(&mut self.kept_back)).filter(|count| *count > 0);
            tracing::info!(target: "greetd", program = self.program, kept_back, line, "program.said");
        }
        self.last = Some(line);
    }
}
