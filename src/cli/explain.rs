//! `doorward explain`: why a captured request verifies or does not, step by step.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::complain;
use super::profiles::wrapped;
use super::provider::ProviderOptions;
use super::provider::secrets;
use super::runtime;
use super::say;
use super::say_json;
use super::shown_address;
use crate::explain;
use crate::explain::Capture;
use crate::explain::Case;
use crate::explain::Cause;
use crate::explain::Explanation;
use crate::explain::Taken;
use crate::refusal::Refusal;
use crate::settings::usual_ttl;
use crate::time::Format;
use crate::time::Moment;

/// The options or the captured request cannot be read.
const UNREADABLE: u8 = 2;
/// What `server.max_body` is unless it is set, in bytes.
const USUAL_BODY: usize = 1024 * 1024;
/// Longest line, in characters.
const WIDTH: usize = 110;
/// Widest label.
const LABEL: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    provider: ProviderOptions,
    /// A secret that the source had earlier, written like `--secret`.
    #[arg(long, value_name = "SECRET")]
    old_secret: Vec<String>,
    /// When it was received, in Unix seconds or RFC 3339; what the capture says, or else now, when absent.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Moment>,
    /// How long the gateway remembers events, as `store.ttl` in its configuration; its default when absent.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// The captured request: raw HTTP, or JSON with `method`, `url`, `headers` and `body` or `body_base64`, or an HTTP
    /// archive (HAR); `-` reads standard input.
    #[arg(value_name = "REQUEST-FILE")]
    file: PathBuf,
}

fn moment(text: &str) -> Result<Moment, String> {
    let moment = Format::Unix.parse(text).or_else(|| Format::Rfc3339.parse(text));
    moment.ok_or_else(|| "write Unix seconds, or RFC 3339 such as 2026-01-02T10:00:00Z".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let explained = arguments.case().and_then(|(case, notes)| {
        runtime.block_on(async {
            let mut explanation = explain::explain(&case).await?;
            let cause = explanation.cause(&case).await;
            Ok((case, notes, explanation, cause))
        })
    });
    match explained {
        Ok((case, notes, explanation, cause)) => {
            if arguments.json {
                say_json(&describe(&notes, &explanation, cause.as_ref()));
            } else {
                show(&case, &notes, &explanation, cause.as_ref());
            }
            if explanation.verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            complain(&message);
            ExitCode::from(UNREADABLE)
        }
    }
}

impl Arguments {
    /// What is to be explained, and what the reader should know of it.
    fn case(&self) -> Result<(Case, Vec<String>), String> {
        let profiles = self.provider.profiles()?;
        let profile = self.provider.profile(&profiles)?;
        let named = |message: String| format!("{}: {message}", self.file.display());
        let capture = Capture::parse(&self.read().map_err(named)?).map_err(named)?;
        let mut notes = capture.notes;
        if let Some(address) = capture.address.as_ref().filter(|_| self.provider.lacks_url(profile)) {
            let bare = shown_address(address.split('?').next().unwrap_or(address), &[]);
            notes.push(format!(
                "the parameter url is taken to be {bare}, from the capture; name another with --param url=…"
            ));
        }
        if capture.body.len() > USUAL_BODY {
            notes.push(
                "a gateway refuses bodies over 1 MiB, unless server.max_body is set; here they are judged all the same"
                    .to_owned(),
            );
        }
        let params = self.provider.params(profile, capture.address.as_deref())?;
        let current = self.provider.secrets(profile)?;
        if current.is_empty() && profile.needs_secrets() {
            return Err(ProviderOptions::about_secrets(profile));
        }
        let old_secrets = secrets("--old-secret", &self.old_secret, profile)?;
        let case = Case {
            profile: profile.clone(),
            secrets: current,
            old_secrets,
            params,
            ttl: self.ttl.map_or_else(usual_ttl, Ok)?,
            method: capture.method,
            target: capture.target,
            headers: capture.headers,
            body: capture.body,
            at: self.at.or(capture.at).unwrap_or_else(Moment::now),
        };
        Ok((case, notes))
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        if self.file.as_os_str() != "-" {
            return std::fs::read(&self.file).map_err(|error| error.to_string());
        }
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

fn show(case: &Case, notes: &[String], explanation: &Explanation, cause: Option<&Cause>) {
    say(&format_args!(
        "{} {}, {} bytes of body, as {} at {}\n",
        case.method,
        case.target.path(),
        case.body.len(),
        case.profile.title,
        case.at.rfc3339()
    ));
    notes.iter().for_each(|note| labelled("note", note));
    for step in &explanation.steps {
        let failed = if step.failed { "NO: " } else { "" };
        labelled(step.kind.label(), &format!("{failed}{}", step.words));
    }
    say("");
    match &explanation.verdict {
        Ok(Taken::Event { id, kind, .. }) => {
            let kind = kind.as_ref().map(|kind| format!(", type {kind}")).unwrap_or_default();
            say(&format_args!("accepted: event {id}{kind}"));
            say(
                "Its path and address, the types that the source selects, and whether it came before, are not judged here.",
            );
        }
        Ok(Taken::Handshake(answer)) => say(&format_args!("answered: a handshake, with {}", answer.status)),
        Err(refusal) => say(&format_args!("refused: {}, {refusal}", reason(refusal))),
    }
    if let Some(cause) = cause {
        say("");
        labelled(if cause.proven { "cause" } else { "likely" }, &cause.words);
    }
}

fn labelled(label: &str, words: &str) {
    let mut shown = label;
    for line in wrapped(words, WIDTH - LABEL - 4) {
        say(&format_args!("  {shown:<LABEL$} {line}"));
        shown = "";
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    refusal.row().reason
}

fn describe(notes: &[String], explanation: &Explanation, cause: Option<&Cause>) -> Value {
    let (outcome, event) = match &explanation.verdict {
        Ok(Taken::Event { id, kind, secret }) => {
            ("accepted", json!({ "id": id, "type": kind, "secret": secret.map(|at| at + 1) }))
        }
        Ok(Taken::Handshake(_)) => ("answered", Value::Null),
        Err(_) => ("refused", Value::Null),
    };
    let steps = explanation
        .steps
        .iter()
        .map(|step| json!({ "step": step.kind.label(), "words": step.words, "failed": step.failed }));
    json!({
        "outcome": outcome,
        "reason": explanation.verdict.as_ref().err().map(reason),
        "event": event,
        "notes": notes,
        "steps": steps.collect::<Value>(),
        "cause": cause.map(|cause| json!({ "words": cause.words, "proven": cause.proven })),
    })
}
