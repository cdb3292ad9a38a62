//! Judges the time that a request carries.

use std::time::Duration;

use http::HeaderName;

use super::Failure;
use crate::body::Inbound;
use crate::field::Field;
use crate::json::Fields;
use crate::json::Pointers;
use crate::profile;
use crate::profile::TimestampPolicy;
use crate::time::Format;
use crate::time::Moment;

/// Where a request's time is and how far from now it may be.
#[derive(Debug)]
pub struct Freshness {
    from: Field,
    format: Format,
    /// Whole seconds either way; `None` when the time is only recorded.
    tolerance: Option<i64>,
    /// Whether it has to be there and readable: it decides something, or it is signed.
    required: bool,
}

/// A request's time: its text, which may be signed, and what the text means.
#[derive(Debug)]
pub struct Stamp<'r> {
    /// As received.
    pub text: Option<&'r str>,
    moment: Option<Moment>,
}

impl Freshness {
    /// Takes the profile at its word; `signed` when the time is part of what is signed.
    pub fn new(said: &profile::Timestamp, signed: bool, pointers: &mut Pointers) -> Self {
        let tolerance = match said.policy {
            TimestampPolicy::Enforce => said.tolerance.as_ref().map(Duration::as_secs),
            TimestampPolicy::Record => None,
        };
        Self {
            from: Field::new(&said.from, pointers),
            format: said.format,
            required: signed || tolerance.is_some(),
            tolerance: tolerance.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
        }
    }

    /// Finds and reads the time.
    ///
    /// # Errors
    /// Only where the profile enforces or signs it: [`Failure::TimestampMissing`] or [`Failure::TimestampMalformed`].
    pub fn read<'r>(&'r self, inbound: &'r Inbound, fields: &'r Fields) -> Result<Stamp<'r>, Failure> {
        let text = self.from.text(inbound.headers(), fields);
        if !self.required {
            let text = text.unwrap_or_default();
            return Ok(Stamp { text, moment: text.and_then(|text| self.format.parse(text)) });
        }
        let text = text.map_err(|_not_text| Failure::TimestampMalformed)?.ok_or(Failure::TimestampMissing)?;
        let moment = self.format.parse(text).ok_or(Failure::TimestampMalformed)?;
        Ok(Stamp { text: Some(text), moment: Some(moment) })
    }

    /// Compares the time with now; the seconds from it to now.
    ///
    /// # Errors
    /// [`Failure::TimestampStale`] or [`Failure::TimestampFuture`] beyond the tolerance, where it is enforced.
    pub fn judge(&self, stamp: &Stamp<'_>, now: Moment) -> Result<Option<i64>, Failure> {
        let Some(moment) = stamp.moment else { return Ok(None) };
        let age = now.seconds_since(moment);
        match self.tolerance {
            Some(tolerance) if age > tolerance => Err(Failure::TimestampStale),
            Some(tolerance) if age < -tolerance => Err(Failure::TimestampFuture),
            _ => Ok(Some(age)),
        }
    }

    /// The header that it reads.
    pub fn header(&self) -> Option<&HeaderName> {
        self.from.header()
    }

    /// Whether the time stands in the body.
    pub fn reads_body(&self) -> bool {
        self.from.is_json()
    }
}
