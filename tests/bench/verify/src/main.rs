//! Measures what verifying a request costs in Doorward, next to the bare primitive; `tests/bench/run --verify` runs it.

mod bare;
mod clock;
mod event;
mod gateway;
mod measure;
mod report;
mod schemes;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

// The gateway's own: it allocates for every request.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
enum Command {
    /// Measures every scheme and leaves the figures in a directory.
    Measure {
        directory: PathBuf,
        /// Shorter, and less certain.
        #[arg(long)]
        quick: bool,
        /// Only schemes that have this in their name.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Turns the figures of a directory into a table.
    Report { directory: PathBuf },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Measure { directory, quick, only } => measure::all(&directory, quick, &only),
        Command::Report { directory } => report::print(&directory),
    }
}
