//! Reads the timestamp of a request and compares it with the tolerance.

use std::time::Duration;

use http::HeaderName;

use super::Failure;
use crate::base::time::Format;
use crate::base::time::Moment;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::TimestampPolicy;

/// The location and format of the timestamp, and how far from now it may be.
#[derive(Debug)]
pub struct Freshness {
    from: Field,
    format: Format,
    /// The limits of the tolerance in whole seconds, where there are any.
    past: Option<i64>,
    future: Option<i64>,
    /// How long dedupe records are kept, in whole seconds, where the time is signed: an older request is refused,
    /// because a replay of it could not be recognised.
    remembered: Option<i64>,
    /// Whether it must be present and valid: the tolerance is enforced, or the time is signed.
    required: bool,
}

/// A request's timestamp: its text, which may be signed, and its moment.
#[derive(Debug)]
pub struct Stamp<'r> {
    /// As received.
    pub text: Option<&'r str>,
    moment: Option<Moment>,
}

impl Freshness {
    /// Compiles `[timestamp]`. `signed` is how long dedupe records are kept, if the time is signed.
    pub fn new(spec: &profile::Timestamp, signed: Option<Duration>, plan: &mut ExtractionPlan) -> Self {
        let tolerance = spec.tolerance.filter(|_| spec.policy == TimestampPolicy::Enforce);
        Self {
            from: Field::new(&spec.from, plan),
            format: spec.format,
            // At least 1 s, so that a request which arrives at once is not too old.
            remembered: signed.map(|remembered| whole_seconds(remembered).max(1)),
            required: signed.is_some() || tolerance.is_some(),
            past: tolerance.and_then(|tolerance| tolerance.past).map(whole_seconds),
            future: tolerance.and_then(|tolerance| tolerance.future).map(whole_seconds),
        }
    }

    /// Reads the timestamp.
    ///
    /// # Errors
    /// Only where the profile enforces or signs it: [`Failure::TimestampMissing`] or [`Failure::TimestampMalformed`].
    pub fn read<'r>(&'r self, inbound: &'r Inbound, values: &'r Extracted) -> Result<Stamp<'r>, Failure> {
        let text = self.from.text(inbound, values);
        if !self.required {
            let text = text.unwrap_or_default();
            return Ok(Stamp { text, moment: text.and_then(|text| self.format.parse(text)) });
        }
        let text = text.map_err(|_not_text| Failure::TimestampMalformed)?.ok_or(Failure::TimestampMissing)?;
        let moment = self.format.parse(text).ok_or(Failure::TimestampMalformed)?;
        Ok(Stamp { text: Some(text), moment: Some(moment) })
    }

    /// Compares the timestamp with now. Returns the seconds from it to now.
    ///
    /// # Errors
    /// [`Failure::TimestampStale`] or [`Failure::TimestampFuture`] beyond the tolerance, where it is enforced, and for
    /// a signed time that is as far from now as dedupe records are kept.
    pub fn check(&self, stamp: &Stamp<'_>, now: Moment) -> Result<Option<i64>, Failure> {
        let Some(moment) = stamp.moment else { return Ok(None) };
        let age = now.seconds_since(moment);
        // `>=`, because a record may expire within its last second.
        if self.past.is_some_and(|limit| age > limit) || self.remembered.is_some_and(|limit| age >= limit) {
            return Err(Failure::TimestampStale);
        }
        if self.future.is_some_and(|limit| age < -limit) || self.remembered.is_some_and(|limit| age <= -limit) {
            return Err(Failure::TimestampFuture);
        }
        Ok(Some(age))
    }

    /// How far in the future a signed time of this age is: the dedupe records of the event must be kept for longer by
    /// as much. Zero when it is not; `None` where the time is not signed.
    pub fn ahead(&self, age: Option<i64>) -> Option<Duration> {
        let ahead = age.filter(|_| self.remembered.is_some())?.saturating_neg();
        Some(Duration::from_secs(u64::try_from(ahead).unwrap_or(0)))
    }

    /// The field of the timestamp.
    pub fn field(&self) -> &Field {
        &self.from
    }

    /// The headers that it reads.
    pub fn headers(&self) -> Vec<HeaderName> {
        self.from.headers()
    }

    /// Whether the timestamp is in the JSON body.
    pub fn reads_json(&self) -> bool {
        self.from.is_json()
    }
}

fn whole_seconds(limit: Duration) -> i64 {
    i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)
}
