//! What guests say, into the log: escaped, cut, and not more of it than anybody reads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::bindings::host::Level;
use crate::escape::Escaped;

/// A line is cut here.
const LONGEST_LINE: usize = 1024;
/// How many lines a second are logged; more are counted.
const LINES: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// The lines of one plugin.
#[derive(Debug)]
pub(super) struct Said {
    plugin: String,
    lately: Mutex<Lately>,
}

#[derive(Debug)]
struct Lately {
    second: Instant,
    said: u32,
    kept_back: u64,
}

impl Lately {
    /// Whether a line more may be logged, and how many were kept back before it.
    fn may_say(&mut self) -> Option<u64> {
        let now = Instant::now();
        if now - self.second >= SECOND {
            *self = Lately { second: now, said: 0, kept_back: self.kept_back };
        }
        if self.said == LINES {
            self.kept_back += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

impl Said {
    pub(super) fn new(plugin: String) -> Self {
        Said { plugin, lately: Mutex::new(Lately { second: Instant::now(), said: 0, kept_back: 0 }) }
    }

    pub(super) fn line(&self, level: Level, line: &str) {
        let Some(kept_back) = self.lately.lock().unwrap_or_else(PoisonError::into_inner).may_say() else { return };
        let kept_back = Some(kept_back).filter(|count| *count > 0);
        let line = Escaped::new(&line.as_bytes()[..line.len().min(LONGEST_LINE)]).to_string();
        let program = &self.plugin;
        match level {
            Level::Debug => tracing::debug!(target: "greetd", program, kept_back, line, "program.said"),
            Level::Info => tracing::info!(target: "greetd", program, kept_back, line, "program.said"),
            Level::Warn => tracing::warn!(target: "greetd", program, kept_back, line, "program.said"),
            Level::Error => tracing::error!(target: "greetd", program, kept_back, line, "program.said"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn twenty_lines_a_second_are_said_and_the_rest_is_counted() {
        let said = Said::new("x".to_owned());
        let may_say = || said.lately.lock().unwrap().may_say();
        assert!((0..20).all(|_| may_say() == Some(0)));
        assert!((0..5).all(|_| may_say().is_none()));
        tokio::time::advance(SECOND).await;
        assert_eq!(may_say(), Some(5));
    }
}
