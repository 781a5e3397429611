//! A conversation with a person: lines edited at the foot of the terminal, replies above them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc;

use super::replies::Replies;
use super::source::Source;
use crate::cli::failure::Outcome;
use crate::escape::Printable;

const PROMPT: &str = "> ";
/// How long the editor may take to show the last lines.
const SHOWING: Duration = Duration::from_millis(50);

/// The lines that are typed, and what shows the replies without disturbing them.
pub(super) fn open() -> Result<(Source, Shown), String> {
    let failed = |error| format!("failed to open the terminal: {error}");
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = DefaultEditor::with_config(config).map_err(failed)?;
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    let printer = editor.create_external_printer().map_err(failed)?;
    let restored = Restored::now();
    let source = Source::from_thread(move |lines| read(&mut editor, history.as_deref(), &lines));
    Ok((source, Shown { printer: Box::new(printer), reply: String::new(), _restored: restored }))
}

/// Reads until Ctrl-D or Ctrl-C.
fn read(editor: &mut DefaultEditor, history: Option<&Path>, lines: &mpsc::Sender<io::Result<Vec<u8>>>) {
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => Ok(line.into_bytes()),
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return,
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        if let Some(file) = history {
            // A history that cannot be kept is no reason to stop.
            let _ = editor.save_history(file);
        }
        let failed = line.is_err();
        if lines.blocking_send(line).is_err() || failed {
            return;
        }
    }
}

/// In the folder for state of the XDG base directory specification; it is made where it is missing.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?.join("greetd");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("call_history"))
}

/// Shows replies above the line that is being typed.
pub(super) struct Shown {
    printer: Box<dyn ExternalPrinter>,
    reply: String,
    _restored: Option<Restored>,
}

impl Shown {
    fn print(&mut self, lines: String) -> Outcome {
        self.printer.print(lines).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(())
    }
}

impl Replies for Shown {
    fn sent(&mut self, _: &[u8]) {}

    fn piece(&mut self, bytes: &[u8]) -> Outcome {
        self.reply.push_str(&Printable::lines(bytes).to_string());
        Ok(())
    }

    fn complete(&mut self) -> Outcome {
        let mut reply = std::mem::take(&mut self.reply);
        if !reply.ends_with('\n') {
            reply.push('\n');
        }
        self.print(reply)
    }

    fn closed_early(&mut self) -> Outcome {
        self.print("(the server ended the conversation)\n".to_owned())?;
        // The editor's thread shows what it was handed, and cannot be asked whether it has.
        std::thread::sleep(SHOWING);
        Ok(())
    }
}

/// Puts the terminal back as it was: the server may end the conversation while the editor has it in raw mode.
struct Restored(Termios);

impl Restored {
    fn now() -> Option<Self> {
        tcgetattr(io::stdin()).ok().map(Restored)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
