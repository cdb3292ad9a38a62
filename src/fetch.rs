//! Fetches documents that authentication needs from addresses that the operator or the profile allows, and from no other.

use std::net::IpAddr;
use std::time::Duration;

/// Longest one fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;

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
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(failed)?;
        let mut response = client.get(self.0.clone()).send().await.map_err(failed)?;
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            let gone = status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS;
            return Err(if gone {
                Unfetched::Refused(status.as_u16())
            } else {
                Unfetched::Unavailable(format!("the answer was {status}"))
            });
        }
        let max_age =
            response.headers().get(reqwest::header::CACHE_CONTROL).and_then(|value| max_age(value.to_str().ok()?));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(Unfetched::Unavailable(format!("the answer is longer than {MAX_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
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

/// Hosts that may be asked, as patterns in which `*` stands for one label, or for a part of one.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Reads patterns separated by spaces.
    ///
    /// # Errors
    /// What would be right, when there is none or one would allow every host of a top-level domain.
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns: Vec<_> = text.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
        let open = |pattern: &&String| {
            !is_loopback(host_of(pattern).0) && pattern.rsplit('.').take(2).any(|label| label.contains('*'))
        };
        match patterns.iter().find(open) {
            Some(pattern) => {
                Err(format!("{pattern:?} allows every host of a domain; write it as \"sns.*.example.com\""))
            }
            None if patterns.is_empty() => Err("names no host".to_owned()),
            None => Ok(Self(patterns)),
        }
    }

    /// The address, if it may be asked: on one of the hosts and at the usual port, unless the pattern says another.
    pub fn admit(&self, text: &str) -> Option<Address> {
        let address = Address::parse(text).ok()?;
        let host = address.0.host_str()?;
        let allowed = self.0.iter().any(|pattern| {
            let (name, port) = host_of(pattern);
            address.0.port().map(|port| port.to_string()).as_deref() == port && matches_labels(name, host)
        });
        allowed.then_some(address)
    }
}

/// Whether a name fits a pattern in which `*` stands for at least one character within a label.
fn matches_labels(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.split('.'), name.split('.'));
    loop {
        match (pattern.next(), name.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) => {
                let fits = match pattern.split_once('*') {
                    None => pattern.eq_ignore_ascii_case(label),
                    Some((before, after)) => {
                        let inner = label.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                        inner.is_some_and(|inner| !inner.is_empty())
                    }
                };
                if !fits {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// Host and port of a pattern.
fn host_of(pattern: &str) -> (&str, Option<&str>) {
    pattern.rsplit_once(':').map_or((pattern, None), |(host, port)| (host, Some(port)))
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
        let hosts = Hosts::parse("sns.*.amazonaws.com sns.*.amazonaws.com.cn").expect("patterns");
        assert!(hosts.admit("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem").is_some());
        assert!(hosts.admit("https://sns.cn-north-1.amazonaws.com.cn/x.pem").is_some());
        for bad in [
            "http://sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com:444/x.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
            "https://sns.amazonaws.com/x.pem",
            "https://sns.a.b.amazonaws.com/x.pem",
            "https://sns..amazonaws.com/x.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
            "https://evil.example#sns.us-east-1.amazonaws.com",
            "https://user@sns.us-east-1.amazonaws.com/x.pem",
            "",
        ] {
            assert!(hosts.admit(bad).is_none(), "{bad}");
        }
        assert!(Hosts::parse("127.0.0.1:81").expect("a host").admit("http://127.0.0.1:81/x").is_some());
        assert!(Hosts::parse("*.com").is_err() && Hosts::parse("").is_err());
    }
}
