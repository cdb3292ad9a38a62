//! Deduplication: which requests are the same event, and for how long that is remembered.

mod duplicates;
mod log;
mod log_files;
mod quotas;
mod replays;
mod restart;
