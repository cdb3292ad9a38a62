//! The log: one event a line on standard error, as JSON or for people.

use std::io::BufWriter;
use std::io::IsTerminal as _;

use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::Log;
use crate::settings::LogFormat;

/// Most lines that wait to be written; when the reader of standard error is slower, lines are dropped rather than
/// requests delayed.
const MAX_LINES: usize = 16 * 1024;

/// Writes out the last lines when dropped.
#[derive(Debug)]
#[must_use = "without it, nothing is logged"]
pub struct Guard(#[expect(dead_code, reason = "kept for its drop")] WorkerGuard);

/// Starts the log of this process.
pub fn start_log(log: &Log) -> Guard {
    // Lines are handed over in one write for as many as there are.
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_LINES)
        .thread_name("doorward-log")
        .finish(BufWriter::with_capacity(64 * 1024, std::io::stderr()));
    let level = LevelFilter::from_level(log.level);
    // Other crates' chatter is for those who ask for debug.
    let others = level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(others).with_target("doorward", level);
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let layer = fmt::layer().with_writer(writer).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
    };
    if let Err(error) = started {
        tracing::warn!(%error, "another log is running already");
    }
    Guard(guard)
}
