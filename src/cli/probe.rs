//! `doorward drain` and `doorward healthcheck`: lifecycle hooks and probes for images without a shell or an HTTP
//! client.

use std::process::ExitCode;
use std::time::Duration;

use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use reqwest::Url;

use super::complain;
use super::duration;
use super::events::client::Address;
use super::events::client::Gateway;
use super::events::client::http_client;
use super::events::client::unanswered;
use super::runtime;
use super::say;
use super::shown_address;

/// Most bytes of an answer that are shown.
const MAX_SHOWN: usize = 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    #[command(flatten)]
    gateway: Gateway,
    /// How long to go on waiting after the gateway has answered, so that load balancers notice before whoever called
    /// this goes on to stop it.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    wait: Duration,
    /// How long the gateway may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    address: Address,
    /// Ask only whether it lives (`/livez`), not whether it can be sent events (`/readyz`).
    #[arg(long)]
    live: bool,
    /// How long the gateway may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

pub(super) fn drain(drain: &Drain) -> ExitCode {
    run(async {
        let (url, authorization) = drain.gateway.find(false)?;
        let answer = ask(url, Method::POST, "/drain", authorization, drain.timeout).await?;
        tokio::time::sleep(drain.wait).await;
        Ok(answer)
    })
}

pub(super) fn healthcheck(check: &Healthcheck) -> ExitCode {
    let path = if check.live { "/livez" } else { "/readyz" };
    // Probes need no token, so none is sent.
    run(async { ask(check.address.find()?, Method::GET, path, None, check.timeout).await })
}

fn run(request: impl Future<Output = Result<String, String>>) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(request) {
        Ok(answer) => {
            say(&answer);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Sends a request, and returns the text of the answer.
///
/// # Errors
/// There is no answer, or its status is not 200.
async fn ask(
    mut url: Url,
    method: Method,
    path: &str,
    authorization: Option<HeaderValue>,
    timeout: Duration,
) -> Result<String, String> {
    let base = shown_address(url.as_str(), &[]);
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    let mut request = http_client(timeout)?.request(method, url);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let mut response = request.send().await.map_err(|error| unanswered(&base, &error))?;
    let status = response.status();
    let mut answer = Vec::new();
    while answer.len() < MAX_SHOWN
        && let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&base, &error))?
    {
        answer.extend_from_slice(&chunk);
    }
    answer.truncate(MAX_SHOWN);
    let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
    match status {
        StatusCode::OK => Ok(answer),
        StatusCode::NOT_FOUND => Err(format!("{base} answers {path} with 404; is this the gateway's admin port?")),
        _ => Err(format!("{answer} ({} from {base})", status.as_u16())),
    }
}
