//! `doorward send`: signs a webhook as a provider would, sends it and shows the answer.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::complain;
use super::runtime;
use super::say;
use super::say_json;
use super::shown_address;
use super::sign::EventOptions;
use crate::sign::Request;

/// The timeout of the request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of the answer's body that are read.
const MAX_ANSWER: usize = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to: the address that the provider would have.
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    event: EventOptions,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(send(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Sends the webhook and shows the answer. Returns whether its status is a success.
async fn send(arguments: &Arguments) -> Result<bool, String> {
    let to = reqwest::Url::parse(&arguments.to)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| {
            let to = shown_address(&arguments.to, &[]);
            format!("--to {to}: write an address such as http://127.0.0.1:8080/webhooks/stripe")
        })?;
    let signed = arguments.event.signed(Some(&arguments.to))?;
    let url = address(to, &signed.request);
    let shown = shown_address(url.as_str(), &signed.secret);
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let request = client
        .request(signed.request.method.clone(), url.clone())
        .headers(signed.request.headers.clone())
        .body(signed.request.body.clone());
    let mut response = request.send().await.map_err(|error| unanswered(&shown, &error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&shown, &error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    if arguments.event.json {
        let sent = json!({ "method": signed.request.method.as_str(), "url": shown, "id": signed.request.id });
        say_json(&json!({ "request": sent, "status": status.as_u16(), "body": text, "public": signed.public() }));
    } else {
        say(&format_args!("{} {shown}", signed.request.method));
        say(&format_args!("id {}\n", signed.request.id));
        say(&status);
        if !text.is_empty() {
            say(&text.lines().collect::<Vec<_>>().join("\n").trim_end());
        }
        signed.explain();
    }
    Ok(status.is_success())
}

/// The address with the query that the request has.
fn address(mut to: reqwest::Url, request: &Request) -> reqwest::Url {
    if to.query() != request.query.as_deref() {
        to.set_query(request.query.as_deref());
    }
    to
}

fn unanswered(shown: &str, error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let hint = if error.is_connect() { "; is the gateway running there? `doorward serve` starts it" } else { "" };
    format!("there is no answer from {shown}: {cause}{hint}")
}
