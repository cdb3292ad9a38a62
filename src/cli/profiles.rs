//! `doorward profiles`: which providers can be verified, and what each needs.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::complain;
use super::say;
use super::warn;
use crate::problem::Problems;
use crate::problem::closest;
use crate::profile::Profile;
use crate::profile::Profiles;
use crate::profile::TimestampPolicy;

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
            say(&profiles.iter().map(|(name, profile)| describe(name, profile)).collect::<Value>());
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
        say(&describe(name, profile));
    } else {
        say(&show(name, profile, profiles.text(name).unwrap_or_default()));
    }
    ExitCode::SUCCESS
}

/// What to say of a profile that there is not.
pub(super) fn unknown(name: &str, profiles: &Profiles) -> String {
    let hint = closest(name, profiles.names())
        .map_or_else(|| profiles.names().collect::<Vec<_>>().join(", "), |near| format!("did you mean {near}?"));
    format!("there is no profile {name:?}; {hint}")
}

pub(super) fn load(directory: Option<&Path>) -> Result<Profiles, Problems> {
    let mut profiles = Profiles::shipped();
    let mut problems = Problems::default();
    if let Some(directory) = directory {
        profiles.add_directory(directory, &mut problems);
    }
    if problems.is_fatal() { Err(problems) } else { Ok(profiles) }
}

fn list(profiles: &Profiles) -> String {
    let rows = profiles.iter().map(|(name, profile)| {
        format!("{name:<20} {:<22} {:<14} {}", profile.title, profile.auth.scheme(), needs(profile).join(", "))
    });
    let head = format!("{:<20} {:<22} {:<14} {}", "NAME", "PROVIDER", "SCHEME", "A SOURCE NEEDS");
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// What a source has to give.
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
        "notes": profile.facts.notes,
    })
}

fn tolerance(profile: &Profile) -> Option<Duration> {
    let timestamp = profile.timestamp.as_ref()?;
    let tolerance = timestamp.tolerance.and_then(|tolerance| tolerance.past);
    tolerance.filter(|_| timestamp.policy == TimestampPolicy::Enforce)
}

fn show(name: &str, profile: &Profile, text: &str) -> String {
    let mut out = format!("{}\n", profile.title);
    let mut line = |label: &str, value: &str| out.push_str(&format!("  {label:<12} {value}\n"));
    line("verified by", &profile.auth.scheme());
    if let Some(tolerance) = tolerance(profile) {
        line("fresh for", &humantime::format_duration(tolerance).to_string());
    }
    if let Some(docs) = &profile.docs {
        line("documented", docs);
    }
    if let Some(deadline) = profile.facts.deadline {
        line("waits", &humantime::format_duration(deadline).to_string());
    }
    if let Some(retries) = &profile.facts.retries {
        line("retries", retries);
    }
    profile.facts.notes.iter().for_each(|note| line("note", note));
    out.push_str("\nA source for your configuration:\n\n");
    out.push_str(&sample_source(name, profile));
    out.push_str("\nThe profile itself:\n\n");
    out.push_str(text.trim_end());
    out
}

fn sample_source(name: &str, profile: &Profile) -> String {
    let mut out = format!("[sources.{name}]\nprofile = \"{name}\"\npath    = \"/webhooks/{name}\"\n");
    if profile.needs_secrets() {
        let variable = name.to_uppercase().replace('-', "_");
        out.push_str(&format!("secrets = [\"env:{variable}_SECRET\"]\n"));
    }
    for (param, said) in &profile.params {
        let comment = if said.default.is_some() { "# " } else { "" };
        let value = said.default.as_deref().unwrap_or("…");
        out.push_str(&format!("{comment}params.{param} = \"{value}\"   # {}\n", said.about));
    }
    out.push_str("deliver.upstream = { url = \"http://127.0.0.1:3000/\" }\n");
    out
}
