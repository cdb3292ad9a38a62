//! The clock and the ways providers write a time. The only module that reads the system clock.

use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;

/// The last millisecond of the year 9999, after which no format has a way to write a year.
const LAST: u64 = 253_402_300_799_999;

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// The system clock, now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The moment that many whole seconds after 1970-01-01T00:00:00Z.
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub fn unix(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Signed distance in whole seconds from `earlier` to this moment, as a provider counts it: both clocks cut to
    /// seconds first.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        self.unix().saturating_sub(earlier.unix())
    }

    /// RFC 3339 in UTC with milliseconds, `2026-01-02T03:04:05.678Z`; of times before 1970 and after 9999 the nearest that
    /// can be written.
    pub fn rfc3339(self) -> impl std::fmt::Display {
        let millis = u64::try_from(self.0).unwrap_or(0).min(LAST);
        humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
    }
}

/// How a provider writes the time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Whole seconds since 1970 in ASCII digits: no sign, no space, no leading zero.
    Unix,
    /// Whole milliseconds since 1970, written like [`Self::Unix`].
    UnixMs,
    /// Seconds since 1970 with at most nine decimals, or without any.
    UnixFloat,
    /// RFC 3339 in UTC or with an offset, 0 to 9 fraction digits.
    Rfc3339,
    /// RFC 3339 in UTC or with an offset, 0 to 9 fraction digits, day and month with or without their leading zero
    /// (Pitchpoint writes `2024-01-1T10:00:00.7777748Z`).
    Rfc3339Lenient,
    /// The preferred format of HTTP (RFC 9110 section 5.6.7), `Sun, 06 Nov 1994 08:49:37 GMT`.
    HttpDate,
}

impl Format {
    /// The moment that `text` names; `None` when it is not written in this format.
    pub fn parse(self, text: &str) -> Option<Moment> {
        match self {
            Self::Unix => parse_digits(text).map(Moment::from_unix),
            Self::UnixMs => parse_digits(text).map(Moment),
            Self::UnixFloat => {
                let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
                let digits = (1..=9).contains(&decimals.len()) && decimals.bytes().all(|byte| byte.is_ascii_digit());
                let millis: i64 = format!("{decimals:0<3}").get(..3).filter(|_| digits)?.parse().ok()?;
                Some(Moment(Moment::from_unix(parse_digits(seconds)?).0.saturating_add(millis)))
            }
            Self::Rfc3339 if text.as_bytes().get(10) == Some(&b'T') => rfc3339(text),
            Self::Rfc3339 => None,
            Self::Rfc3339Lenient => rfc3339(&pad_date(text)?),
            Self::HttpDate => {
                let parsed = httpdate::parse_http_date(text).ok()?;
                // The two obsolete forms say other bytes for the same moment.
                let seconds = parsed.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
                (httpdate::fmt_http_date(parsed) == text)
                    .then(|| Moment::from_unix(i64::try_from(seconds).unwrap_or(0)))
            }
        }
    }

    /// The moment as this format writes it; dates before 1970 and after 9999 are the nearest that can be written.
    pub fn write(self, moment: Moment) -> String {
        match self {
            Self::Unix => moment.unix().to_string(),
            Self::UnixMs => moment.0.to_string(),
            Self::UnixFloat => format!("{}.{:03}", moment.unix(), moment.0.rem_euclid(1000)),
            Self::Rfc3339 | Self::Rfc3339Lenient => moment.rfc3339().to_string(),
            Self::HttpDate => {
                let seconds = u64::try_from(moment.unix()).unwrap_or(0).min(LAST / 1000);
                httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            }
        }
    }

    /// How this format is named to people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unix => "Unix seconds",
            Self::UnixMs => "Unix milliseconds",
            Self::UnixFloat => "Unix seconds, possibly with decimals",
            Self::Rfc3339 => "RFC 3339",
            Self::HttpDate => "an HTTP date",
            Self::Rfc3339Lenient => "RFC 3339, day and month possibly without leading zero",
        }
    }
}

fn rfc3339(text: &str) -> Option<Moment> {
    let parsed: Timestamp = text.parse().ok()?;
    Some(Moment(parsed.as_millisecond()))
}

/// At most fifteen ASCII digits without sign, space or leading zero.
fn parse_digits(text: &str) -> Option<i64> {
    let canonical = matches!(text.as_bytes(), [b'0'] | [b'1'..=b'9', ..])
        && text.len() <= 15
        && text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical { text.parse().ok() } else { None }
}

/// `2024-1-1T…` as `2024-01-01T…`.
fn pad_date(text: &str) -> Option<String> {
    let (date, rest) = text.split_once('T')?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || year.len() != 4 || ![year, month, day].into_iter().all(digits) {
        return None;
    }
    Some(format!("{year}-{month:0>2}-{day:0>2}T{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_are_canonical_digits_only() {
        assert_eq!(Format::Unix.parse("1735812000"), Some(Moment::from_unix(1_735_812_000)));
        for bad in ["", "+1735812000", "-1", " 1735812000", "1735812000 ", "01735812000", "1735812000.0", "1e9", "١٧"]
        {
            assert_eq!(Format::Unix.parse(bad), None, "{bad:?}");
        }
        assert!(Format::Unix.parse("1735812000000").is_some(), "milliseconds are a second in the far future");
        assert_eq!(Format::Unix.parse("1735812000000000"), None, "longer than any time");
    }

    #[test]
    fn every_format_reads_what_it_writes_and_none_of_the_others() {
        let moment = Moment(1_735_812_000_000);
        let formats = [Format::Unix, Format::UnixMs, Format::UnixFloat, Format::Rfc3339, Format::HttpDate];
        for format in formats {
            assert_eq!(format.parse(&format.write(moment)), Some(moment), "{format:?}");
        }
        assert_eq!(Format::UnixFloat.parse("1735812000"), Some(moment));
        assert_eq!(Format::UnixFloat.parse("1735812000.5"), Some(Moment(1_735_812_000_500)));
        assert_eq!(Format::HttpDate.write(moment), "Thu, 02 Jan 2025 10:00:00 GMT");
        for (format, bad) in [
            (Format::UnixMs, "1735812000000.0"),
            (Format::UnixFloat, "1735812000."),
            (Format::UnixFloat, "1e9"),
            (Format::UnixFloat, "1735812000.-5"),
            (Format::UnixFloat, "1735812000.1234567890"),
            (Format::Rfc3339, "2025-01-02 10:00:00Z"),
            (Format::Rfc3339, "2025-01-2T10:00:00Z"),
            (Format::Rfc3339, "2025-01-02T10:00:00"),
            (Format::HttpDate, "Thursday, 02-Jan-25 10:00:00 GMT"),
            (Format::HttpDate, "Fri, 02 Jan 2025 10:00:00 GMT"),
            (Format::HttpDate, "1735812000"),
        ] {
            assert_eq!(format.parse(bad), None, "{format:?} {bad:?}");
        }
    }

    #[test]
    fn unpadded_days_and_100ns_ticks_are_read() {
        let padded = Format::Rfc3339Lenient.parse("2024-01-01T10:00:00.7777748Z");
        assert!(padded.is_some());
        assert_eq!(Format::Rfc3339Lenient.parse("2024-01-1T10:00:00.7777748Z"), padded);
        for bad in ["", "2024-01-01", "2024-001-01T00:00:00Z", "24-1-1T00:00:00Z", "2024-13-01T00:00:00Z", "x-1-1T0"] {
            assert_eq!(Format::Rfc3339Lenient.parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn received_at_is_rfc3339_with_milliseconds() {
        assert_eq!(Moment(1_735_812_000_042).rfc3339().to_string(), "2025-01-02T10:00:00.042Z");
        assert_eq!(Moment(i64::MAX).rfc3339().to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Moment(-1).rfc3339().to_string(), "1970-01-01T00:00:00.000Z");
    }
}
