//! The standard streams, written at once, whose readers may go away; and where colour is welcome.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write as _};

use serde_json::Value;

use super::failure::Outcome;

/// Prints text as it is.
pub(super) fn print(text: impl Display) -> Outcome {
    write(text.to_string().as_bytes())
}

/// Prints text that has styles of its own: with them on a terminal alone.
pub(super) fn show(styled: &clap::builder::StyledStr) -> Outcome {
    if colour(&io::stdout()) { print(styled.ansi()) } else { print(styled) }
}

/// Prints one object on one line.
pub(super) fn print_json(object: &Value) -> Outcome {
    print(format_args!("{object}\n"))
}

/// Writes bytes as they are, and flushes them.
pub(super) fn write(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Prints lines on stderr. Where nobody reads them any more there is nobody to tell.
pub(super) fn tell(lines: impl Display) {
    let _ = io::stderr().write_all(format!("{lines}\n").as_bytes());
}

/// Whether colour is welcome there: on a terminal, unless <https://no-color.org> says otherwise.
pub(super) fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
