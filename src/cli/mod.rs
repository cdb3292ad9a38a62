//! The command line: parses the arguments and runs a command. Each command has a file or folder.

mod check;
mod demo;
mod events;
mod explain;
mod probe;
pub mod profiles;
mod provider;
mod reload;
mod secrets;
mod send;
mod serve;
mod sign;
mod store;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use serde_json::Value;

use crate::base::escape;
use crate::base::problem::Problems;
use crate::config::Settings;

/// The exit code for a wrong configuration; `EX_CONFIG` of sysexits.h.
const EX_CONFIG: u8 = 78;
/// The default of `--config`.
const CONFIG: &str = "doorward.toml";

/// A receiving gateway for webhooks: verifies that each one comes from its provider, lets each event through once, and
/// hands it on.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C, which let requests in flight finish; a second one does not.
    Serve(ConfigFile),
    /// Report every problem of the configuration; exit with 78 if one keeps the gateway from starting.
    Check(ConfigFile),
    /// Run the gateway with a sample app behind it on this machine, and send it webhooks, good and bad.
    Demo(demo::Arguments),
    /// List the providers that can be verified, or show one with what it needs and a sample source.
    Profiles(profiles::Arguments),
    /// Print the headers that a provider would send with a body, or a sample event whole.
    Sign(sign::Arguments),
    /// Send a webhook as a provider would; exit with 0 if the answer is a 2xx.
    Send(send::Arguments),
    /// Say step by step why a captured request verifies (exit 0) or does not (exit 1), and the likeliest cause.
    Explain(explain::Arguments),
    /// Look at the queued events and dead letters of a running gateway, replay them, purge them.
    Events(events::Arguments),
    /// Check the file of a store, copy that of a running gateway, or import what a damaged one still says.
    Store(store::Arguments),
    /// Have a running gateway read its configuration again; exit with 78, and all problems, if it goes on with the one it
    /// has.
    Reload(reload::Arguments),
    /// Show which secrets of a running gateway prove requests, and which may go since they do so no more.
    Secrets(secrets::Arguments),
    /// Take a running gateway out of service: not ready any more, it goes on taking what comes; exit with 0 if it does
    /// so.
    Drain(probe::Drain),
    /// Ask a running gateway whether it can be sent events; exit with 0 if it can.
    Healthcheck(probe::Healthcheck),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration; variables `DOORWARD__SECTION__KEY` override it.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Settings, ExitCode> {
        Settings::load(&self.config).map_err(|problems| {
            complain(&problems);
            if !self.config.exists() {
                complain(
                    "name the configuration with --config FILE; `doorward profiles NAME` shows a source to start from",
                );
            }
            complain(&format_args!(
                "{}: {}, nothing was started",
                self.config.display(),
                count(problems.errors(), "problem")
            ));
            ExitCode::from(EX_CONFIG)
        })
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    // All users of TLS share one provider. If one is installed already, it is the same.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match Arguments::parse().command {
        Command::Serve(file) => serve::run(&file),
        Command::Check(file) => check::run(&file),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Profiles(arguments) => profiles::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Send(arguments) => send::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Store(arguments) => store::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Secrets(arguments) => secrets::run(&arguments),
        Command::Drain(arguments) => probe::drain(&arguments),
        Command::Healthcheck(arguments) => probe::healthcheck(&arguments),
    }
}

/// Parses an option that is a duration.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_bad| "write a duration such as 250ms, 5s or 96h".to_owned())
}

/// The runtime of the main thread.
fn runtime() -> Result<tokio::runtime::Runtime, ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        complain(&format_args!("cannot start: {error}"));
        ExitCode::FAILURE
    })
}

/// Writes text to standard output, escaped for a terminal: it may contain what senders wrote. Ignores a closed pipe.
fn say(text: &(impl Display + ?Sized)) {
    say_raw(&escape::lines(&text.to_string()));
}

/// Writes text for another program, without escaping.
fn say_raw(text: &(impl Display + ?Sized)) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Writes JSON, escaped for a terminal within the rules of JSON.
fn say_json(value: &Value) {
    say_raw(&escape::json(&value.to_string()));
}

/// Writes a message to standard error, escaped for a terminal.
fn complain(text: &(impl Display + ?Sized)) {
    drop(writeln!(std::io::stderr().lock(), "{}", escape::lines(&text.to_string())));
}

/// A URL for people: without user and password, and without the values of these parameters of its query.
fn shown_address(address: &str, secret: &[String]) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("***@{host}"));
    let colon = if scheme.is_empty() { "" } else { "://" };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let pair = |pair: &str| match form_urlencoded::parse(pair.as_bytes()).next() {
        Some((name, _)) if secret.iter().any(|secret| *secret == name) => {
            format!("{}=***", pair.split('=').next().unwrap_or_default())
        }
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&")));
    format!("{scheme}{colon}{host}{path}{}", query.unwrap_or_default())
}

/// Warns of a secret that is written in the arguments.
fn warn_of_plain_secret(option: &str) {
    complain(&format_args!(
        "warning: {option}: the list of processes and the shell's history show the text; write env:NAME or file:PATH"
    ));
}

/// Writes the warnings, one on each line.
fn warn(warnings: &Problems) {
    warnings.iter().for_each(complain);
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_is_secret_in_it() {
        for (address, shown) in [
            ("https://hooks.example/a?code=hush&b=1#c", "https://hooks.example/a?code=***&b=1#c"),
            ("https://user:hush@hooks.example:8080/a", "https://***@hooks.example:8080/a"),
            ("http://user:hush@[::1]?c%6fde=hush", "http://***@[::1]?c%6fde=***"),
            ("http://hooks.example/a@b?b=code", "http://hooks.example/a@b?b=code"),
            ("user:hush@hooks.example", "***@hooks.example"),
            ("", ""),
        ] {
            assert_eq!(shown_address(address, &["code".to_owned()]), shown);
        }
    }
}
