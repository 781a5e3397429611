//! What a child said in one session and the session has not yet taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;

/// How many bytes may wait for one session whose peer does not take them. What is more costs that session its life:
/// the child cannot be made to wait, since it speaks for all.
pub(super) const INBOX: usize = 4 << 20;

/// So many answers may share the memory that they were read into; those behind them are copied, lest a few bytes that
/// nobody takes keep what all sessions were sent with them.
const SHARED: usize = 16;

/// What a child says in one session.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Bytes),
    Silent,
    Push(Bytes),
    Close(Bytes),
    /// The plugin did wrong in this session: so it is over.
    Failed(String),
    /// The plugin is no more.
    Over(Arc<str>),
}

/// What the child said in one session and the session has not yet taken.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Answer>,
    bytes: usize,
    session: Option<Waker>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room.
    pub(super) fn lay(&self, mut answer: Answer) -> bool {
        let mut waiting = self.lock();
        let size = match &answer {
            Answer::Reply(bytes) | Answer::Push(bytes) | Answer::Close(bytes) => bytes.len(),
            Answer::Silent | Answer::Failed(_) | Answer::Over(_) => 0,
        };
        // What an answer costs beside its bytes, so that empty ones fill it too.
        let cost = size + size_of::<Answer>();
        if waiting.bytes > 0 && waiting.bytes + cost > INBOX {
            return false;
        }
        if waiting.answers.len() >= SHARED
            && let Answer::Reply(bytes) | Answer::Push(bytes) = &mut answer
        {
            *bytes = Bytes::copy_from_slice(bytes);
        }
        waiting.bytes += cost;
        waiting.add(answer);
        true
    }

    /// The last answer, for which there is always room.
    pub(super) fn end(&self, answer: Answer) {
        self.lock().add(answer);
    }

    /// Moves all there is to `answers`, which is empty; whether there was any.
    pub(super) fn take(&self, answers: &mut VecDeque<Answer>, cx: &mut Context<'_>) -> bool {
        let mut waiting = self.lock();
        if waiting.answers.is_empty() {
            if !waiting.session.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                waiting.session = Some(cx.waker().clone());
            }
            return false;
        }
        waiting.bytes = 0;
        std::mem::swap(&mut waiting.answers, answers);
        true
    }
}

impl Waiting {
    fn add(&mut self, answer: Answer) {
        self.answers.push_back(answer);
        if let Some(session) = &self.session {
            session.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_that_nobody_takes_do_not_keep_what_they_were_read_with() {
        let inbox = Inbox::default();
        let chunks: Vec<Bytes> = (0..1000).map(|_| Bytes::from(vec![b'x'; 65_536])).collect();
        for chunk in &chunks {
            assert!(inbox.lay(Answer::Push(chunk.slice(..1))));
        }
        assert!(chunks.iter().filter(|chunk| !chunk.is_unique()).count() <= SHARED);
    }

    #[test]
    fn it_is_full_at_last_even_of_empty_answers() {
        let inbox = Inbox::default();
        let fitted = (0..INBOX).take_while(|_| inbox.lay(Answer::Push(Bytes::new()))).count();
        assert!((1..INBOX / 8).contains(&fitted), "{fitted}");
    }
}
