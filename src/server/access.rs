//! Access control of the admin port: the bearer token, the local machine, and requests from web pages.

use std::net::SocketAddr;
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::base::secret::Secret;
use crate::config::Log;
use crate::telemetry::Sampler;

/// What browsers say of where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Logs whom the admin port refuses, so many lines and no more.
#[derive(Debug)]
pub(super) struct Refusals {
    sampler: Sampler,
    begun: Instant,
}

impl Refusals {
    pub(super) fn new(log: &Log) -> Self {
        Self { sampler: Sampler::new(log.unverified_burst, log.unverified_rate), begun: Instant::now() }
    }

    /// Logs a request that was refused, and who sent it.
    pub(super) fn note(&self, peer: SocketAddr, what: &str) {
        if let Some(left_out) = self.sampler.admit(self.begun.elapsed()) {
            let left_out = Some(left_out).filter(|left_out| *left_out > 0);
            tracing::warn!(%peer, left_out, "{what}");
        }
    }
}

/// Whether a page on the web may have sent it. Operators open an address themselves, if at all; probes and commands say
/// nothing of the kind.
pub(super) fn is_from_a_page(headers: &HeaderMap) -> bool {
    let elsewhere = |site: &HeaderValue| site != "none" && site != "same-origin";
    headers.contains_key(header::ORIGIN) || headers.get_all(SEC_FETCH_SITE).iter().any(elsewhere)
}

/// The token that is shown, if any is.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = shown.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Whether what is shown is the token.
pub(super) fn is_token(shown: &[u8], token: &Secret) -> bool {
    verify_slices_are_equal(shown, token.expose()).is_ok()
}

/// Whether it comes from this machine: by its real address, whatever headers say.
pub(super) fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
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
            assert_eq!(is_from_a_page(&map), expected, "{headers:?}");
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
