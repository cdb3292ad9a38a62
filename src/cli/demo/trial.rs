//! Sends four requests of each provider (a genuine event, a duplicate, a forged one, a stale one) and prints a table of
//! the results.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;

use super::app::App;
use super::issuer::AUDIENCE;
use super::issuer::Issuer;
use super::random;
use crate::base::secret::Secret;
use crate::base::secret::SecretRef;
use crate::base::time::Moment;
use crate::cli::say;
use crate::extract::params;
use crate::profile::Profile;
use crate::profile::Profiles;
use crate::profile::Scheme;
use crate::profile::TimestampPolicy;
use crate::sign;
use crate::sign::Id;
use crate::sign::Order;
use crate::sign::Request;

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The age of a stale request, in seconds: more than every tolerance, and than the lifetime of the demo's tokens.
const STALE: i64 = 2 * 3600;

pub(super) struct Trial<'t> {
    pub(super) gateway: SocketAddr,
    pub(super) folder: &'t Path,
    pub(super) app: &'t App,
    pub(super) issuer: &'t Issuer,
}

/// The result of one request.
struct TrialResult {
    status: StatusCode,
    verdict: &'static str,
}

impl TrialResult {
    fn show(&self) -> String {
        format!("{} {}", self.status.as_u16(), self.verdict)
    }

    fn is(&self, status: StatusCode, verdict: &str) -> bool {
        self.status == status && self.verdict == verdict
    }
}

impl Trial<'_> {
    /// Sends the requests of all providers and prints the table. Returns whether all results are as expected.
    pub(super) async fn run(&self, profiles: &Profiles, providers: &[&str]) -> Result<bool, String> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        say(&row(["provider", "genuine", "same again", "forged", "stale", "app got"]));
        let mut all_good = true;
        for name in providers {
            let profile = profiles.get(name).ok_or_else(|| format!("there is no profile {name}"))?;
            let (line, good) = self.play(&client, name, profile).await?;
            say(&format_args!("{line}{}", if good { "" } else { "  !" }));
            all_good &= good;
        }
        Ok(all_good)
    }

    async fn play(&self, client: &reqwest::Client, name: &str, profile: &Profile) -> Result<(String, bool), String> {
        let refused = profile.answers.refused.status.map_or(401, crate::profile::Status::code);
        let refused = StatusCode::from_u16(refused).map_err(|error| error.to_string())?;
        let now = Moment::now();
        let sample = self.make(name, profile, now, true)?;
        let genuine = self.send(client, name, &sample).await?;
        let again = self.send(client, name, &sample).await?;
        let forged = self.send(client, name, &self.make(name, profile, now, false)?).await?;
        let stale = if can_be_stale(profile) {
            let old = Moment::from_unix(now.unix() - STALE);
            Some(self.send(client, name, &self.make(name, profile, old, true)?).await?)
        } else {
            None
        };
        let got = self.app.received_from(name);
        let good = genuine.is(StatusCode::OK, "delivered")
            && again.is(StatusCode::OK, "duplicate")
            && forged.is(refused, "refused")
            && stale.as_ref().is_none_or(|stale| stale.is(refused, "refused"))
            && got == [sample.id];
        let stale = stale.map_or_else(|| "no tolerance".to_owned(), |stale| stale.show());
        let events = crate::cli::count(got.len(), "event");
        Ok((row([&profile.title, &genuine.show(), &again.show(), &forged.show(), &stale, &events]), good))
    }

    /// A request of the provider at this time; with `genuine` false, one that is signed with another key.
    fn make(&self, name: &str, profile: &Profile, at: Moment, genuine: bool) -> Result<Request, String> {
        let params = [("issuer", self.issuer.url()), ("audience", AUDIENCE.to_owned())];
        let params: Vec<_> = params.into_iter().filter(|(name, _)| profile.params.contains_key(*name)).collect();
        let params = params::complete(profile, &params).map_err(|_missing| "the demo knows no such parameters")?;
        let secret = match (profile.needs_secrets(), genuine) {
            (true, true) => Some(self.secret(name)?),
            (true, false) => Some(Secret::new(const_hex::encode(random::<16>()?))?),
            (false, _) => None,
        };
        sign::request(&Order {
            profile,
            params: &params,
            secrets: secret.as_slice(),
            key: Some(if genuine { &self.issuer.genuine } else { &self.issuer.forged }),
            body: None,
            query: None,
            id: Id::Fresh(u64::from_ne_bytes(random()?)),
            kind: None,
            at,
            certificate_url: None,
        })
    }

    fn secret(&self, name: &str) -> Result<Secret, String> {
        SecretRef::parse(&format!("file:{}", self.folder.join(name).display()))?.load()
    }

    async fn send(&self, client: &reqwest::Client, name: &str, request: &Request) -> Result<TrialResult, String> {
        let url = format!("http://{}/webhooks/{name}", self.gateway);
        let request = client.post(url).headers(request.headers.clone()).body(request.body.clone());
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.text().await.map_err(|error| error.to_string())?;
        let verdict = match status.is_success() {
            true if body.contains("\"duplicate\":true") => "duplicate",
            true if body.contains("\"taken\":true") => "delivered",
            true => "accepted",
            false => "refused",
        };
        Ok(TrialResult { status, verdict })
    }
}

/// Whether a request of this provider can be stale.
fn can_be_stale(profile: &Profile) -> bool {
    let token = profile.schemes().any(|scheme| matches!(scheme, Scheme::Jwt(_)));
    token || profile.timestamp.as_ref().is_some_and(|timestamp| timestamp.policy == TimestampPolicy::Enforce)
}

fn row(cells: [&str; 6]) -> String {
    let [provider, genuine, again, forged, stale, got] = cells;
    format!("{provider:<22}{genuine:<16}{again:<16}{forged:<14}{stale:<16}{got}")
}
