//! How a command that failed says so: one verdict, in words or as JSON.

use std::io::{self, IsTerminal as _};

use serde::Serialize;
use serde_json::{Map, Value};

use super::output;
use crate::escape::Printable;
use crate::verdict::Verdict;

/// How wide a line on a terminal may be.
const WIDTH: usize = 80;

/// How a command ended.
pub(super) type Outcome = Result<(), Stop>;

/// Why a command ended before it was done.
#[derive(Debug)]
pub(super) enum Stop {
    /// It failed, which must be said.
    Failed(Box<Failure>),
    /// Whoever read its output went away: nobody is left to tell.
    BrokenPipe,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(Box::new(failure))
    }
}

/// A failure to write to stdout.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::BrokenPipe,
            _ => Failure::new(Verdict::Failed, format!("failed to write to stdout: {}", crate::error::named(&error)))
                .into(),
        }
    }
}

/// What failed, why here and now, and what to do.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) verdict: Verdict,
    /// What failed: one line.
    pub(super) message: String,
    /// The likely causes, as this machine shows them.
    pub(super) causes: Vec<String>,
    /// What to change.
    pub(super) remedies: Vec<String>,
    /// What else stands in the JSON object.
    pub(super) facts: Map<String, Value>,
    /// Whether it is said in words even where JSON was asked for.
    in_words: bool,
}

impl Failure {
    pub(super) fn new(verdict: Verdict, message: impl Into<String>) -> Self {
        Failure {
            verdict,
            message: message.into(),
            causes: Vec::new(),
            remedies: Vec::new(),
            facts: Map::new(),
            in_words: false,
        }
    }

    pub(super) fn with_causes(mut self, causes: impl IntoIterator<Item = String>) -> Self {
        self.causes.extend(causes);
        self
    }

    pub(super) fn with_remedies(mut self, remedies: impl IntoIterator<Item = String>) -> Self {
        self.remedies.extend(remedies);
        self
    }

    pub(super) fn with_fact(mut self, name: &str, value: impl Serialize) -> Self {
        // Only a map with keys that are no text fails, and there is none.
        self.facts.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// The same to be said in words alone: the one object that was asked for is out already.
    pub(super) fn in_words(mut self) -> Self {
        self.in_words = true;
        self
    }

    /// Says it: JSON on stdout, else text on stderr. Nobody is left to tell where that fails.
    pub(super) fn report(&self, json: bool) {
        if json && !self.in_words {
            let _ = output::print_json(&self.to_json());
        } else {
            let wide = if io::stderr().is_terminal() { Some(WIDTH) } else { None };
            output::tell(self.to_text(output::colour(&io::stderr()), wide).trim_end());
        }
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("verdict".into(), self.verdict.word().into());
        object.insert("message".into(), self.message.clone().into());
        object.insert("causes".into(), self.causes.clone().into());
        object.insert("remedies".into(), self.remedies.clone().into());
        object.extend(self.facts.clone());
        object.into()
    }

    /// Each line as it is for a program that reads it, and broken where a terminal would break it within a word.
    fn to_text(&self, colour: bool, width: Option<usize>) -> String {
        let (red, plain) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mut text = format!("{red}{}{plain}: ", self.verdict);
        let message = Printable::line(self.message.as_bytes()).to_string();
        push_broken(&mut text, &message, self.verdict.word().len() + 2, width);
        for line in self.causes.iter().chain(&self.remedies) {
            text.push_str("  ");
            push_broken(&mut text, &Printable::line(line.as_bytes()).to_string(), 2, width);
        }
        text
    }
}

/// Adds a line that begins in that column. What does not fit goes on below, four columns in.
fn push_broken(text: &mut String, line: &str, mut column: usize, width: Option<usize>) {
    for (place, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if place > 0 && width.is_some_and(|width| column + 1 + length > width) {
            text.push_str("\n    ");
            column = 4;
        } else if place > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure::new(Verdict::InUse, "failed to bind\x1b[2J")
            .with_causes(["python3 has it".to_owned()])
            .with_remedies(["stop it\nok: all well".to_owned()])
            .with_fact("holders", [1])
    }

    #[test]
    fn the_first_word_is_the_verdict_and_nothing_can_forge_another_line() {
        assert_eq!(
            failure().to_text(false, None),
            "in-use: failed to bind\\x1b[2J\n  python3 has it\n  stop it\\nok: all well\n"
        );
    }

    #[test]
    fn on_a_terminal_no_line_is_longer_than_80_columns() {
        let long = Failure::new(Verdict::InUse, "word ".repeat(40)).with_causes(["another ".repeat(30)]);
        let text = long.to_text(false, Some(WIDTH));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.split_whitespace().count(), long.to_text(false, None).split_whitespace().count());
    }

    #[test]
    fn the_object_has_the_verdict_the_words_and_the_facts() {
        assert_eq!(
            failure().to_json().to_string(),
            "{\"causes\":[\"python3 has it\"],\"holders\":[1],\"message\":\"failed to bind\\u001b[2J\",\
             \"remedies\":[\"stop it\\nok: all well\"],\"verdict\":\"in-use\"}"
        );
    }
}
