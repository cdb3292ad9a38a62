//! Measures what verifying a request costs in Doorward, next to the bare primitive; `tests/bench/run --verify` runs it,
//! and `tests/bench/pgo --check` verifies with it.

#![cfg_attr(not(feature = "measure"), expect(dead_code, reason = "the bare primitives are for measuring alone"))]

mod bare;
mod clock;
mod event;
mod gateway;
#[cfg(feature = "measure")]
mod measure;
mod repeat;
#[cfg(feature = "measure")]
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
    #[cfg(feature = "measure")]
    Measure {
        directory: PathBuf,
        /// Shorter, and less certain.
        #[arg(long)]
        quick: bool,
        /// Only schemes that have this in their name.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Verifies events of one scheme, and measures nothing itself: a profiler does.
    Repeat {
        /// As `list` has it.
        scheme: String,
        /// Bytes of the body.
        size: usize,
        times: usize,
        /// How many are made ready before, so that two runs differ in what is verified alone; at least as many.
        ready: usize,
        /// A private key in PEM for schemes with RSA: the search for a new one takes another time in each run.
        rsa: PathBuf,
    },
    /// Lists the schemes.
    List,
    /// Turns the figures of a directory into a table.
    #[cfg(feature = "measure")]
    Report { directory: PathBuf },
}

fn main() -> Result<()> {
    match Command::parse() {
        #[cfg(feature = "measure")]
        Command::Measure { directory, quick, only } => measure::all(&directory, quick, &only),
        Command::Repeat { scheme, size, times, ready, rsa } => repeat::verify(&scheme, size, times, ready, &rsa),
        Command::List => {
            schemes::ALL.iter().for_each(|scheme| println!("{}", scheme.id));
            Ok(())
        }
        #[cfg(feature = "measure")]
        Command::Report { directory } => report::print(&directory),
    }
}
