//! Reads the rate limits of a source: `rate` and `burst`, and `rate_per_address` and `burst_per_address`.

use std::time::Duration;

use super::section::Section;
use super::section::count;
use super::source::SourceContext;
use crate::http::admission::Rate;
use crate::http::admission::Rates;
use crate::profile::Profile;
use crate::profile::Retried;

/// The most requests of a rate and of a burst.
const MOST: u32 = 1_000_000;

impl SourceContext<'_> {
    /// The rate limits of a source; none by default.
    pub(super) fn rates(&self, section: &mut Section<'_>, profile: Option<&Profile>) -> Rates {
        let all = limit(section, "rate", "burst", profile);
        let address = limit(section, "rate_per_address", "burst_per_address", profile);
        Rates::new(all, address, self.shared_limits.max_rate_addresses)
    }
}

fn limit(
    section: &mut Section<'_>,
    key: &'static str,
    burst_key: &'static str,
    profile: Option<&Profile>,
) -> Option<Rate> {
    let rate = section.optional(key, rate);
    let burst = section.optional(burst_key, count(1, MOST.try_into().unwrap_or(usize::MAX)));
    if burst.is_some() && !section.has(key) {
        section.error(burst_key, format!("is not used without {key}; write {key} = \"100/s\" beside it, or remove it"));
    }
    let (requests, period) = rate?;
    if profile.and_then(|profile| profile.facts.retried.as_ref()).is_some_and(Retried::is_nothing) {
        section.warning(key, "limits a provider that does not try again: what it sends beyond the rate is lost");
    }
    let second = u64::from(requests).div_ceil(period.as_secs().max(1));
    let burst = burst.and_then(|burst| burst.try_into().ok()).or_else(|| second.try_into().ok());
    Some(Rate::new(requests, period, burst.unwrap_or(MOST)))
}

/// A number of requests in a second, a minute or an hour.
fn rate(text: &str) -> Result<(u32, Duration), String> {
    let parsed = text.split_once('/').and_then(|(number, unit)| {
        let period = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return None,
        };
        Some((number.parse().ok().filter(|number| (1..=MOST).contains(number))?, period))
    });
    parsed.ok_or_else(|| {
        format!("{text:?} is not a rate such as \"100/s\", \"60/m\" or \"1000/h\", with a number from 1 to {MOST}")
    })
}
