//! `doorward profiles`: lists the providers that can be verified, or shows a profile with what it needs and a sample
//! source.

mod format;
mod proof;
mod sample;
mod wording;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::complain;
use super::say;
use super::say_json;
use super::warn;
use crate::base::problem::Problems;
use crate::base::problem::closest;
use crate::profile::Profile;
use crate::profile::Profiles;
use crate::profile::TimestampPolicy;

pub(super) use wording::wrapped;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The profile to show.
    name: Option<String>,
    /// A directory with more profiles, as `profiles` in the configuration.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Write JSON: an array of objects, or one object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let profiles = match load(arguments.directory.as_deref()) {
        Ok(profiles) => profiles,
        Err(problems) => {
            warn(&problems);
            return ExitCode::from(super::EX_CONFIG);
        }
    };
    let Some(name) = &arguments.name else {
        if arguments.json {
            say_json(&profiles.iter().map(|(name, profile)| describe(name, profile)).collect::<Value>());
        } else {
            say(&list(&profiles));
        }
        return ExitCode::SUCCESS;
    };
    let Some(profile) = profiles.get(name) else {
        complain(&unknown(name, &profiles));
        return ExitCode::FAILURE;
    };
    if arguments.json {
        say_json(&describe(name, profile));
    } else {
        say(&show(name, profile, profiles.text(name).unwrap_or_default()));
    }
    ExitCode::SUCCESS
}

/// The message for a profile that does not exist.
pub(super) fn unknown(name: &str, profiles: &Profiles) -> String {
    let hint = closest(name, profiles.names())
        .map_or_else(|| profiles.names().collect::<Vec<_>>().join(", "), |near| format!("did you mean {near}?"));
    format!("there is no profile {name:?}; {hint}")
}

pub(super) fn load(directory: Option<&Path>) -> Result<Profiles, Problems> {
    let mut profiles = Profiles::shipped();
    let mut problems = Problems::default();
    if let Some(directory) = directory {
        profiles.add_directory(directory, |path| std::fs::read_to_string(path), &mut problems);
    }
    if problems.is_fatal() { Err(problems) } else { Ok(profiles) }
}

/// The maximum width of a column; a longer cell shifts the rest of its line.
const COLUMN: usize = 28;

fn list(profiles: &Profiles) -> String {
    let head = ["NAME", "PROVIDER", "SCHEME", "A SOURCE NEEDS"].map(str::to_owned);
    let rows = profiles.iter().map(|(name, profile)| {
        [name.to_owned(), cut(&profile.title), profile.auth.scheme(), needs(profile).join(", ")]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |cells: fn(&[String; 4]) -> &String| {
        rows.iter().map(|row| cells(row).chars().count()).filter(|width| *width <= COLUMN).max().unwrap_or_default()
    };
    let (names, titles, schemes) =
        (width(|[name, ..]| name), width(|[_, title, ..]| title), width(|[_, _, scheme, _]| scheme));
    let lines = rows.iter().map(|[name, title, scheme, needs]| {
        format!("{name:<names$}  {title:<titles$}  {scheme:<schemes$}  {needs}").trim_end().to_owned()
    });
    let hint = "\n`doorward profiles NAME` shows one: how it is verified, what is known of the provider, and a source to paste.";
    lines.chain([hint.to_owned()]).collect::<Vec<_>>().join("\n")
}

/// A text, cut to the width of a column.
fn cut(text: &str) -> String {
    if text.chars().count() <= COLUMN {
        text.to_owned()
    } else {
        text.chars().take(COLUMN - 1).chain(['…']).collect()
    }
}

/// The settings that a source has to give.
fn needs(profile: &Profile) -> Vec<String> {
    let secrets = profile.needs_secrets().then(|| "secrets".to_owned());
    let params = profile.params.iter().filter(|(_, param)| param.default.is_none());
    secrets.into_iter().chain(params.map(|(name, _)| format!("params.{name}"))).collect()
}

fn describe(name: &str, profile: &Profile) -> Value {
    json!({
        "name": name,
        "title": profile.title,
        "docs": profile.docs,
        "scheme": profile.auth.scheme(),
        "needs": needs(profile),
        "params": profile.params.iter().map(|(name, param)| {
            (name.clone(), json!({ "about": param.about, "default": param.default }))
        }).collect::<serde_json::Map<_, _>>(),
        "tolerance_seconds": tolerance(profile).map(|tolerance| tolerance.as_secs()),
        "deadline_seconds": profile.facts.deadline.map(|deadline| deadline.as_secs()),
        "horizon_seconds": profile.facts.horizon.map(|horizon| horizon.as_secs()),
        "retries": profile.facts.retries,
        "retried": profile.facts.retried.as_ref().map(ToString::to_string),
        "addresses": profile.facts.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "secrets": profile.schemes().filter_map(|scheme| {
            let key = scheme.key(profile.fetches_keys())?;
            Some(json!({ "scheme": scheme.title(), "about": key.about, "public": scheme.is_asymmetric() }))
        }).collect::<Vec<_>>(),
        "notes": profile.facts.notes,
        "lints": profile.lints().iter().map(|lint| {
            json!({ "key": lint.config_path.to_string(), "message": lint.message })
        }).collect::<Vec<_>>(),
    })
}

fn tolerance(profile: &Profile) -> Option<Duration> {
    let timestamp = profile.timestamp.as_ref()?;
    let tolerance = timestamp.tolerance.and_then(|tolerance| tolerance.past);
    tolerance.filter(|_| timestamp.policy == TimestampPolicy::Enforce)
}

/// The description of a profile, with a sample source and its text.
pub fn show(name: &str, profile: &Profile, text: &str) -> String {
    format!(
        "{}\n{}\nA source for your configuration:\n\n{}\nThe profile itself:\n\n{}",
        profile.title,
        wording::explain(profile),
        sample::source(name, profile),
        text.trim_end()
    )
}
