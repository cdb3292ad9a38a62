//! The load generator, the upstream and the report of Doorward's benchmark; `tests/bench/run` puts them together, and
//! `tests/bench/pgo` sends with it what a profile is taken of.

mod client;
mod disk;
mod message;
mod process;
mod report;
mod requests;
mod upstream;

use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
enum Command {
    /// Answers what the proxies deliver.
    Upstream {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Sends signed events as fast as they are answered; prints one line of JSON.
    Run(Box<client::Options>),
    /// Measures the time from the start of a command until it is ready, in milliseconds.
    Start {
        /// The URL that answers 200 when the command is ready.
        #[arg(long)]
        ready: String,
        #[arg(long, default_value_t = 5)]
        times: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Measures what `fdatasync` takes in a folder; prints the 50th and 99th percentile in microseconds.
    Disk { folder: PathBuf },
    /// Turns a file with lines of `run` into tables; fails when there were errors.
    Report { file: PathBuf },
    /// Prints ports that are free now.
    Ports { count: usize },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Upstream { listen } => upstream::serve(listen),
        Command::Run(options) => {
            println!("{}", serde_json::to_string(&client::run(&options)?)?);
            Ok(())
        }
        Command::Start { ready, times, command } => {
            println!("{:.1}", process::start_to_ready(&command, &ready, times)?);
            Ok(())
        }
        Command::Disk { folder } => {
            let (p50, p99) = disk::sync(&folder)?;
            println!("{p50:.0} {p99:.0}");
            Ok(())
        }
        Command::Report { file } => report::print(&file),
        Command::Ports { count } => {
            // All are held until all are found, so that they differ.
            let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
            for listener in held {
                println!("{}", listener.local_addr()?.port());
            }
            Ok(())
        }
    }
}

/// Address and path of an http URL.
fn split_url(url: &str) -> Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
    let slash = rest.find('/').with_context(|| format!("{url} has no path"))?;
    Ok(rest.split_at(slash))
}
