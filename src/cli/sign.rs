//! `doorward sign`: prints the signed request that a provider would send. Also the options that it shares with
//! `doorward send`.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use super::complain;
use super::provider::ProviderOptions;
use super::say;
use super::say_json;
use super::say_raw;
use crate::base::secret::Secret;
use crate::base::time::Moment;
use crate::profile::Carrier;
use crate::profile::Credentials;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;
use crate::sign;
use crate::sign::Id;
use crate::sign::Kind;
use crate::sign::Order;
use crate::sign::PrivateKey;
use crate::sign::Public;
use crate::sign::Request;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    event: EventOptions,
}

/// What is sent, and how it is signed.
#[derive(Debug, clap::Args)]
pub(super) struct EventOptions {
    #[command(flatten)]
    provider: ProviderOptions,
    /// The private key in PKCS#8 PEM, for providers that sign with one; a throw-away key when absent.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The body, sent byte for byte; the profile's sample when absent.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The event's id; a new one when absent.
    #[arg(long)]
    id: Option<String>,
    /// The event's type; the sample's when absent.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// When it is sent, in Unix seconds; now when absent.
    #[arg(long, value_name = "UNIX", value_parser = clap::value_parser!(i64).range(0..=Moment::LAST_UNIX))]
    at: Option<i64>,
    /// The address of the certificate, for providers whose requests name one.
    #[arg(long, value_name = "URL")]
    certificate_url: Option<String>,
    /// Write JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A signed request, and the public half of a throw-away key.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) request: Request,
    public: Option<Public>,
    /// The parameters of its query that are credentials.
    pub(super) secret: Vec<String>,
    /// Whether the body differs from that of `--body`.
    body_is_new: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.event.signed(None) {
        Ok(signed) => {
            if arguments.event.json {
                say_json(&signed.describe());
            } else {
                signed.show();
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

impl EventOptions {
    /// Signs the event, for this address if it is known.
    ///
    /// # Errors
    /// Which options are wrong, and how to fix them.
    pub(super) fn signed(&self, to: Option<&str>) -> Result<Signed, String> {
        let profiles = self.provider.profiles()?;
        let profile = self.provider.profile(&profiles)?;
        let params = self.provider.params(profile, to)?;
        let secrets = self.secrets(profile)?;
        let key = self.key(profile)?;
        if self.certificate_url.is_none() && needs_certificate(profile) {
            return Err(
                "--certificate-url is missing: requests of this provider name the address of the certificate that \
                        they are signed with, on a host that the parameter certificate_hosts allows"
                    .to_owned(),
            );
        }
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("--body {}: {error}", path.display()));
        let body = self.body.as_ref().map(read).transpose()?.map(Bytes::from);
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).map_err(|error| format!("there is no randomness for a new id: {error}"))?;
        let request = sign::request(&Order {
            profile,
            params: &params,
            secrets: &secrets,
            key: key.as_ref(),
            body: body.as_ref(),
            query: to.and_then(query),
            id: self.id.as_deref().map_or_else(|| Id::Fresh(u64::from_ne_bytes(bits)), Id::Asked),
            kind: self.kind.as_deref(),
            at: self.at.map_or_else(Moment::now, Moment::from_unix),
            certificate_url: self.certificate_url.as_deref(),
        })?;
        let body_is_new = body.as_ref() != Some(&request.body);
        let public = key.map(|key| key.public(profile)).transpose()?;
        let locations = Credentials::of(profile).locations.into_iter();
        let secret = locations
            .filter_map(|location| if let Carrier::Query(name) = location.carrier { Some(name) } else { None });
        Ok(Signed { request, public, secret: secret.collect(), body_is_new })
    }

    fn secrets(&self, profile: &Profile) -> Result<Vec<Secret>, String> {
        if self.provider.secret.is_empty()
            && self.key.is_none()
            && profile.needs_secrets()
            && !profile.keys_are_public()
        {
            let key = profile.schemes().any(|scheme| Kind::of(scheme).is_some());
            let or = if key { ", or name a private key with --key FILE" } else { "" };
            return Err(format!("{}{or}", ProviderOptions::missing_secrets(profile)));
        }
        if !self.provider.secret.is_empty() && profile.keys_are_public() {
            return Err(
                "--secret is of no use: this provider signs with a private key; name its file with --key, or leave \
                        both out for a throw-away key"
                    .to_owned(),
            );
        }
        self.provider.secrets(profile)
    }

    /// The private key of `--key`; otherwise a new one, if the profile's keys are public.
    fn key(&self, profile: &Profile) -> Result<Option<PrivateKey>, String> {
        let kinds: Vec<_> = profile.schemes().filter_map(Kind::of).collect();
        let Some(path) = &self.key else {
            let kind = kinds.first().filter(|_| profile.keys_are_public());
            return kind.map(|kind| PrivateKey::generate(*kind)).transpose();
        };
        let Some(first) = kinds.first() else {
            return Err(
                "--key is of no use: this provider does not sign with a private key; give its secret with --secret"
                    .to_owned(),
            );
        };
        let named = |message: String| format!("--key {}: {message}", path.display());
        let pem = std::fs::read_to_string(path)
            .map_err(|error| named(format!("{error}; `{}` makes one", first.command())))?;
        let key = PrivateKey::parse(&pem).map_err(named)?;
        if !kinds.contains(&key.kind()) {
            let message = format!(
                "is a key for {}, and this provider signs with {}; `{}` makes one",
                key.kind().title(),
                first.title(),
                first.command()
            );
            return Err(named(message));
        }
        Ok(Some(key))
    }
}

/// The query of a URL, as written.
fn query(address: &str) -> Option<&str> {
    let before_fragment = address.split('#').next()?;
    before_fragment.split_once('?').map(|(_, query)| query)
}

fn needs_certificate(profile: &Profile) -> bool {
    profile
        .schemes()
        .any(|scheme| matches!(scheme, Scheme::Signature(spec) if matches!(spec.algorithm, SignatureAlgorithm::Certificate(..))))
}

impl Signed {
    /// Prints the request. With a body of the caller's, standard output has only the headers, for `curl -H @-`.
    fn show(&self) {
        self.headers().for_each(|(name, value)| say_raw(&format_args!("{name}: {value}")));
        if self.body_is_new {
            say("");
            say_raw(&String::from_utf8_lossy(&self.request.body));
        }
        if let Some(query) = &self.request.query {
            complain(&format_args!("the address has to end with ?{query}"));
        }
        self.explain();
    }

    /// Prints the public half of the key, which the source needs.
    pub(super) fn explain(&self) {
        match &self.public {
            Some(Public::Secret(text)) => {
                complain("the public half of the key, for the source:");
                complain(&format_args!("secrets = ['plain:{text}']"));
            }
            Some(Public::KeySet(set)) => {
                complain("the public half of the key, to be published at params.jwks_url of the source:");
                complain(set);
            }
            Some(Public::Certificate(pem)) => {
                complain("the certificate of the key, to be published at --certificate-url:");
                complain(pem);
            }
            None => {}
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&str, String)> {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.request.headers.iter().map(move |(name, value)| (name.as_str(), text(value)))
    }

    /// The public half of the key as JSON.
    pub(super) fn public(&self) -> Value {
        match &self.public {
            Some(Public::Secret(text)) => json!({ "secrets": [format!("plain:{text}")] }),
            Some(Public::KeySet(set)) => json!({ "jwks": set }),
            Some(Public::Certificate(pem)) => json!({ "certificate": pem }),
            None => Value::Null,
        }
    }

    fn describe(&self) -> Value {
        let body = match std::str::from_utf8(&self.request.body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_bytes) => ("body_base64", base64::engine::general_purpose::STANDARD.encode(&self.request.body)),
        };
        let headers: serde_json::Map<_, _> =
            self.headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json!({
            "method": self.request.method.as_str(),
            "query": self.request.query,
            "headers": headers,
            body.0: body.1,
            "id": self.request.id,
            "public": self.public(),
        })
    }
}
