//! The configuration: read, validated and turned into settings. Reads files and the environment only; connects to and
//! opens nothing.

mod admin;
mod destination;
mod single_source;
mod layers;
mod lint;
mod queue;
mod section;
mod shared_secrets;
mod source;
mod store;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::problem::Problems;
use crate::http::admission::InFlight;
use crate::http::admission::Quota;
use crate::http::body::Budget;
use crate::http::body::Limits;
use crate::http::origin::Networks;
use crate::http::origin::TrustedProxies;
use crate::profile::Profiles;
use crate::source::Source;
use crate::verify::Jwks;

use self::layers::Layers;
use self::section::Report;
use self::section::Section;
use self::section::count;
use self::section::duration;
use self::section::size;
use self::section::word;

pub use admin::Admin;
pub use single_source::SingleSource;
pub use store::Store;

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
    /// The JWKS of the sources' issuers, to be fetched and refreshed.
    pub jwks: Vec<Arc<Jwks>>,
    /// Problems that do not keep the gateway from starting.
    pub warnings: Problems,
}

/// `[server]`.
#[derive(Debug)]
pub struct Server {
    /// The address for providers.
    pub listen: SocketAddr,
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

/// `[log]`.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// How many unverified requests of a source are logged at once; see [`crate::telemetry::Sampler`].
    pub unverified_burst: u32,
    /// How many unverified requests of a source are logged per second in the long run.
    pub unverified_rate: u32,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

impl Settings {
    /// Reads the embedded defaults, the file at `path` and the environment.
    ///
    /// # Errors
    /// All problems, when one of them is fatal.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let layers = Layers::read(path)?;
        let report = Report::new(&layers);
        let settings = Self::read(Section::root(layers.root(), &report), &report);
        let problems = report.into_problems();
        match settings {
            Some(settings) if !problems.is_fatal() => Ok(Self { warnings: problems, ..settings }),
            _ => Err(problems),
        }
    }

    /// Reads `[admin]` only, for commands that talk to a running gateway: problems elsewhere do not matter to them.
    ///
    /// # Errors
    /// All problems of that section.
    pub fn load_admin(path: &Path) -> Result<Admin, Problems> {
        let layers = Layers::read(path)?;
        let report = Report::new(&layers);
        let admin = Section::root(layers.root(), &report).section("admin").and_then(Admin::read);
        let problems = report.into_problems();
        admin.filter(|_| !problems.is_fatal()).ok_or(problems)
    }

    /// Reads `admin.listen` only, for commands that send no token.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load_admin_address(path: &Path) -> Result<SocketAddr, Problems> {
        let layers = Layers::read(path)?;
        let report = Report::new(&layers);
        let listen = Section::root(layers.root(), &report)
            .section("admin")
            .and_then(|mut admin| admin.required("listen", address));
        listen.ok_or_else(|| report.into_problems())
    }

    fn read(mut root: Section<'_>, report: &Report<'_>) -> Option<Self> {
        let profiles = profiles(&mut root, report);
        let server = root.section("server").map(Server::read);
        let admin = root.section("admin").map(Admin::read);
        let store = root.section("store").map(Store::read);
        let log = root.section("log").map(Log::read);
        // Sources are read even when a section above is wrong, so that one run reports all problems.
        let (server, shares) = server.unwrap_or_else(|| (None, SharedLimits::with_max_body(usize::MAX)));
        let store = store.flatten();
        let context = source::SourceContext::new(&profiles, &shares, store.as_ref());
        let sources_read = root.section("sources").map(|sources| context.sources(&sources));
        report.with(|problems| context.into_used().iter().for_each(|name| profiles.lint(name, problems)));
        root.finish();
        let (sources, jwks) = sources_read?;
        Some(Self {
            server: server?,
            admin: admin??,
            store: store?,
            log: log??,
            sources,
            jwks,
            warnings: Problems::default(),
        })
    }
}

/// The shipped profiles and those of the operator's directory.
fn profiles(root: &mut Section<'_>, report: &Report<'_>) -> Profiles {
    let mut profiles = Profiles::shipped();
    let directory = root.required("profiles", |text| Ok(PathBuf::from(text)));
    if let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) {
        report.with(|problems| profiles.add_directory(&directory, problems));
    }
    profiles
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
        let (max_buffered, max_in_flight) = (max_buffered.unwrap_or(1), max_in_flight.unwrap_or(1));
        let limits = Limits {
            max_body: max_body.unwrap_or(usize::MAX),
            body_timeout: body_timeout.unwrap_or(Duration::from_secs(1)),
            budget: Arc::new(Budget::with_address_limit(max_buffered, max_per_address.unwrap_or(1))),
            max_decompressions: max_decompressions.unwrap_or(1),
        };
        let in_flight = Arc::new(Quota::new(max_in_flight));
        let shares = SharedLimits { limits, max_buffered, in_flight, max_in_flight, percent: percent.unwrap_or(100) };
        let server = Self::read_listener(&mut section);
        section.finish();
        (server, shares)
    }

    fn read_listener(section: &mut Section<'_>) -> Option<Self> {
        let listen = section.required("listen", address);
        let workers = section.required("workers", count(0, 1024));
        let trusted_proxies = section.list("trusted_proxies", Networks::parse);
        let max_connections = section.required("max_connections", count(1, 1_000_000));
        let max_per_address = section.required("max_connections_per_address", count(1, 1_000_000));
        let header_timeout = section.required("header_timeout", duration);
        let idle_timeout = section.required("idle_timeout", duration);
        let drain_timeout = section.required("drain_timeout", duration);
        Some(Self {
            listen: listen?,
            workers: match workers? {
                // Respects the CPU limit of a container.
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                workers => workers,
            },
            trusted_proxies: TrustedProxies::new(trusted_proxies.into_iter().collect()),
            max_connections: max_connections?,
            max_connections_per_address: max_per_address?,
            header_timeout: header_timeout?,
            idle_timeout: idle_timeout?,
            drain_timeout: drain_timeout?,
        })
    }
}

impl Log {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        let format = section.required("format", word(&formats));
        let levels = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
        ];
        let level = section.required("level", word(&levels));
        let mut number = |key| section.required(key, count(1, 1_000_000)).and_then(|count| u32::try_from(count).ok());
        let (unverified_burst, unverified_rate) = (number("unverified_burst"), number("unverified_rate"));
        section.finish();
        Some(Self {
            format: format?,
            level: level?,
            unverified_burst: unverified_burst?,
            unverified_rate: unverified_rate?,
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

/// The limits that all sources share, and the part that one source may use.
#[derive(Debug)]
struct SharedLimits {
    limits: Limits,
    max_buffered: usize,
    in_flight: Arc<Quota>,
    max_in_flight: usize,
    /// `max_share`: the part of one source, where there are several.
    percent: usize,
}

impl SharedLimits {
    /// Limits for reading sources where only the size of bodies is known.
    fn with_max_body(max_body: usize) -> Self {
        let limits = Limits { max_body, ..Limits::none() };
        Self { limits, max_buffered: usize::MAX, in_flight: Arc::new(Quota::new(0)), max_in_flight: 0, percent: 100 }
    }

    /// The limits of one source out of `sources`. The only source may use everything.
    fn for_source(&self, sources: usize, max_body: usize) -> (Limits, InFlight) {
        let percent = if sources > 1 { self.percent } else { 100 };
        let share = |all: usize| all.saturating_mul(percent).div_ceil(100).min(all);
        // Enough for the largest body, compressed and decompressed.
        let bytes = share(self.max_buffered).max(max_body.saturating_mul(2)).min(self.max_buffered);
        let limits = Limits { max_body, budget: Arc::new(self.limits.budget.share(bytes)), ..self.limits.clone() };
        (limits, InFlight::new(Arc::clone(&self.in_flight), share(self.max_in_flight)))
    }
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
