//! Access control of the admin port: the bearer token, the local machine, and requests from web pages.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use http::uri::Authority;

use crate::base::secret::Secret;
use crate::config::Log;
use crate::telemetry::Sampler;

/// Fetch Metadata, which browsers send: the relation of the requesting page to this server.
/// <https://www.w3.org/TR/fetch-metadata/>
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Logs requests that the admin port refuses, with a rate limit.
#[derive(Debug)]
pub(super) struct RefusalLog {
    sampler: Sampler,
    begun: Instant,
}

impl RefusalLog {
    pub(super) fn new(log: &Log) -> Self {
        Self { sampler: Sampler::new(log.unverified_burst, log.unverified_rate), begun: Instant::now() }
    }

    /// Logs a refused request, with the address of its client.
    pub(super) fn record(&self, peer: SocketAddr, message: &str) {
        if let Some(left_out) = self.sampler.admit(self.begun.elapsed()) {
            let left_out = Some(left_out).filter(|left_out| *left_out > 0);
            tracing::warn!(%peer, left_out, "{message}");
        }
    }
}

/// Whether a web page of another origin may have sent the request. Probes and commands send neither header; for an
/// address that an operator opens in a browser, `Sec-Fetch-Site` is `none`.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let cross_site = |site: &HeaderValue| site != "none" && site != "same-origin";
    headers.contains_key(header::ORIGIN) || headers.get_all(SEC_FETCH_SITE).iter().any(cross_site)
}

/// The bearer token of a request (RFC 6750), if it has one.
pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let authorization = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Compares a bearer token with the configured ones, with each in constant time.
pub(super) fn is_token(presented: &[u8], tokens: &[Secret]) -> bool {
    let matches = tokens.iter().filter(|token| verify_slices_are_equal(presented, token.expose()).is_ok());
    matches.count() > 0
}

/// Whether a request comes from this machine, by the address of its connection.
pub(super) fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Whether `Host` is an address or `localhost`. For a web page whose name is pointed here (DNS rebinding) it is that name.
pub(super) fn names_no_domain(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_page_may_have_sent_is_taken_for_it() {
        for (headers, expected) in [
            (vec![], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "")], true),
            (vec![("origin", "https://pages.example")], true),
            (vec![("origin", "null"), ("sec-fetch-site", "same-origin")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&map), expected, "{headers:?}");
        }
    }

    #[test]
    fn this_machine_is_known_by_every_form_of_its_address() {
        for (peer, expected) in [
            ("127.0.0.1:1", true),
            ("127.8.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("[::ffff:10.0.0.1]:1", false),
            ("10.0.0.1:1", false),
            ("0.0.0.0:1", false),
        ] {
            assert_eq!(is_local(peer.parse().expect("an address")), expected, "{peer}");
        }
    }
}
