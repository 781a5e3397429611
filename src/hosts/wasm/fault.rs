//! What a guest did wrong.

use std::fmt;

use wasmtime::Trap;

use super::API;
use super::memory::TooMuch;
use super::meter::TooLate;
use crate::event::PluginSessionFault;

/// What went wrong, in words that are read after the plugin's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// None where it is not this guest's fault, or not by what it was asked here.
    pub(super) kind: Option<PluginSessionFault>,
    words: String,
}

impl Fault {
    pub(super) fn new(kind: PluginSessionFault, words: impl Into<String>) -> Self {
        Fault { kind: Some(kind), words: words.into() }
    }

    pub(super) fn other(words: impl Into<String>) -> Self {
        Fault { kind: None, words: words.into() }
    }

    /// Of a call that failed.
    pub(super) fn of_call(error: &wasmtime::Error) -> Self {
        Fault::own(error)
            .unwrap_or_else(|| Fault::new(PluginSessionFault::Trap, format!("failed: {}", error.root_cause())))
    }

    /// Of an instance that was not made.
    pub(super) fn of_start(error: &wasmtime::Error) -> Self {
        Fault::own(error).unwrap_or_else(|| Fault::other(format!("does not fit greetd:plugin@{API}: {error:#}")))
    }

    fn own(error: &wasmtime::Error) -> Option<Self> {
        if let Some(late) = error.downcast_ref::<TooLate>() {
            return Some(Fault::new(PluginSessionFault::Overdue, late.to_string()));
        }
        if let Some(much) = error.downcast_ref::<TooMuch>() {
            // That all instances together have too much is no single one's fault.
            return Some(match much {
                TooMuch::Together { .. } => Fault::other(much.to_string()),
                _ => Fault::new(PluginSessionFault::Memory, much.to_string()),
            });
        }
        let words = match error.downcast_ref::<Trap>()? {
            Trap::UnreachableCodeReached => "gave up: it reached what it holds for unreachable".to_owned(),
            Trap::StackOverflow => "ran out of stack".to_owned(),
            Trap::MemoryOutOfBounds => "reached beyond its memory".to_owned(),
            trap => format!("failed: {trap}"),
        };
        Some(Fault::new(PluginSessionFault::Trap, words))
    }

    /// The same with more words behind it.
    pub(super) fn and(mut self, words: &str) -> Self {
        self.words.push_str(words);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
