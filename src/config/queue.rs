//! Reads `[sources.NAME.deliver.queue]`: how queued events are attempted, retried and kept.

use std::time::Duration;

use http::StatusCode;

use super::section::Section;
use super::section::count;
use super::section::duration;
use super::store::MAX_PAUSE;
use crate::base::json::Pointer;
use crate::dispatch::Policy;
use crate::profile::Carrier;
use crate::profile::Location;
use crate::profile::header_name;
use crate::source::DeliveryTerms;
use crate::target::Address;
use crate::target::Forward;

// Defaults of the keys.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONCURRENCY: usize = 16;
const MAX_ATTEMPTS: usize = 30;
const MAX_AGE: Duration = Duration::from_secs(72 * 60 * 60);
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);
const PERMANENT: [StatusCode; 7] = [
    StatusCode::BAD_REQUEST,
    StatusCode::GONE,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::URI_TOO_LONG,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// The part of a lease that is reserved for recording the outcome of an attempt.
const MARGIN: Duration = Duration::from_secs(5);

/// Reads the table except `forward_query`. Also returns the location of the ordering key. `lease` is the lease of the
/// store where other gateways could take over.
pub(super) fn queue(
    mut section: Section<'_>,
    forward: Forward,
    lease: Option<Duration>,
) -> Option<(DeliveryTerms, Option<Location>)> {
    let address = section.required("url", Address::parse).map(|address| address.forwarding(forward));
    let timeout = section.optional("timeout", duration).unwrap_or(TIMEOUT);
    if let Some(lease) = lease.filter(|lease| timeout + MARGIN > *lease) {
        section.error(
            "timeout",
            format!(
                "is not {MARGIN:?} shorter than store.lease ({lease:?}): others would take over during the attempt"
            ),
        );
    }
    let concurrency = section.optional("concurrency", count(1, 4096)).unwrap_or(CONCURRENCY);
    let max_attempts = section.optional("max_attempts", count(1, 10_000)).unwrap_or(MAX_ATTEMPTS);
    let max_age = section.optional("max_age", duration).unwrap_or(MAX_AGE);
    let backoff = section.optional("backoff", duration).unwrap_or(BACKOFF);
    let max_backoff = section.optional("max_backoff", duration).unwrap_or_else(|| MAX_BACKOFF.max(backoff));
    if max_backoff < backoff {
        section.error("max_backoff", format!("is shorter than backoff ({backoff:?})"));
    }
    if max_backoff > MAX_PAUSE {
        let key = if section.has("max_backoff") { "max_backoff" } else { "backoff" };
        section.error(key, "is longer than 24h; limit by max_age how long an event is tried");
    }
    let configured = section.has("permanent").then(|| section.list("permanent", status));
    let keep = section.optional("keep", duration).unwrap_or(KEEP);
    let order_by = section.subsection("order_by").map(order_by);
    section.finish();
    let policy = Policy {
        max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
        max_age,
        backoff,
        max_backoff,
        permanent: configured.unwrap_or_else(|| PERMANENT.to_vec()),
    };
    Some((DeliveryTerms { address: address?, timeout, concurrency, policy, keep }, order_by.flatten()))
}

fn order_by(mut section: Section<'_>) -> Option<Location> {
    let json = section.optional("json", |text| Pointer::parse(text).map(Carrier::Json));
    let header = section.optional("header", |name| header_name(name).map(|name| Carrier::Header(vec![name])));
    if section.has("json") == section.has("header") {
        section.error("", "takes one of json and header, such as { json = \"/order/id\" } or { header = \"X-Order\" }");
    }
    section.finish();
    Some(Location { carrier: json.or(header)?, item: None })
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    status
        .filter(|status| status.is_client_error() || status.is_server_error())
        .ok_or_else(|| format!("{text:?} is not a status from 400 to 599"))
}
