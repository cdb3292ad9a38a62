//! The limits that all sources share, and the part of them that one source may use.

use std::sync::Arc;

use super::fingerprint::Fingerprinting;
use crate::http::admission::InFlight;
use crate::http::admission::Quota;
use crate::http::body::Limits;

/// The limits that all sources share. A clone has the same budgets.
#[derive(Debug, Clone)]
pub(super) struct SharedLimits {
    pub(super) limits: Limits,
    pub(super) max_buffered: usize,
    pub(super) in_flight: Arc<Quota>,
    pub(super) max_in_flight: usize,
    /// `max_share`: the part of one source, where there are several.
    pub(super) percent: usize,
    /// The most addresses whose rates one source remembers.
    pub(super) max_rate_addresses: usize,
}

impl SharedLimits {
    /// Limits for reading sources where only the size of bodies is known.
    pub(super) fn with_max_body(max_body: usize) -> Self {
        let limits = Limits { max_body, ..Limits::none() };
        let in_flight = Arc::new(Quota::new(0));
        Self { limits, max_buffered: usize::MAX, in_flight, max_in_flight: 0, percent: 100, max_rate_addresses: 0 }
    }

    /// The same limits over the budgets of a gateway that runs, whose sizes stay.
    #[must_use]
    pub(super) fn over(self, running: &Self) -> Self {
        let budget = Arc::clone(&running.limits.budget);
        let max_body = self.limits.max_body.min(running.max_buffered);
        let (percent, max_rate_addresses) = (self.percent, self.max_rate_addresses);
        let limits = Limits { max_body, budget, ..self.limits };
        Self { limits, percent, max_rate_addresses, ..running.clone() }
    }

    /// The limits of one source out of `sources`. The only source may use everything.
    pub(super) fn for_source(&self, sources: usize, max_body: usize) -> (Limits, InFlight) {
        let percent = if sources > 1 { self.percent } else { 100 };
        let share = |all: usize| all.saturating_mul(percent).div_ceil(100).min(all);
        // Enough for the largest body, compressed and decompressed.
        let bytes = share(self.max_buffered).max(max_body.saturating_mul(2)).min(self.max_buffered);
        let limits = Limits { max_body, budget: Arc::new(self.limits.budget.share(bytes)), ..self.limits.clone() };
        (limits, InFlight::new(Arc::clone(&self.in_flight), share(self.max_in_flight)))
    }

    /// Takes what the limits of one source out of `sources` follow from.
    pub(super) fn fingerprint(&self, so_far: Fingerprinting, sources: usize) -> Fingerprinting {
        let so_far = so_far.number(self.limits.max_body).number(self.limits.max_decompressions);
        let so_far = so_far.bytes(&self.limits.body_timeout.as_nanos().to_le_bytes());
        let so_far = so_far.number(self.max_rate_addresses);
        so_far.number(if sources > 1 { self.percent } else { 100 })
    }
}
