//! The configuration of an operator, read and validated into settings. Touches files and the environment only; nothing
//! is connected or opened here.

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

/// Everything the gateway needs to know.
#[derive(Debug)]
pub struct Settings {
    /// `[server]`: the listener for providers.
    pub server: Server,
    /// `[admin]`: the listener for operators.
    pub admin: Admin,
    /// `[store]`: where dedupe records and queued messages are kept.
    pub store: Store,
    /// How and what to log.
    pub log: Log,
    /// The sources, each of which is one endpoint.
    pub sources: Vec<Arc<Source>>,
    /// The key sets of issuers, which have to be fetched and kept fresh.
    pub jwks: Vec<Arc<Jwks>>,
    /// Problems that do not keep the gateway from starting.
    pub warnings: Problems,
}

/// `[server]`.
#[derive(Debug)]
pub struct Server {
    /// Where providers reach the gateway.
    pub listen: SocketAddr,
    /// Threads that handle requests.
    pub workers: usize,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Connections open at one time.
    pub max_connections: usize,
    /// Of one IPv4 address or one /64 of IPv6 that is no trusted proxy's.
    pub max_connections_per_address: usize,
    /// From the beginning of a connection to the end of its first head, and from the first byte of a later head to its
    /// end.
    pub header_timeout: Duration,
    /// From a connection's last answer to the first byte of its next request.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish when the gateway is told to stop.
    pub drain_timeout: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The form of an event.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// Requests of a source that nobody verified of which each has a line in the log.
    pub unverified_burst: u32,
    /// The same a second, in the long run.
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
    /// Every problem of every file, when one of them keeps the gateway from starting.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let layers = Layers::read(path)?;
        let report = Report::new(&layers);
        let settings = Self::understand(Section::root(layers.root(), &report), &report);
        let problems = report.into_problems();
        match settings {
            Some(settings) if !problems.is_fatal() => Ok(Self { warnings: problems, ..settings }),
            _ => Err(problems),
        }
    }

    /// Reads `[admin]` alone, for commands that talk to a running gateway: whatever is wrong elsewhere is not theirs.
    ///
    /// # Errors
    /// Every problem of that section.
    pub fn load_admin(path: &Path) -> Result<Admin, Problems> {
        let layers = Layers::read(path)?;
        let report = Report::new(&layers);
        let admin = Section::root(layers.root(), &report).section("admin").and_then(Admin::understand);
        let problems = report.into_problems();
        admin.filter(|_| !problems.is_fatal()).ok_or(problems)
    }

    /// Reads `admin.listen` alone, for commands that show nobody a token.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load_admin_address(path: &Path) -> Result<SocketAddr, Problems> {
        let layers = Layers::read(path)?;
        let report = Report::new(&layers);
        let listen =
            Section::root(layers.root(), &report).section("admin").and_then(|mut it| it.want("listen", address));
        listen.ok_or_else(|| report.into_problems())
    }

    fn understand(mut root: Section<'_>, report: &Report<'_>) -> Option<Self> {
        let profiles = profiles(&mut root, report);
        let server = root.section("server").map(Server::understand);
        let admin = root.section("admin").map(Admin::understand);
        let store = root.section("store").map(Store::understand);
        let log = root.section("log").map(Log::understand);
        // Sources are looked at even when something above is wrong, so that every problem comes out in one run.
        let (server, shares) = server.unwrap_or_else(|| (None, Shares::of_bodies(usize::MAX)));
        let store = store.flatten();
        let context = source::SourceContext::new(&profiles, &shares, store.as_ref());
        let understood = root.section("sources").map(|sources| context.sources(&sources));
        report.with(|problems| context.into_used().iter().for_each(|name| profiles.lint(name, problems)));
        root.finish();
        let (sources, jwks) = understood?;
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
    let directory = root.want("profiles", |text| Ok(PathBuf::from(text)));
    if let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) {
        report.with(|problems| profiles.add_directory(&directory, problems));
    }
    profiles
}

impl Server {
    /// The limits of one request stand in this section too, and are needed even when something else in it is wrong.
    fn understand(mut section: Section<'_>) -> (Option<Self>, Shares) {
        let max_body = section.want("max_body", size);
        let body_timeout = section.want("body_timeout", duration);
        let max_buffered = section.want("max_buffered", size);
        if let (Some(max_body), Some(max_buffered)) = (max_body, max_buffered)
            && max_buffered < max_body
        {
            section
                .error("max_buffered", "is less than server.max_body, so that the largest bodies could never be read");
        }
        let max_per_address = section.want("max_buffered_per_address", size);
        let max_in_flight = section.want("max_in_flight", count(1, 1_000_000));
        let percent = section.want("max_share", percent);
        let max_decompressions = section.want("max_decompressions", count(1, 1_000_000));
        let (max_buffered, max_in_flight) = (max_buffered.unwrap_or(1), max_in_flight.unwrap_or(1));
        let limits = Limits {
            max_body: max_body.unwrap_or(usize::MAX),
            body_timeout: body_timeout.unwrap_or(Duration::from_secs(1)),
            budget: Arc::new(Budget::with_address_limit(max_buffered, max_per_address.unwrap_or(1))),
            max_decompressions: max_decompressions.unwrap_or(1),
        };
        let in_flight = Arc::new(Quota::new(max_in_flight));
        let shares = Shares { limits, max_buffered, in_flight, max_in_flight, percent: percent.unwrap_or(100) };
        let server = Self::rest(&mut section);
        section.finish();
        (server, shares)
    }

    fn rest(section: &mut Section<'_>) -> Option<Self> {
        let listen = section.want("listen", address);
        let workers = section.want("workers", count(0, 1024));
        let trusted_proxies = section.list("trusted_proxies", Networks::parse);
        let max_connections = section.want("max_connections", count(1, 1_000_000));
        let max_per_address = section.want("max_connections_per_address", count(1, 1_000_000));
        let header_timeout = section.want("header_timeout", duration);
        let idle_timeout = section.want("idle_timeout", duration);
        let drain_timeout = section.want("drain_timeout", duration);
        Some(Self {
            listen: listen?,
            workers: match workers? {
                // What the container's limit leaves, not what the machine has.
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
    fn understand(mut section: Section<'_>) -> Option<Self> {
        let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        let format = section.want("format", word(&formats));
        let levels = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
        ];
        let level = section.want("level", word(&levels));
        let mut number = |key| section.want(key, count(1, 1_000_000)).and_then(|count| u32::try_from(count).ok());
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

/// What `store.ttl` is when nobody sets it.
///
/// # Errors
/// Only when the embedded defaults have none, which is a bug.
pub fn usual_ttl() -> Result<Duration, String> {
    duration(&layers::usual("store", "ttl")?)
}

/// What all sources share, and how much of it one of them may have.
#[derive(Debug)]
struct Shares {
    limits: Limits,
    max_buffered: usize,
    in_flight: Arc<Quota>,
    max_in_flight: usize,
    percent: usize,
}

impl Shares {
    /// For looking at sources when only the size of bodies can be told.
    fn of_bodies(max_body: usize) -> Self {
        let limits = Limits { max_body, ..Limits::none() };
        Self { limits, max_buffered: usize::MAX, in_flight: Arc::new(Quota::new(0)), max_in_flight: 0, percent: 100 }
    }

    /// What one of so many sources may have, whose bodies have at most so many bytes: a source that is alone has all.
    fn of(&self, sources: usize, max_body: usize) -> (Limits, InFlight) {
        let percent = if sources > 1 { self.percent } else { 100 };
        let share = |all: usize| all.saturating_mul(percent).div_ceil(100).min(all);
        // The largest body can always be read, as it was sent and before its compression.
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
