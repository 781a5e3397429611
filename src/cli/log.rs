//! The log: events on stderr, as lines of text or of JSON that nobody can forge.
//!
//! Whatever stands in a message or a field is shown on one line, with controls escaped, and a value of several words
//! in quotes: a peer that sends a line feed, an escape sequence or ` level=error` has sent just that.

mod held;

use std::fmt;
use std::io::{self, Stderr};
use std::str::FromStr;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use super::output;
use crate::escape::Printable;
use held::Held;

/// How many bytes of a value are shown.
const SHOWN_BYTES: usize = 4096;

/// The names of the options, which every command takes.
pub(super) const OPTIONS: [&str; 4] = ["log_format", "log_level", "verbose", "quiet"];

/// What is logged, and how.
#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Log, on stderr")]
pub(super) struct Args {
    /// Lines of text, or of JSON
    #[arg(long, global = true, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    log_format: Format,
    /// The least that is logged: off, error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = LevelFilter::from_str)]
    log_level: Option<LevelFilter>,
    /// Log more: each session; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with_all = ["quiet", "log_level"])]
    verbose: u8,
    /// Log errors alone
    #[arg(short, long, global = true, conflicts_with = "log_level")]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Args {
    fn level(&self) -> LevelFilter {
        match (self.log_level, self.quiet, self.verbose) {
            (Some(level), ..) => level,
            (None, true, _) => LevelFilter::ERROR,
            (None, false, 0) => LevelFilter::INFO,
            (None, false, 1) => LevelFilter::DEBUG,
            (None, false, _) => LevelFilter::TRACE,
        }
    }
}

static STDERR: Held<Stderr> = Held::new(io::stderr);

/// Begins to log, into memory until it is [released](release). A program that has a subscriber of its own already keeps it.
pub(super) fn start(args: &Args) {
    let lines = Lines { format: args.log_format, colour: output::colour(&io::stderr()) };
    let _ = tracing::subscriber::set_global_default(subscriber(lines, args.level(), || &STDERR));
}

/// Shows what was logged, and from now on whatever is logged at once: the command cannot fail at its start any more, or
/// has said that it did.
pub(super) fn release() {
    STDERR.release();
}

fn subscriber<W>(lines: Lines, level: LevelFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(lines)
        .event_format(lines)
        .with_writer(writer)
        // Whoever read the log went away: there is nobody to complain to.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(level).with(layer)
}

/// Makes lines of events.
#[derive(Debug, Clone, Copy)]
struct Lines {
    format: Format,
    colour: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, Lines> for Lines {
    fn format_event(&self, context: &FmtContext<'_, S, Lines>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = *event.metadata().level();
        let mut fields = Fields::new(self.format);
        event.record(&mut fields);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<FormattedFields<Lines>>() {
                fields.add_of_span(of_span);
            }
        }
        let text = fields.in_line();
        match self.format {
            Format::Text => {
                let (on, off) = if self.colour { (colour(level), "\x1b[0m") } else { ("", "") };
                writeln!(out, "{time} {on}{level:>5}{off} {}{text}", fields.message)
            }
            Format::Json => writeln!(
                out,
                "{{\"time\":{},\"level\":{},\"target\":{},\"message\":{}{text}}}",
                quoted(&time),
                quoted(&level.as_str().to_ascii_lowercase()),
                quoted(event.metadata().target()),
                if fields.message.is_empty() { "\"\"" } else { &fields.message }
            ),
        }
    }
}

impl<'writer> FormatFields<'writer> for Lines {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut out: Writer<'writer>,
        of_span: R,
    ) -> fmt::Result {
        let mut fields = Fields::new(self.format);
        of_span.record(&mut fields);
        fields.each.iter().try_for_each(|(name, value)| write!(out, "{name}{WITHIN}{value}{BETWEEN}"))
    }
}

/// What separates a span's fields, and their names from their values, until they stand in a line: controls, which no
/// value has any more.
const BETWEEN: char = '\u{1e}';
const WITHIN: char = '\u{1f}';

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

/// Collects an event's message, and its fields in the form that the line wants.
struct Fields {
    format: Format,
    message: String,
    each: Vec<(String, String)>,
}

impl Fields {
    fn new(format: Format) -> Self {
        Fields { format, message: String::new(), each: Vec::new() }
    }

    /// A value that is text.
    fn text(&mut self, field: &Field, value: &str) {
        let value = cut(value);
        let shown = match self.format {
            Format::Json => quoted(value),
            Format::Text if field.name() == "message" => Printable::line(value.as_bytes()).to_string(),
            Format::Text => word_or_quoted(value),
        };
        self.shown(field, &shown);
    }

    /// A value that is shown as it is: a number, a truth.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.shown(field, &value.to_string());
    }

    fn shown(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        self.each.push((field.name().to_owned(), value.to_owned()));
    }

    /// Adds what an enclosing span says; what is said nearer by goes first.
    fn add_of_span(&mut self, fields: &str) {
        for field in fields.split(BETWEEN) {
            // Fields that a span was given later come after a space.
            if let Some((name, value)) = field.trim_start().split_once(WITHIN)
                && !self.each.iter().any(|(known, _)| known == name)
            {
                self.each.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn in_line(&self) -> String {
        let shown = |(name, value): &(String, String)| match self.format {
            Format::Text => format!(" {name}={value}"),
            Format::Json => format!(",{}:{value}", quoted(name)),
        };
        self.each.iter().map(shown).collect()
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.plain(field, value) } else { self.text(field, &value.to_string()) }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

fn cut(text: &str) -> &str {
    match text.char_indices().find(|(at, _)| *at >= SHOWN_BYTES) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// A value of one word as it is, of several in quotes, so that no value looks like another field.
fn word_or_quoted(value: &str) -> String {
    let shown = Printable::line(value.as_bytes()).to_string();
    if shown.is_empty() || shown.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=')) {
        format!("\"{}\"", shown.replace('"', "\\\""))
    } else {
        shown
    }
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(Printable::line(text.as_bytes()).to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// What is logged in that format.
    fn logged(format: Format, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = Lines { format, colour: false };
        let subscriber = subscriber(lines, LevelFilter::TRACE, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The line without the time that it begins with.
    fn text(log: impl FnOnce()) -> String {
        let line = logged(Format::Text, log);
        line.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn a_line_has_the_level_the_message_and_the_fields() {
        let line = text(|| tracing::info!(session = 7, lasted_s = 0.5, reason = "idle-timeout", "session.closed"));
        assert_eq!(line, " INFO session.closed session=7 lasted_s=0.5 reason=idle-timeout\n");
    }

    #[test]
    fn no_value_forges_a_line_a_field_or_an_escape_sequence() {
        let evil = "a\n2026 ERROR b=c \"\x1b[2J";
        let line = text(|| tracing::warn!(name = evil, shown = %evil, "said {evil}"));
        assert_eq!(
            line,
            " WARN said a\\n2026 ERROR b=c \"\\x1b[2J name=\"a\\n2026 ERROR b=c \\\"\\x1b[2J\" shown=\"a\\n2026 \
             ERROR b=c \\\"\\x1b[2J\"\n"
        );
    }

    #[test]
    fn the_fields_of_a_span_stand_with_its_events() {
        let line = text(|| tracing::info_span!("plugin", name = "a b").in_scope(|| tracing::debug!("started")));
        assert_eq!(line, "DEBUG started name=\"a b\"\n");
        let line = text(|| {
            let outer = tracing::info_span!("outer", session = 1, later = tracing::field::Empty).entered();
            outer.record("later", "x");
            tracing::info_span!("inner", session = 2).in_scope(|| tracing::debug!(name = "y", "said"));
        });
        assert_eq!(line, "DEBUG said name=y session=2 later=x\n");
    }

    #[test]
    fn a_line_of_json_is_an_object_whatever_stands_in_it() {
        let line = logged(Format::Json, || {
            tracing::info_span!("plugin", name = "x\ny").in_scope(|| {
                tracing::error!(count = 3, odd = f64::NAN, text = "\"},{\"\x1b", "it failed");
            });
        });
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "error");
        assert_eq!(object["message"], "it failed");
        assert_eq!(object["count"], 3);
        assert_eq!(object["odd"], "NaN");
        assert_eq!(object["text"], "\"},{\"\\x1b");
        assert_eq!(object["name"], "x\\ny");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_very_long_value_is_cut() {
        let line = text(|| tracing::info!(text = "é".repeat(SHOWN_BYTES), "x"));
        assert!(line.len() <= SHOWN_BYTES + 64, "{}", line.len());
    }
}
