//! Where the messages to send come from.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use tokio::sync::mpsc;

/// How long a line from stdin may be. What is longer is an error rather than a message cut in two.
const LONGEST_LINE: u64 = 16 << 20;
/// How many lines are read ahead of the conversation.
const AHEAD: usize = 16;

/// How long reading what is there already may take.
const READING: Duration = Duration::from_millis(50);

/// Messages, one after another.
pub(super) enum Source {
    /// From the command line.
    Given(VecDeque<Vec<u8>>),
    /// From a thread that reads.
    Read(mpsc::Receiver<io::Result<Vec<u8>>>),
}

impl Source {
    pub(super) fn given(messages: impl Iterator<Item = Vec<u8>>) -> Self {
        Source::Given(messages.collect())
    }

    /// The lines of stdin, without their ends. They are read in a thread that the end of the process ends.
    pub(super) fn stdin() -> Self {
        Source::from_thread(|lines| send_lines(&mut io::stdin().lock(), &lines))
    }

    /// What a thread sends, until it ends.
    pub(super) fn from_thread(read: impl FnOnce(mpsc::Sender<io::Result<Vec<u8>>>) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        std::thread::spawn(move || read(sender));
        Source::Read(receiver)
    }

    /// The next message; `None` when there will be none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        match self {
            Source::Given(messages) => messages.pop_front().map(Ok),
            Source::Read(lines) => lines.recv().await,
        }
    }

    /// The message that would have been next, when the conversation is over already. What is still being typed, or
    /// made, is none.
    pub(super) async fn unsent(&mut self) -> Option<io::Result<Vec<u8>>> {
        tokio::time::timeout(READING, self.next()).await.ok().flatten()
    }
}

/// Reads lines until the end, an error, or nobody wants them any more.
fn send_lines(input: &mut impl BufRead, lines: &mpsc::Sender<io::Result<Vec<u8>>>) {
    loop {
        let line = read_line(input).transpose();
        let Some(line) = line else { return };
        let failed = line.is_err();
        if lines.blocking_send(line).is_err() || failed {
            return;
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == LONGEST_LINE {
        return Err(io::Error::other(format!("a line is longer than {LONGEST_LINE} bytes")));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8]) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| read_line(&mut input).unwrap()).collect()
    }

    #[test]
    fn a_line_is_what_stands_before_its_end_whatever_bytes_they_are() {
        assert_eq!(lines(b"a\n\xff\x00\r\n\nlast"), [&b"a"[..], b"\xff\x00\r", b"", b"last"]);
        assert_eq!(lines(b""), [b""; 0]);
    }

    #[tokio::test]
    async fn what_a_thread_reads_comes_in_order_and_then_ends() {
        let mut source = Source::from_thread(|lines| send_lines(&mut &b"1\n2\n"[..], &lines));
        assert_eq!(source.next().await.unwrap().unwrap(), b"1");
        assert_eq!(source.next().await.unwrap().unwrap(), b"2");
        assert!(source.next().await.is_none());
    }
}
