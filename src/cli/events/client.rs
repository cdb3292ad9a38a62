//! An HTTP client for the admin API of a running gateway. The address and token come from the configuration or options.

use std::error::Error;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use reqwest::Url;
use serde_json::Value;

use crate::base::problem::Problems;
use crate::base::secret::Secret;
use crate::base::secret::SecretRef;
use crate::cli::shown_address;
use crate::cli::warn_of_plain_secret;
use crate::config::Admin;
use crate::config::Settings;

/// The timeout of a request, except those that copy the store.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an answer: a thousand events, each with the answer of its upstream.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where a gateway is.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Address {
    /// The configuration of the gateway, which says what its admin port is.
    #[arg(long, value_name = "FILE", default_value = "doorward.toml")]
    config: PathBuf,
    /// The address of its admin port, when it is not `admin.listen`.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Address {
    /// The URL of the admin port. Reads the configuration only if the URL is not an option, and never the token.
    pub(in crate::cli) fn find(&self) -> Result<Url, String> {
        let Self { config, url } = self;
        match url {
            Some(url) => base(url),
            None => reachable(Settings::load_admin_address(config).map_err(|problems| unread(&problems))?, config),
        }
    }
}

/// Which gateway is meant.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Gateway {
    #[command(flatten)]
    address: Address,
    /// The token, when it is not `admin.token`: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "SECRET")]
    token: Option<String>,
}

impl Gateway {
    /// The URL of the admin port, and the header with the token. Without `with_token`, the token is optional, and the
    /// configuration is not read if the URL is an option.
    pub(in crate::cli) fn find(&self, with_token: bool) -> Result<(Url, Option<HeaderValue>), String> {
        let Self { address: Address { config, url }, token } = self;
        let url = url.as_deref().map(base).transpose()?;
        let token = token.as_deref().map(|text| {
            let reference = SecretRef::parse(text);
            if matches!(reference, Ok(SecretRef::Plain(_))) {
                warn_of_plain_secret("--token");
            }
            reference.and_then(|reference| reference.load()).map_err(|message| format!("--token {message}"))
        });
        let (base, token) = match (url, token.transpose()?) {
            (Some(url), token) if token.is_some() || !with_token => (url, token),
            (url, token) => {
                let admin = load(config)?;
                let url = url.map_or_else(|| reachable(admin.listen, config), Ok)?;
                let token = match token {
                    None if with_token => Some(configured(&admin, config)?),
                    None => admin.tokens.into_iter().next(),
                    token => token,
                };
                (url, token)
            }
        };
        Ok((base, token.as_ref().map(bearer).transpose()?))
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, String> {
    let mut authorization = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())
        .map_err(|_bad| "the token has characters that no header can carry".to_owned())?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

/// An HTTP client with this timeout.
pub(in crate::cli) fn http_client(timeout: Duration) -> Result<reqwest::Client, String> {
    // A proxy from the environment must not see the token.
    reqwest::Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())
}

/// A client of one gateway.
pub(in crate::cli) struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: HeaderValue,
}

impl Client {
    pub(in crate::cli) fn new(gateway: &Gateway) -> Result<Self, String> {
        Self::with_timeout(gateway, TIMEOUT)
    }

    /// A client with this timeout.
    pub(in crate::cli) fn with_timeout(gateway: &Gateway, timeout: Duration) -> Result<Self, String> {
        let (base, authorization) = gateway.find(true)?;
        let authorization = authorization.ok_or("there is no token")?;
        Ok(Self { http: http_client(timeout)?, base, authorization })
    }

    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, String> {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Method::GET, url, String::new()).await
    }

    pub(in crate::cli) async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.ask(Method::POST, self.at(path), body.to_string()).await
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn ask(&self, method: Method, url: Url, body: String) -> Result<Value, String> {
        let base = &shown_address(self.base.as_str(), &[]);
        let request = self.http.request(method, url).header(header::AUTHORIZATION, self.authorization.clone());
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        match send(request, base).await? {
            (StatusCode::OK, Some(answer)) => Ok(answer),
            (status, answer) => match answer.as_ref().and_then(|answer| answer.get("detail")?.as_str()) {
                Some(detail) => Err(format!("{detail} ({} from {base})", status.as_u16())),
                None => Err(not_ours(base, status)),
            },
        }
    }
}

/// Asks for a path of the API, with the header that was found with the URL; the status and the JSON of the answer.
pub(in crate::cli) async fn exchange(
    (method, path): (Method, &str),
    (mut url, authorization): (Url, Option<HeaderValue>),
    timeout: Duration,
) -> Result<(StatusCode, Value), String> {
    let base = shown_address(url.as_str(), &[]);
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    let mut request = http_client(timeout)?.request(method, url);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    match send(request, &base).await? {
        (status, Some(answer)) => Ok((status, answer)),
        (status, None) => Err(not_ours(&base, status)),
    }
}

/// The status of an answer, and its JSON if it is.
async fn send(request: reqwest::RequestBuilder, base: &str) -> Result<(StatusCode, Option<Value>), String> {
    let mut response = request.send().await.map_err(|error| unanswered(base, &error))?;
    let status = response.status();
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(base, &error))? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_ANSWER {
            return Err(format!("{base} answers with more than {MAX_ANSWER} bytes"));
        }
    }
    Ok((status, serde_json::from_slice(&answer).ok()))
}

fn not_ours(base: &str, status: StatusCode) -> String {
    format!("{base} answers {status}, which is not Doorward's API; is it the admin port?")
}

fn base(text: &str) -> Result<Url, String> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none()).ok_or_else(
        || {
            format!(
                "--url {}: write the address of the admin port, such as http://127.0.0.1:9090",
                shown_address(text, &[])
            )
        },
    )
}

fn load(config: &Path) -> Result<Admin, String> {
    Settings::load_admin(config).map_err(|problems| unread(&problems))
}

fn unread(problems: &Problems) -> String {
    format!(
        "{problems}\nname the configuration of the gateway with --config FILE, or its admin port with --url and, where it \
         is asked for, its token with --token"
    )
}

/// The URL of a gateway that listens on this address.
fn reachable(listen: SocketAddr, config: &Path) -> Result<Url, String> {
    let ip = match (listen.ip().is_unspecified(), listen.is_ipv4()) {
        (false, _) => listen.ip(),
        (true, true) => Ipv4Addr::LOCALHOST.into(),
        (true, false) => Ipv6Addr::LOCALHOST.into(),
    };
    Some(listen.port())
        .filter(|port| *port != 0)
        .and_then(|port| Url::parse(&format!("http://{}", SocketAddr::from((ip, port)))).ok())
        .ok_or_else(|| format!("admin.listen in {} names no port; write --url", config.display()))
}

fn configured(admin: &Admin, config: &Path) -> Result<Secret, String> {
    admin.tokens.first().cloned().ok_or_else(|| {
        format!(
            "{} has no admin.token, so that the API is off; set it to a secret, such as \"env:DOORWARD_TOKEN\", and restart \
             the gateway; or name its token with --token",
            config.display()
        )
    })
}

pub(in crate::cli) fn unanswered(base: &str, error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let hint = if error.is_connect() { "; is the gateway running, and is this its admin port?" } else { "" };
    format!("there is no answer from {base}: {cause}{hint}")
}
