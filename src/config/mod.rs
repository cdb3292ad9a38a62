//! The configuration: read, validated and turned into settings. Reads files and the environment only; connects to and
//! opens nothing.

mod admin;
mod again;
mod client_certificate;
mod destination;
mod single_source;
mod files;
mod fingerprint;
mod layers;
mod lint;
mod log;
mod listener;
mod profiles;
mod queue;
mod rates;
mod route;
mod secrets;
mod section;
mod shared_limits;
mod shared_secrets;
mod source;
mod store;
mod unchanged;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::problem::Problems;
use crate::http::admission::Quota;
use crate::http::body::Budget;
use crate::http::body::Limits;
use crate::http::origin::TrustedPeer;
use crate::http::origin::TrustedProxies;
use crate::source::Source;
use crate::verify::Jwks;
use crate::verify::KeySets;

use self::again::Running;
use self::files::Files;
use self::fingerprint::Fingerprint;
use self::fingerprint::Fingerprinting;
use self::layers::INCLUDE;
use self::layers::Layers;
use self::section::Report;
use self::section::Section;
use self::section::count;
use self::section::duration;
use self::section::size;
use self::section::word;
use self::shared_limits::SharedLimits;
use self::source::Sources;

pub use admin::Admin;
pub use again::Difference;
pub use files::Inputs;
pub use listener::ListenAddress;
pub use listener::Listener;
pub use log::Log;
pub use log::LogFormat;
pub use single_source::SingleSource;
pub use store::Store;

/// What a certificate in PEM begins with (RFC 7468).
const BEGIN: &[u8] = b"-----BEGIN ";

/// Fingerprints by name.
type Fingerprints = BTreeMap<String, Fingerprint>;

/// The validated configuration.
#[derive(Debug)]
pub struct Settings {
    /// `[server]`: the listener for providers.
    pub server: Server,
    /// `[admin]`: the listener for operators.
    pub admin: Admin,
    /// `[store]`: where dedupe records and queued messages are kept.
    pub store: Store,
    /// `[log]`: how and what to log.
    pub log: Log,
    /// The sources, each of which is one endpoint.
    pub sources: Vec<Arc<Source>>,
    /// Sources that were left out because a secret is missing.
    pub skipped: Vec<Skipped>,
    /// The JWKS of the sources' issuers, to be fetched and refreshed.
    pub jwks: Vec<Arc<Jwks>>,
    /// Problems that do not keep the gateway from starting.
    pub warnings: Problems,
    path: PathBuf,
    inputs: Inputs,
    /// What takes effect at the start only.
    fixed: Fingerprints,
    /// The sources, by name.
    fingerprints: Fingerprints,
    shares: SharedLimits,
    key_sets: KeySets,
    /// Whether `SSL_CERT_FILE` has certificate authorities.
    has_authorities: bool,
}

/// A source that was left out, as `on_problem = "skip-source"` says.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Its path, whose requests are asked to come again.
    pub path: String,
    /// Its hosts; any when there are none.
    pub hosts: Vec<String>,
}

/// `[server]`.
#[derive(Debug)]
pub struct Server {
    /// Where providers reach the gateway.
    pub listeners: Vec<Listener>,
    /// Threads that handle requests.
    pub workers: usize,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// Most open connections.
    pub max_connections: usize,
    /// Most open connections of one IPv4 address or one /64 of IPv6, except trusted proxies.
    pub max_connections_per_address: usize,
    /// The limit from the beginning of a connection to the end of its first head, and from the first byte of a later
    /// head to its end.
    pub header_timeout: Duration,
    /// The limit from an answer to the first byte of the connection's next request.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish when the gateway is told to stop.
    pub drain_timeout: Duration,
}

impl Settings {
    /// Reads the embedded defaults, the file at `path` and the environment.
    ///
    /// # Errors
    /// All problems, when one of them is fatal.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let files = Files::default();
        let settings = Self::load_with(path, None, &files)?;
        Ok(Self { inputs: files.into_inputs(), ..settings })
    }

    fn load_with(path: &Path, running: Option<Running<'_>>, files: &Files) -> Result<Self, Problems> {
        let layers = Layers::read(path, files)?;
        let report = Report::new(&layers, files);
        if running.is_some() && layers.is_empty() {
            // It was hardly meant that all sources are gone.
            report.with(|problems| problems.error(layers.file(), "", "is empty"));
        }
        let settings = Self::read(Section::root(layers.root(), &report), running, &report);
        let problems = report.into_problems();
        match settings {
            Some(settings) if !problems.is_fatal() => {
                Ok(Self { warnings: problems, path: path.to_owned(), ..settings })
            }
            _ => Err(problems),
        }
    }

    /// Reads `[admin]` only, for commands that talk to a running gateway: problems elsewhere do not matter to them.
    ///
    /// # Errors
    /// All problems of that section.
    pub fn load_admin(path: &Path) -> Result<Admin, Problems> {
        let files = Files::default();
        let layers = Layers::read_alone(path, &files)?;
        let report = Report::new(&layers, &files);
        let admin = Section::root(layers.root(), &report).section("admin").and_then(Admin::read);
        let problems = report.into_problems();
        admin.filter(|_| !problems.is_fatal()).ok_or(problems)
    }

    /// Reads `admin.listen` only, for commands that send no token.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load_admin_address(path: &Path) -> Result<SocketAddr, Problems> {
        let files = Files::default();
        let layers = Layers::read_alone(path, &files)?;
        let report = Report::new(&layers, &files);
        let listen = Section::root(layers.root(), &report)
            .section("admin")
            .and_then(|mut admin| admin.required("listen", address));
        listen.ok_or_else(|| report.into_problems())
    }

    fn read(mut root: Section<'_>, running: Option<Running<'_>>, report: &Report<'_>) -> Option<Self> {
        let (profiles, directory) = profiles::profiles(&mut root, report);
        root.list(INCLUDE, |pattern| Ok(pattern.to_owned()));
        let skips = root.required("on_problem", word(&[("refuse", false), ("skip-source", true)]));
        let fixed = root.fixed();
        let server = root.section("server").map(Server::read);
        let admin = root.section("admin").map(Admin::read);
        let store = root.section("store").map(Store::read);
        let log = root.section("log").map(Log::read);
        // Sources are read even when a section above is wrong, so that one run reports all problems.
        let (server, shares) = server.unwrap_or_else(|| (None, SharedLimits::with_max_body(usize::MAX)));
        let shares = match running {
            Some(running) => shares.over(&running.started.shares),
            None => shares,
        };
        let store = store.flatten();
        let kept = running.map(|running| &running.started.store).or(store.as_ref());
        let (authorities, has_authorities) = authorities(report, running);
        // Where the listeners have a problem, that is what is reported.
        let certificates = server.as_ref().is_none_or(|server| listener::ask_for_certificates(&server.listeners));
        let trusted = Fingerprinting::default().bytes(&authorities).number(usize::from(certificates));
        let context = source::SourceContext::new(&profiles, &shares, kept, certificates);
        let context = context.replacing(running, trusted, skips == Some(true));
        let sources_read = root.section("sources").map(|sources| context.sources(&sources));
        let used = context.into_used();
        report.with(|problems| {
            used.iter().for_each(|name| profiles.lint(name, problems));
            used.iter().for_each(|name| profiles::gone(name, &profiles, &directory, report.files(), problems));
        });
        root.finish();
        let Sources { sources, skipped, fingerprints, key_sets } = sources_read?;
        Some(Self {
            server: server?,
            admin: admin??,
            store: store?,
            log: log??,
            sources,
            skipped,
            jwks: key_sets.values().map(Arc::clone).collect(),
            warnings: Problems::default(),
            path: PathBuf::new(),
            inputs: Inputs::default(),
            fixed,
            fingerprints,
            shares,
            key_sets,
            has_authorities,
        })
    }
}

/// The certificate authorities by which upstreams are verified, where a variable names them; and whether there are any.
/// That there are none any more was hardly meant.
#[expect(clippy::disallowed_methods, reason = "whoever loads them reads the environment, too")]
fn authorities(report: &Report<'_>, running: Option<Running<'_>>) -> (Vec<u8>, bool) {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) else { return (Vec::new(), false) };
    let content = report.files().read(&path).unwrap_or_default();
    let found = content.windows(BEGIN.len()).any(|part| part == BEGIN);
    if !found && running.is_some_and(|running| running.current.has_authorities) {
        let message = format!("{} has no certificate in PEM any more", path.display());
        report.with(|problems| problems.error("environment variable SSL_CERT_FILE", "", message));
    }
    (content, found)
}

impl Server {
    /// Reads `[server]`, and the limits of requests, which sources need even when another key of the section is wrong.
    fn read(mut section: Section<'_>) -> (Option<Self>, SharedLimits) {
        let max_body = section.required("max_body", size);
        let body_timeout = section.required("body_timeout", duration);
        let max_buffered = section.required("max_buffered", size);
        if let (Some(max_body), Some(max_buffered)) = (max_body, max_buffered)
            && max_buffered < max_body
        {
            section
                .error("max_buffered", "is less than server.max_body, so that the largest bodies could never be read");
        }
        let max_per_address = section.required("max_buffered_per_address", size);
        let max_in_flight = section.required("max_in_flight", count(1, 1_000_000));
        let percent = section.required("max_share", percent);
        let max_decompressions = section.required("max_decompressions", count(1, 1_000_000));
        let max_rate_addresses = section.required("max_rate_addresses", count(1, 10_000_000)).unwrap_or(1);
        let (max_buffered, max_in_flight) = (max_buffered.unwrap_or(1), max_in_flight.unwrap_or(1));
        let limits = Limits {
            max_body: max_body.unwrap_or(usize::MAX),
            body_timeout: body_timeout.unwrap_or(Duration::from_secs(1)),
            budget: Arc::new(Budget::with_address_limit(max_buffered, max_per_address.unwrap_or(1))),
            max_decompressions: max_decompressions.unwrap_or(1),
        };
        let in_flight = Arc::new(Quota::new(max_in_flight));
        let percent = percent.unwrap_or(100);
        let shares = SharedLimits { limits, max_buffered, in_flight, max_in_flight, percent, max_rate_addresses };
        let server = Self::read_listener(&mut section);
        section.finish();
        (server, shares)
    }

    fn read_listener(section: &mut Section<'_>) -> Option<Self> {
        let listeners = listener::listeners(section);
        let workers = section.required("workers", count(0, 1024));
        let trusted_proxies = section.list("trusted_proxies", TrustedPeer::parse);
        let max_connections = section.required("max_connections", count(1, 1_000_000));
        let max_per_address = section.required("max_connections_per_address", count(1, 1_000_000));
        let header_timeout = section.required("header_timeout", duration);
        let idle_timeout = section.required("idle_timeout", duration);
        let drain_timeout = section.required("drain_timeout", duration);
        Some(Self {
            listeners: listeners?,
            workers: match workers? {
                // Respects the CPU limit of a container.
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                workers => workers,
            },
            trusted_proxies: trusted_proxies.into_iter().collect(),
            max_connections: max_connections?,
            max_connections_per_address: max_per_address?,
            header_timeout: header_timeout?,
            idle_timeout: idle_timeout?,
            drain_timeout: drain_timeout?,
        })
    }
}

/// The default of `store.ttl`.
///
/// # Errors
/// Only when the embedded defaults have none, which is a bug.
pub fn default_ttl() -> Result<Duration, String> {
    duration(&layers::default_value("store", "ttl")?)
}

fn percent(text: &str) -> Result<usize, String> {
    text.strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| format!("{text:?} is not a share from \"1%\" to \"100%\""))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_bad| format!("{text:?} is not an address with a port, such as \"0.0.0.0:8080\" or \"[::]:8080\""))
}
