//! `doorward reload`: has a running gateway read its configuration again.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use http::StatusCode;
use serde_json::Value;

use super::EX_CONFIG;
use super::complain;
use super::count;
use super::duration;
use super::events::client::Gateway;
use super::events::client::exchange;
use super::runtime;
use super::say;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// How long the gateway may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    // On its own machine, the gateway asks for no token.
    let found = match arguments.gateway.find(false) {
        Ok(found) => found,
        Err(message) => {
            complain(&message);
            return ExitCode::from(EX_CONFIG);
        }
    };
    match runtime.block_on(exchange((Method::POST, "/api/v1/reload"), found, arguments.timeout)) {
        Ok((StatusCode::OK, answer)) => {
            report(&answer);
            ExitCode::SUCCESS
        }
        Ok((StatusCode::UNPROCESSABLE_ENTITY, answer)) => {
            messages(&answer, "problems").for_each(|problem| complain(&problem));
            let problems = list(&answer, "problems").filter(|problem| problem.get("error") == Some(&Value::Bool(true)));
            complain(&format_args!("{}, nothing has changed", count(problems.count(), "problem")));
            ExitCode::from(EX_CONFIG)
        }
        Ok((status, answer)) => {
            let detail = answer.get("detail").and_then(Value::as_str).unwrap_or("this is not Doorward's API");
            complain(&format_args!("{detail} ({})", status.as_u16()));
            ExitCode::FAILURE
        }
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Says what has changed.
fn report(answer: &Value) {
    messages(answer, "warnings").for_each(|warning| complain(&warning));
    let names = |key: &str| list(answer, key).filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    say(&format_args!("generation {} is in use", answer.get("generation").and_then(Value::as_u64).unwrap_or_default()));
    for (key, word) in [("added", "added"), ("changed", "changed"), ("removed", "removed")] {
        let names = names(key);
        if !names.is_empty() {
            say(&format_args!("  {word:<8} {names}"));
        }
    }
    let keys = names("restart_needed");
    if !keys.is_empty() {
        complain(&format_args!("warning: takes effect at the next start only: {keys}"));
    }
}

fn list<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The problems in a list, as `doorward check` writes them.
fn messages(answer: &Value, key: &str) -> impl Iterator<Item = String> {
    list(answer, key).map(|problem| {
        let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        let warning = if problem.get("error") == Some(&Value::Bool(true)) { "" } else { "warning: " };
        let key = if text("key").is_empty() { String::new() } else { format!(": {}", text("key")) };
        format!("{warning}{}{key}: {}", text("place"), text("message"))
    })
}
