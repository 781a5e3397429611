//! How much of one session may be with the child, unanswered.

/// The most messages.
const MESSAGES: usize = 64;
/// The most bytes, of messages and of the answers that are to be expected; one message may always be there.
const BYTES: usize = 1 << 20;

/// Opens by one with each answer, from a single message on, and no further than large answers allow: the answers to all
/// that the child was sent wait here for a peer that reads late, and the child cannot be made to wait.
#[derive(Debug)]
pub(super) struct Window {
    open: usize,
    /// The messages that are not answered.
    messages: usize,
    /// The bytes sent since none was unanswered: an upper bound of those that are unanswered now.
    bytes: usize,
    largest_answer: usize,
}

impl Window {
    /// Of a session whose opening is unanswered.
    pub(super) fn new() -> Self {
        Window { open: 1, messages: 1, bytes: 0, largest_answer: 0 }
    }

    /// How many messages are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.messages
    }

    /// Whether there is room for another message.
    pub(super) fn has_room(&self) -> bool {
        let answers = BYTES / self.largest_answer.max(1);
        self.messages == 0 || (self.messages < self.open.min(answers) && self.bytes < BYTES)
    }

    pub(super) fn sent(&mut self, size: usize) {
        self.messages += 1;
        self.bytes += size;
    }

    pub(super) fn answered(&mut self, size: usize) {
        self.messages -= 1;
        if self.messages == 0 {
            self.bytes = 0;
        }
        self.largest_answer = self.largest_answer.max(size);
        self.open = (self.open + 1).min(MESSAGES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(window: &mut Window, size: usize) -> usize {
        while window.has_room() {
            window.sent(size);
        }
        window.unanswered()
    }

    #[test]
    fn it_opens_with_each_answer_to_sixty_four_messages() {
        let mut window = Window::new();
        assert!(!window.has_room(), "the opening comes first");
        window.answered(7);
        for expected in 2..=MESSAGES {
            assert_eq!(filled(&mut window, 1), expected);
            window.answered(1);
        }
        assert_eq!(filled(&mut window, 1), MESSAGES);
    }

    #[test]
    fn what_may_wait_for_a_late_reader_is_bounded_by_messages_and_answers() {
        let mut window = Window::new();
        window.answered(7);
        for _ in 0..100 {
            window.sent(1);
            window.answered(BYTES / 4);
        }
        assert_eq!(filled(&mut window, 1), 4);
        let mut window = Window::new();
        (0..MESSAGES).for_each(|_| {
            window.sent(0);
            window.answered(1);
        });
        window.answered(1);
        assert_eq!(filled(&mut window, BYTES / 4), 4);
        window.answered(1);
        assert!(!window.has_room(), "what was sent counts until all of it is answered");
        (0..3).for_each(|_| window.answered(1));
        assert!(window.has_room());
    }

    #[test]
    fn one_message_may_always_be_there_however_long_its_answer_will_be() {
        let mut window = Window::new();
        window.answered(100 * BYTES);
        window.sent(100 * BYTES);
        window.answered(100 * BYTES);
        assert!(window.has_room());
    }
}
