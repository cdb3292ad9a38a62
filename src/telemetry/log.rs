//! The log: one line for each event on standard error, as JSON or as text.

use std::fmt::Debug;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal as _;
use std::io::Write;
use std::sync::OnceLock;

use prometheus::core::Collector;
use tracing::field::Field;
use tracing_appender::non_blocking::ErrorCounter;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::base::escape;
use crate::base::metrics;
use crate::config::Log;
use crate::config::LogFormat;

/// The size of the buffer, in lines. When it is full, because standard error is read too slowly, lines are dropped, so
/// that requests are not delayed.
const MAX_LINES: usize = 16 * 1024;

/// Counts dropped lines; set when the log is started.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Flushes the log when dropped.
#[derive(Debug)]
#[must_use = "without it, nothing is logged"]
pub struct Guard(#[expect(dead_code, reason = "kept for its drop")] WorkerGuard);

/// The collector of `doorward_log_lines_dropped_total`.
///
/// # Errors
/// Only when its name is not valid, which is a bug.
pub fn collectors() -> prometheus::Result<[Box<dyn Collector>; 1]> {
    let help = "Lines of the log that were dropped, because standard error was read too slowly.";
    Ok([metrics::total("log_lines_dropped_total", help, dropped_lines)?])
}

fn dropped_lines() -> u64 {
    let lines = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(lines).unwrap_or(u64::MAX)
}

/// Starts the log of this process.
pub fn start_log(log: &Log) -> Guard {
    // The writer thread batches the lines that wait into one write.
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_LINES)
        .thread_name("doorward-log")
        .finish(BufWriter::with_capacity(64 * 1024, io::stderr()));
    let _of_an_earlier_log = DROPPED.set(writer.error_counter());
    let level = LevelFilter::from_level(log.level);
    // Other crates log warnings and errors only.
    let others = level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(others).with_target("doorward", level);
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        let layer = fmt::layer().with_writer(move || Json(writer.clone())).with_target(false);
        registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    } else {
        let fields = format::debug_fn(write_text_field).delimited(" ");
        let layer = fmt::layer().fmt_fields(fields).with_writer(writer).with_target(false);
        registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init()
    };
    if let Err(error) = started {
        tracing::warn!(%error, "another log is running already");
    }
    Guard(guard)
}

/// Writes one field of a line of text. Escapes its value, which may contain what a sender wrote.
fn write_text_field(writer: &mut format::Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    let value = escape::line(&value);
    match field.name() {
        "message" => write!(writer, "{value}"),
        name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Escapes JSON lines for terminals; each call of `write` has to be one whole line.
struct Json<W>(W);

impl<W: Write> Write for Json<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // Nearly all lines are ASCII, of which JSON leaves only DEL unescaped.
        let plain = event.is_ascii() && !event.contains(&0x7f);
        let text = (!plain).then(|| String::from_utf8_lossy(event));
        match text.as_deref().map(escape::json) {
            None => self.0.write_all(event)?,
            Some(text) => self.0.write_all(text.as_bytes())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
