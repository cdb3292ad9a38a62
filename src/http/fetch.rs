//! Fetches documents for verification (key sets, certificates), only from addresses that the operator or the profile
//! allows: with `https`, or `http` on the loopback interface; within 5 s; at most 256 KiB; without following redirects.

use std::io::Read as _;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header;

/// The longest that a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of an answer, compressed and decompressed.
const MAX_BYTES: usize = 256 * 1024;

/// One client for the process, because loading the system's trusted certificates is slow. Connections are not pooled:
/// each belongs to the runtime of the thread that opened it.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(0);
    client.build().map_err(|error| error.to_string())
});

/// An address that may be fetched: `https`, or `http` on the loopback interface.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(reqwest::Url);

/// An answer with status 200.
#[derive(Debug)]
pub struct Document {
    /// The body, at most 256 KiB.
    pub bytes: Vec<u8>,
    /// How long the document is fresh, by `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1).
    pub max_age: Option<Duration>,
}

/// Why a fetch failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The server could not be reached, or its answer is not usable; a retry may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// The server answered with a status that is final: 4xx except 429.
    #[error("the answer was {0}")]
    Refused(u16),
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A message must not repeat credentials.
        let shown = || if text.contains('@') { "this".to_owned() } else { format!("{text:?}") };
        let url = reqwest::Url::parse(text).map_err(|error| format!("{} is not a URL: {error}", shown()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has credentials, which are not sent; remove them".to_owned());
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(url.host_str().unwrap_or_default()) => Ok(Self(url)),
            "http" => Err(format!("{} would be fetched in the clear, where others can change it; use https", shown())),
            _ => Err(format!("{} is not an https address", shown())),
        }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Whether it has neither a query nor a fragment.
    pub fn is_bare(&self) -> bool {
        self.0.query().is_none() && self.0.fragment().is_none()
    }

    /// Fetches the document, without following redirects.
    ///
    /// # Errors
    /// [`FetchError`] tells whether a retry may help.
    pub async fn fetch(&self) -> Result<Document, FetchError> {
        let failed = |error: reqwest::Error| FetchError::Unavailable(error.without_url().to_string());
        let client = CLIENT.as_ref().map_err(|error| FetchError::Unavailable(error.clone()))?;
        let request = client.get(self.0.clone()).header(header::ACCEPT_ENCODING, "identity");
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            let gone = status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS;
            return Err(if gone {
                FetchError::Refused(status.as_u16())
            } else {
                FetchError::Unavailable(format!("the answer was {status}"))
            });
        }
        let header_text =
            |name| response.headers().get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        let max_age = header_text(header::CACHE_CONTROL).and_then(max_age);
        let coding = header_text(header::CONTENT_ENCODING).unwrap_or("identity").trim().to_ascii_lowercase();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                return Err(FetchError::too_long());
            }
        }
        let bytes = match coding.as_str() {
            "identity" | "" => bytes,
            // Some servers send files that they store compressed, whatever `Accept-Encoding` says.
            "gzip" | "x-gzip" => gunzip(&bytes)?,
            other => {
                let message = format!("the answer comes in the content coding {other:?}, which was not asked for");
                return Err(FetchError::Unavailable(message));
            }
        };
        Ok(Document { bytes, max_age })
    }
}

/// Displays the address without its query, which may have a secret in it.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        shown.fmt(f)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({self})")
    }
}

impl FetchError {
    fn too_long() -> Self {
        Self::Unavailable(format!("the answer is longer than {MAX_BYTES} bytes"))
    }
}

fn gunzip(gzip: &[u8]) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::MultiGzDecoder::new(gzip)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| FetchError::Unavailable(format!("the answer cannot be unpacked: {error}")))?;
    if bytes.len() > MAX_BYTES { Err(FetchError::too_long()) } else { Ok(bytes) }
}

/// Matches a label of a host that is the name of a region of AWS.
const REGION: &str = "<region>";

/// The hosts that documents may be fetched from: names, in which a label may be `<region>`, each with an optional port.
///
/// There is no pattern for other labels, because anybody can register names under the domains of cloud services:
/// `sns.s3.us-west-2.amazonaws.com` is a bucket of S3.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Parses names separated by spaces.
    ///
    /// # Errors
    /// There is no name, or one is not valid; the message says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<_> = text.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
        match names.iter().find(|name| !is_host(name)) {
            Some(name) if name.contains('*') => Err(format!(
                "{name:?} allows hosts that anybody can have, such as buckets of S3; write each host with its whole name, \
                 where a region of AWS may be <region>: sns.<region>.amazonaws.com"
            )),
            Some(name) => Err(format!(
                "{name:?} is not the name of a host; write it as api.example.com, or api.example.com:8443, and spaces \
                     between several"
            )),
            None if names.is_empty() => Err("names no host".to_owned()),
            None => Ok(Self(names)),
        }
    }

    /// The address, if it is valid and on one of the hosts, at the host's port or else at the default port.
    pub fn admit(&self, text: &str) -> Option<Address> {
        let address = Address::parse(text).ok()?;
        let host = address.0.host_str()?;
        let allowed = self.0.iter().any(|name| {
            let (name, port) = split_port(name);
            address.0.port().map(|port| port.to_string()).as_deref() == port && matches_host(name, host)
        });
        allowed.then_some(address)
    }
}

/// Whether a text is a valid entry of [`Hosts`].
fn is_host(text: &str) -> bool {
    let (name, port) = split_port(text);
    let bare = name.replace(REGION, "region");
    let url = format!("https://{bare}/");
    // A name that the parser of URLs would normalise never equals the host of an address.
    let is_normalised = reqwest::Url::parse(&url).is_ok_and(|url| url.host_str() == Some(bare.as_str()));
    let label = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    // The parser of URLs also accepts other characters, such as a comma between two names.
    let labelled = name.starts_with('[') || name.split('.').all(|text| text == REGION || label(text));
    is_normalised && labelled && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Whether a name, in which a label may be `<region>`, matches a host.
fn matches_host(name: &str, host: &str) -> bool {
    let (mut name, mut host) = (name.split('.'), host.split('.'));
    loop {
        match (name.next(), host.next()) {
            (None, None) => return true,
            (Some(name), Some(label)) if name == label || (name == REGION && is_region(label)) => {}
            _ => return false,
        }
    }
}

/// Whether a label has the form of a region of AWS: `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`. Names of services
/// do not: those of S3 (`s3-us-west-2`) have a digit in their first part.
fn is_region(label: &str) -> bool {
    let mut parts = label.split('-');
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let first = parts.next().is_some_and(|part| (2..=4).contains(&part.len()) && letters(part));
    let digits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let last = parts.next_back().is_some_and(digits);
    let mut between = parts.peekable();
    first && last && between.peek().is_some() && between.all(letters)
}

/// Whether a text matches a pattern, in which `*` matches one or more letters, digits, `-` and `_`: within one segment
/// of a path, or one label of a name.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let inner = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count();
    (1..=inner).any(|length| rest.get(length..).is_some_and(|rest| matches_pattern(after, rest)))
}

/// Splits a name into host and port.
fn split_port(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((host, port)) if !name.ends_with(']') => (host, Some(port)),
        _ => (name, None),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn max_age(value: &str) -> Option<Duration> {
    let seconds = value.split(',').find_map(|directive| directive.trim().strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn documents_come_over_https_or_from_this_machine() {
        for good in ["https://issuer.example/jwks.json", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"]
        {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "issuer", "http://issuer.example/jwks.json", "file:///etc/passwd", "http://127.0.0.1.example/"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn max_age_is_read_from_cache_control() {
        assert_eq!(max_age("public, max-age=600, must-revalidate"), Some(Duration::from_mins(10)));
        assert_eq!(max_age("no-store"), None);
        assert_eq!(max_age("max-age=soon"), None);
    }

    #[test]
    fn only_allowed_hosts_are_asked() {
        let hosts = Hosts::parse("sns.<region>.amazonaws.com sns.<region>.amazonaws.com.cn").expect("names");
        for good in [
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://SNS.us-gov-west-1.amazonaws.com/x.pem",
            "https://sns.ap-southeast-10.amazonaws.com/x.pem",
            "https://sns.eusc-de-east-1.amazonaws.com:443/x.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/x.pem",
        ] {
            assert!(hosts.admit(good).is_some(), "{good}");
        }
        for bad in [
            "http://sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com:444/x.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
            "https://sns.us-east-1.amazonaws.com./x.pem",
            "https://sns.amazonaws.com/x.pem",
            "https://sns.a.b.amazonaws.com/x.pem",
            "https://sns..amazonaws.com/x.pem",
            "https://sns.<region>.amazonaws.com/x.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
            "https://evil.example#sns.us-east-1.amazonaws.com",
            "https://user@sns.us-east-1.amazonaws.com/x.pem",
            "",
        ] {
            assert!(hosts.admit(bad).is_none(), "{bad}");
        }
        assert!(Hosts::parse("127.0.0.1:81").expect("a host").admit("http://127.0.0.1:81/x").is_some());
        assert!(Hosts::parse("[::1]:81").expect("a host").admit("http://[::1]:81/x").is_some());
    }

    #[test]
    fn no_bucket_is_a_region() {
        let hosts = Hosts::parse("sns.<region>.amazonaws.com").expect("names");
        for label in [
            "s3",
            "s3-us-west-2",
            "s3.us-west-2",
            "s3-external-1",
            "s3-website-us-east-1",
            "s3-accelerate",
            "s3-fips-us-gov-west-1",
            "s3express-use1-az5.us-east-1",
            "s3-accesspoint.us-east-1",
            "compute-1",
            "us-east-1.elb",
            "elb",
            "us-east",
            "us--1",
            "-us-east-1",
            "us-east-1-",
            "us-east-+1",
            "us-east-999",
            "us-east2-1",
        ] {
            let address = format!("https://sns.{label}.amazonaws.com/x.pem");
            assert!(hosts.admit(&address).is_none(), "{address}");
        }
    }

    #[test]
    fn hosts_are_whole_names() {
        for bad in [
            "",
            "*.com",
            "sns.*.amazonaws.com",
            "*.paypal.com",
            "api*.example.com",
            "https://api.example.com",
            "api.example.com/path",
            "api.example.com:x",
            "x<region>.example.com",
            "<regions>.example.com",
            "user@api.example.com",
        ] {
            assert!(Hosts::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_star_stays_within_its_step() {
        for (pattern, text, expected) in [
            ("/certs/*", "/certs/CERT-1", true),
            ("/certs/*", "/certs/", false),
            ("/certs/*", "/certs/a/b", false),
            ("/certs/*", "/certs/a.pem", false),
            ("/certs/*", "/certs/a%2fb", false),
            ("/S-*.pem", "/S-f3ecfb7224.pem", true),
            ("/S-*.pem", "/bucket/S-f3ecfb7224.pem", false),
            ("/S-*.pem", "/S-f3ecfb7224.pem.txt", false),
            ("sns-signing.*.example.com", "sns-signing.us-east-1.example.com", true),
            ("sns-signing.*.example.com", "sns-signing.a.b.example.com", false),
            ("/*-*.pem", "/a-b-c.pem", true),
            ("/exact", "/exact", true),
            ("/exact", "/exactly", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_within_the_limit() {
        let packed = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).expect("memory");
            out.finish().expect("memory")
        };
        assert_eq!(gunzip(&packed(b"{}")).expect("the document"), b"{}");
        assert_eq!(gunzip(&packed(&vec![0; MAX_BYTES])).expect("the document").len(), MAX_BYTES);
        assert!(gunzip(&packed(&vec![0; MAX_BYTES + 1])).is_err(), "too long");
        assert!(gunzip(&packed(b"{}")[..12]).is_err(), "cut");
        assert!(gunzip(b"{}").is_err(), "not packed");
    }
}
