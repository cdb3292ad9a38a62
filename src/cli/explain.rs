//! `doorward explain`: explains step by step why a captured request verifies or does not.

use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::Value;
use serde_json::json;

use super::CONFIG;
use super::complain;
use super::duration;
use super::profiles::wrapped;
use super::provider::ProviderOptions;
use super::provider::secrets;
use super::runtime;
use super::say;
use super::say_json;
use super::shown_address;
use crate::base::secret::Secret;
use crate::base::time::Format;
use crate::base::time::Moment;
use crate::config::Settings;
use crate::config::default_ttl;
use crate::explain;
use crate::explain::Accepted;
use crate::explain::Capture;
use crate::explain::Case;
use crate::explain::Cause;
use crate::explain::Explanation;
use crate::extract::params::Params;
use crate::profile::Profile;
use crate::source::refusal::Refusal;

/// The exit code when the options or the captured request cannot be read.
const UNREADABLE: u8 = 2;
/// The default of `server.max_body`, in bytes.
const DEFAULT_MAX_BODY: usize = 1024 * 1024;
/// The options that conflict with `--source`, which supplies their values.
const SET_BY_SOURCE: [&str; 5] = ["profile", "secret", "params", "directory", "ttl"];
/// Longest line, in characters.
const WIDTH: usize = 110;
/// Widest label.
const LABEL: usize = 10;

#[derive(Debug, clap::Args)]
#[command(mut_arg("profile", |profile| profile.required(false).required_unless_present_any(["source", "config"])))]
pub(super) struct Arguments {
    #[command(flatten)]
    provider: ProviderOptions,
    /// A source of the configuration, from which profile, secrets, parameters and limits are taken as `serve` takes
    /// them.
    #[arg(long, value_name = "NAME", conflicts_with_all = SET_BY_SOURCE)]
    source: Option<String>,
    /// The configuration that has the source; `doorward.toml` when absent.
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with_all = SET_BY_SOURCE)]
    config: Option<PathBuf>,
    /// A secret that the source had earlier, written like `--secret`.
    #[arg(long, value_name = "SECRET")]
    old_secret: Vec<String>,
    /// When it was received, in Unix seconds or RFC 3339; what the capture says, or else now, when absent.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Moment>,
    /// How long the gateway remembers events, as `store.ttl` in its configuration; its default when absent.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// The body, byte for byte, where the captured request is without it, as the output of `curl -v` is.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// The captured request: raw HTTP, the output of `curl -v` or `curl --trace-ascii -`, or JSON: an object with
    /// `method`, `url`, `headers` and `body` or `body_base64`, an HTTP archive (HAR), an AWS Lambda event, or the
    /// export of a request inspector; `-` reads standard input.
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

/// The settings of a source, with notes for the reader.
struct SourceSettings {
    profile: Profile,
    secrets: Vec<Secret>,
    params: Params,
    ttl: Duration,
    notes: Vec<String>,
}

impl Arguments {
    /// The case to explain, with notes for the reader.
    fn case(&self) -> Result<(Case, Vec<String>), String> {
        let (source, capture) = match &self.source {
            Some(name) => self.read_configuration(name)?,
            None => self.read_options()?,
        };
        let old_secrets = secrets("--old-secret", &self.old_secret, &source.profile)?;
        let case = Case {
            profile: source.profile,
            secrets: source.secrets,
            old_secrets,
            params: source.params,
            ttl: source.ttl,
            method: capture.method,
            target: capture.target,
            headers: capture.headers,
            body: capture.body,
            at: self.at.or(capture.at).unwrap_or_else(Moment::now),
        };
        Ok((case, [capture.notes, source.notes].concat()))
    }

    /// Reads the settings from the options.
    fn read_options(&self) -> Result<(SourceSettings, Capture), String> {
        let profiles = self.provider.profiles()?;
        let profile = self.provider.profile(&profiles)?;
        let capture = self.capture()?;
        let mut notes = Vec::new();
        if let Some(address) = capture.address.as_ref().filter(|_| self.provider.lacks_url(profile)) {
            let bare = shown_address(address.split('?').next().unwrap_or(address), &[]);
            notes.push(format!(
                "the parameter url is taken to be {bare}, from the capture; name another with --param url=…"
            ));
        }
        if capture.body.len() > DEFAULT_MAX_BODY {
            notes.push(
                "a gateway refuses bodies over 1 MiB, unless server.max_body is set; here they are judged all the same"
                    .to_owned(),
            );
        }
        let params = self.provider.params(profile, capture.address.as_deref())?;
        let current = self.provider.secrets(profile)?;
        if current.is_empty() && profile.needs_secrets() {
            return Err(ProviderOptions::missing_secrets(profile));
        }
        let ttl = self.ttl.map_or_else(default_ttl, Ok)?;
        Ok((SourceSettings { profile: profile.clone(), secrets: current, params, ttl, notes }, capture))
    }

    /// Reads the settings of the source of this name from the configuration.
    fn read_configuration(&self, name: &str) -> Result<(SourceSettings, Capture), String> {
        let file = self.config.as_deref().unwrap_or_else(|| Path::new(CONFIG));
        let source = Settings::load_source(file, name).map_err(|problems| problems.to_string())?;
        let capture = self.capture()?;
        let mut notes = Vec::new();
        if capture.has_address && capture.target.path() != source.path {
            notes.push(format!(
                "the source's path is {}, and the request went to {}: unless a proxy changes it, it is another source's, or \
                 nobody's",
                source.path,
                capture.target.path()
            ));
        }
        if source.observe {
            notes
                .push("the source has verify = \"observe\": what is refused here is delivered all the same".to_owned());
        }
        let mut profile = source.profile;
        let own = profile.limits.max_body.map_or(u64::MAX, |size| size.as_u64());
        profile.limits.max_body = Some(ByteSize(own.min(u64::try_from(source.max_body).unwrap_or(u64::MAX))));
        Ok((
            SourceSettings { profile, secrets: source.secrets, params: source.params, ttl: source.ttl, notes },
            capture,
        ))
    }

    fn capture(&self) -> Result<Capture, String> {
        let named = |file: &Path| {
            let shown = file.display().to_string();
            move |message: String| format!("{shown}: {message}")
        };
        let mut capture = Capture::parse(&read(&self.file).map_err(named(&self.file))?).map_err(named(&self.file))?;
        match &self.body {
            Some(file) => {
                if !capture.body.is_empty() {
                    capture.notes.push(format!("the body is that of {}, not the one in the capture", file.display()));
                }
                capture.body = read(file).map_err(named(file))?.into();
            }
            None if capture.lacks_body => {
                return Err(named(&self.file)(
                    "is without the request's body; name the file that was sent with --body FILE, or, with curl, capture with \
                     --trace-ascii FILE, since -v leaves the body out"
                        .to_owned(),
                ));
            }
            None => {}
        }
        Ok(capture)
    }
}

/// The bytes of a file, or of standard input.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    if file.as_os_str() != "-" {
        return std::fs::read(file).map_err(|error| error.to_string());
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
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
        labelled(step.kind.label(), &format!("{failed}{}", step.description));
    }
    say("");
    match &explanation.verdict {
        Ok(Accepted::Event { id, kind, .. }) => {
            let kind = kind.as_ref().map(|kind| format!(", type {kind}")).unwrap_or_default();
            say(&format_args!("accepted: event {id}{kind}"));
            say(
                "Its path and address, the types that the source selects, and whether it came before, are not judged here.",
            );
        }
        Ok(Accepted::Handshake(answer)) => say(&format_args!("answered: a handshake, with {}", answer.status)),
        Err(refusal) => say(&format_args!("refused: {}, {refusal}", reason(refusal))),
    }
    if let Some(cause) = cause {
        say("");
        labelled(if cause.proven { "cause" } else { "likely" }, &cause.description);
    }
}

fn labelled(label: &str, description: &str) {
    let mut shown = label;
    for line in wrapped(description, WIDTH - LABEL - 4) {
        say(&format_args!("  {shown:<LABEL$} {line}"));
        shown = "";
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    refusal.row().reason
}

fn describe(notes: &[String], explanation: &Explanation, cause: Option<&Cause>) -> Value {
    let (outcome, event) = match &explanation.verdict {
        Ok(Accepted::Event { id, kind, secret }) => {
            ("accepted", json!({ "id": id, "type": kind, "secret": secret.map(|at| at + 1) }))
        }
        Ok(Accepted::Handshake(_)) => ("answered", Value::Null),
        Err(_) => ("refused", Value::Null),
    };
    let steps = explanation
        .steps
        .iter()
        .map(|step| json!({ "step": step.kind.label(), "words": step.description, "failed": step.failed }));
    json!({
        "outcome": outcome,
        "reason": explanation.verdict.as_ref().err().map(reason),
        "event": event,
        "notes": notes,
        "steps": steps.collect::<Value>(),
        "cause": cause.map(|cause| json!({ "words": cause.description, "proven": cause.proven })),
    })
}
