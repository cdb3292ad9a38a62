//! Reads `[log]`: how and what to log.

use super::section::Section;
use super::section::count;
use super::section::word;

/// `[log]`.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// How many unverified requests of a source are logged at once; see [`crate::telemetry::Sampler`].
    pub unverified_burst: u32,
    /// How many unverified requests of a source are logged per second in the long run.
    pub unverified_rate: u32,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

impl Log {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        let format = section.required("format", word(&formats));
        let levels = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
        ];
        let level = section.required("level", word(&levels));
        let mut number = |key| section.required(key, count(1, 1_000_000)).and_then(|count| u32::try_from(count).ok());
        let (unverified_burst, unverified_rate) = (number("unverified_burst"), number("unverified_rate"));
        section.finish();
        Some(Self {
            format: format?,
            level: level?,
            unverified_burst: unverified_burst?,
            unverified_rate: unverified_rate?,
        })
    }
}
