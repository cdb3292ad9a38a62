//! `doorward secrets`: which secrets of a running gateway are in use, and which may go.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use http::StatusCode;
use serde_json::Value;

use super::complain;
use super::duration;
use super::events::client::Gateway;
use super::events::client::exchange;
use super::runtime;
use super::say;
use super::say_json;

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// How long a secret has to be idle, while others of its source are not, until it may go.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    idle: Duration,
    /// Print what the gateway answers, for scripts.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let asked = runtime().map(|runtime| runtime.block_on(ask(arguments)));
    match asked {
        Ok(Ok(answer)) if arguments.json => say_json(&answer),
        Ok(Ok(answer)) => report(&answer, arguments.idle),
        Ok(Err(message)) => {
            complain(&message);
            return ExitCode::FAILURE;
        }
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

async fn ask(arguments: &Arguments) -> Result<Value, String> {
    // On its own machine, the gateway asks for no token.
    let found = arguments.gateway.find(false)?;
    match exchange((Method::GET, "/api/v1/secrets"), found, TIMEOUT).await? {
        (StatusCode::OK, answer) => Ok(answer),
        (status, answer) => {
            let detail = answer.get("detail").and_then(Value::as_str).unwrap_or("this is not Doorward's API");
            Err(format!("{detail} ({})", status.as_u16()))
        }
    }
}

fn report(answer: &Value, limit: Duration) {
    for source in list(answer, "sources") {
        let secrets: Vec<_> = list(source, "secrets").filter_map(Secret::read).collect();
        let name = source.get("source").and_then(Value::as_str).unwrap_or_default();
        let width = secrets.iter().map(|secret| secret.name.chars().count()).max().unwrap_or_default();
        for (at, secret) in secrets.iter().enumerate() {
            let others = secrets.iter().enumerate().filter(|(other, _)| *other != at);
            // That a secret is known is no proof that the provider uses it.
            let proven = others.filter(|(_, secret)| secret.matches > 0).map(|(_, secret)| secret.idle).min();
            let verdict = secret.verdict(secrets.len() == 1, proven, limit);
            say(&format_args!("{name:<20} {:<width$}  {verdict}", secret.name));
        }
    }
}

fn list<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A secret of a source.
struct Secret<'a> {
    name: &'a str,
    matches: u64,
    /// Since its last match, or since the gateway knows it.
    idle: Duration,
}

impl<'a> Secret<'a> {
    fn read(value: &'a Value) -> Option<Self> {
        Some(Self {
            name: value.get("secret")?.as_str()?,
            matches: value.get("matches")?.as_u64()?,
            idle: Duration::from_secs(value.get("idle_seconds")?.as_u64()?),
        })
    }

    /// Whether it may go; `others` is how long ago another secret of its source has proved something, if one has.
    fn verdict(&self, is_only: bool, others: Option<Duration>, limit: Duration) -> String {
        let idle = if self.matches == 0 {
            format!("no match for {} that the gateway has known it", coarse(self.idle))
        } else {
            format!("idle for {}", coarse(self.idle))
        };
        match others {
            _ if self.idle < limit && self.matches > 0 => format!("in use, {idle}"),
            _ if self.idle < limit => idle,
            _ if is_only => format!("{idle}: the only one of its source, keep it"),
            None => format!("{idle}, and no other one of its source has matched: keep it"),
            Some(others) if others < limit => format!("{idle}: may go"),
            Some(_) => format!("{idle}, as all of its source: nothing came, keep it"),
        }
    }
}

/// A duration in its largest unit.
fn coarse(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_may_go_when_it_is_idle_for_long_and_another_one_is_not() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let of = |matches, idle| Secret { name: "env:OLD", matches, idle: hours(idle) };
        let verdict =
            |matches, idle, others: Option<u64>| of(matches, idle).verdict(false, others.map(hours), hours(24));
        assert_eq!(verdict(3, 26, Some(0)), "idle for 26 h: may go");
        assert_eq!(verdict(3, 24, Some(23)), "idle for 24 h: may go");
        assert_eq!(verdict(3, 23, Some(0)), "in use, idle for 23 h");
        assert_eq!(verdict(0, 23, Some(0)), "no match for 23 h that the gateway has known it");
        assert_eq!(verdict(0, 72, Some(0)), "no match for 3 days that the gateway has known it: may go");
        assert_eq!(verdict(3, 26, None), "idle for 26 h, and no other one of its source has matched: keep it");
        assert_eq!(of(3, 26).verdict(true, None, hours(24)), "idle for 26 h: the only one of its source, keep it");
        assert_eq!(verdict(3, 26, Some(24)), "idle for 26 h, as all of its source: nothing came, keep it");
    }
}
