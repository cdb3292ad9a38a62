//! Fetches documents that verification needs (key sets, certificates), from addresses that the operator or the profile
//! allows and from no other: by `https` (`http` on this machine only), within 5 s, at most 256 KiB, without following
//! redirects.

use std::io::Read as _;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header;

/// Longest one fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes, packed and unpacked.
const MAX_BYTES: usize = 256 * 1024;

/// Reading the certificates that this machine trusts takes long, and is done once. Connections are not kept: they would
/// belong to the thread that made them.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(0);
    client.build().map_err(|error| error.to_string())
});

/// An address that may be asked: `https`, or `http` on this very machine.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(reqwest::Url);

/// An answer with status 200.
#[derive(Debug)]
pub struct Document {
    /// The body, at most 256 KiB.
    pub bytes: Vec<u8>,
    /// How long the server says that it is fresh (RFC 9111 section 5.2.2.1).
    pub max_age: Option<Duration>,
}

/// Why there is no document.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unfetched {
    /// The server was not reached, or is in trouble.
    #[error("{0}")]
    Unavailable(String),
    /// The server says that there is no such thing.
    #[error("the answer was {0}")]
    Refused(u16),
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Credentials are not repeated.
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

    /// Whether nothing follows its path.
    pub fn is_bare(&self) -> bool {
        self.0.query().is_none() && self.0.fragment().is_none()
    }

    /// Asks for the document, following no redirect.
    ///
    /// # Errors
    /// [`Unfetched`] says whether asking again may help.
    pub async fn fetch(&self) -> Result<Document, Unfetched> {
        let failed = |error: reqwest::Error| Unfetched::Unavailable(error.without_url().to_string());
        let client = CLIENT.as_ref().map_err(|error| Unfetched::Unavailable(error.clone()))?;
        let request = client.get(self.0.clone()).header(header::ACCEPT_ENCODING, "identity");
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            let gone = status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS;
            return Err(if gone {
                Unfetched::Refused(status.as_u16())
            } else {
                Unfetched::Unavailable(format!("the answer was {status}"))
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
                return Err(Unfetched::too_long());
            }
        }
        let bytes = match coding.as_str() {
            "identity" | "" => bytes,
            // Files that are stored packed are served packed, whatever is asked for.
            "gzip" | "x-gzip" => unpacked(&bytes)?,
            other => {
                let message = format!("the answer comes in the content coding {other:?}, which was not asked for");
                return Err(Unfetched::Unavailable(message));
            }
        };
        Ok(Document { bytes, max_age })
    }
}

/// Without its query, which may have a secret in it.
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

impl Unfetched {
    fn too_long() -> Self {
        Self::Unavailable(format!("the answer is longer than {MAX_BYTES} bytes"))
    }
}

fn unpacked(gzip: &[u8]) -> Result<Vec<u8>, Unfetched> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::MultiGzDecoder::new(gzip)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Unfetched::Unavailable(format!("the answer cannot be unpacked: {error}")))?;
    if bytes.len() > MAX_BYTES { Err(Unfetched::too_long()) } else { Ok(bytes) }
}

/// Stands for a label of a host that is the name of a region of AWS.
const REGION: &str = "<region>";

/// Hosts that may be asked, each by its name, in which a label may be `<region>`.
///
/// There is no pattern for other labels: what stands before the name of a cloud service is often a name that anybody
/// can have. `sns.s3.us-west-2.amazonaws.com` is a bucket of S3.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Reads names separated by spaces.
    ///
    /// # Errors
    /// What would be right, when there is none or one is not the name of a host.
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

    /// The address, if it may be asked: on one of the hosts and at the usual port, unless another is said with it.
    pub fn admit(&self, text: &str) -> Option<Address> {
        let address = Address::parse(text).ok()?;
        let host = address.0.host_str()?;
        let allowed = self.0.iter().any(|name| {
            let (name, port) = host_of(name);
            address.0.port().map(|port| port.to_string()).as_deref() == port && is_named(name, host)
        });
        allowed.then_some(address)
    }
}

/// Whether a name may stand among the hosts.
fn is_host(text: &str) -> bool {
    let (name, port) = host_of(text);
    let bare = name.replace(REGION, "region");
    let url = format!("https://{bare}/");
    // A name that the parser of addresses would write otherwise is never the host of one.
    let written = reqwest::Url::parse(&url).is_ok_and(|url| url.host_str() == Some(bare.as_str()));
    let label = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    // Parsers of addresses take other characters too, such as the comma of a list that is none.
    let labelled = name.starts_with('[') || name.split('.').all(|text| text == REGION || label(text));
    written && labelled && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_named(name: &str, host: &str) -> bool {
    let (mut name, mut host) = (name.split('.'), host.split('.'));
    loop {
        match (name.next(), host.next()) {
            (None, None) => return true,
            (Some(name), Some(label)) if name == label || (name == REGION && is_region(label)) => {}
            _ => return false,
        }
    }
}

/// Whether a label is written as regions of AWS are: `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`. No service is:
/// those of S3 (`s3-us-west-2`) have a digit in front.
fn is_region(label: &str) -> bool {
    let mut parts = label.split('-');
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let first = parts.next().is_some_and(|part| (2..=4).contains(&part.len()) && letters(part));
    let digits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let last = parts.next_back().is_some_and(digits);
    let mut between = parts.peekable();
    first && last && between.peek().is_some() && between.all(letters)
}

/// Whether a text fits a pattern in which `*` stands for one or more letters, digits, `-` and `_`: for one step of a
/// path, or one label of a name.
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let inner = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count();
    (1..=inner).any(|length| rest.get(length..).is_some_and(|rest| fits(after, rest)))
}

/// Host and port of a name.
fn host_of(name: &str) -> (&str, Option<&str>) {
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
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_within_the_limit() {
        let packed = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).expect("memory");
            out.finish().expect("memory")
        };
        assert_eq!(unpacked(&packed(b"{}")).expect("the document"), b"{}");
        assert_eq!(unpacked(&packed(&vec![0; MAX_BYTES])).expect("the document").len(), MAX_BYTES);
        assert!(unpacked(&packed(&vec![0; MAX_BYTES + 1])).is_err(), "too long");
        assert!(unpacked(&packed(b"{}")[..12]).is_err(), "cut");
        assert!(unpacked(b"{}").is_err(), "not packed");
    }
}
