//! Moments, in milliseconds since 1970-01-01T00:00:00Z, and the formats in which providers write times. The only module
//! that reads the system's wall clock.

use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Moment(i64);

/// The last millisecond that can be written and read in every format. `jiff` reserves the last 26 hours of the year
/// 9999 for offsets.
const LAST: i64 = 253_402_207_200_999;

impl Moment {
    /// The last second that can be written and read in every format, counted from 1970-01-01T00:00:00Z.
    pub const LAST_UNIX: i64 = LAST / 1000;

    /// The system clock, now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The moment that many milliseconds after 1970-01-01T00:00:00Z.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// The moment this much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment this much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; nothing when it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment that many whole seconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix(seconds: i64) -> Self {
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

    /// RFC 3339 in UTC with milliseconds, `2026-01-02T03:04:05.678Z`. Moments before 1970 or after 9999 are clamped.
    pub fn rfc3339(self) -> impl std::fmt::Display {
        humantime::format_rfc3339_millis(self.to_system_time())
    }

    /// This moment as a `SystemTime`, clamped to the years from 1970 to 9999, which every format can write.
    fn to_system_time(self) -> SystemTime {
        let millis = u64::try_from(self.0.clamp(0, LAST)).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }
}

/// The pause that the value of a `Retry-After` header asks for (RFC 9110 section 10.2.3), in an answer that came at
/// `now`. `None` when it is neither a number of seconds nor an HTTP date.
pub fn retry_after(text: &str, now: Moment) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only too many digits make the parser fail.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Format::HttpDate.parse(text).map(|until| until.since(now))
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
            Self::Rfc3339 => rfc3339(text),
            Self::Rfc3339Lenient => rfc3339(&pad_date(text)?),
            Self::HttpDate => {
                let parsed = httpdate::parse_http_date(text).ok()?;
                // The parser also takes the two obsolete forms, which differ from what it writes.
                let seconds = parsed.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
                (httpdate::fmt_http_date(parsed) == text)
                    .then(|| Moment::from_unix(i64::try_from(seconds).unwrap_or(0)))
            }
        }
    }

    /// The moment as this format writes it; dates are those from 1970 to [`Moment::LAST_UNIX`].
    pub fn write(self, moment: Moment) -> String {
        match self {
            Self::Unix => moment.unix().to_string(),
            Self::UnixMs => moment.0.to_string(),
            Self::UnixFloat => format!("{}.{:03}", moment.unix(), moment.0.rem_euclid(1000)),
            Self::Rfc3339 | Self::Rfc3339Lenient => moment.rfc3339().to_string(),
            Self::HttpDate => httpdate::fmt_http_date(moment.to_system_time()),
        }
    }

    /// The name of this format in messages for people.
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
    let parsed: Timestamp = text.parse().ok().filter(|_| is_rfc3339(text))?;
    Some(Moment(parsed.as_millisecond()))
}

/// Whether `text` has the form of RFC 3339 section 5.6. `jiff` also accepts `2025-01-02T10Z`, a comma before the
/// fraction, a zone in brackets, and offsets of more than a day.
fn is_rfc3339(text: &str) -> bool {
    // A zero in the pattern stands for any digit.
    let matches_pattern = |text: &str, pattern: &str| {
        let same = |(byte, pattern): (u8, u8)| if pattern == b'0' { byte.is_ascii_digit() } else { byte == pattern };
        text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(same)
    };
    let Some((second, rest)) = text.split_at_checked(19) else { return false };
    let offset = match rest.strip_prefix('.') {
        Some(rest) => {
            let offset = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if (1..=9).contains(&(rest.len() - offset.len())) { offset } else { "" }
        }
        None => rest,
    };
    let numeric = (matches_pattern(offset, "+00:00") || matches_pattern(offset, "-00:00"))
        && offset.get(1..3).is_some_and(|hours| hours < "24");
    matches_pattern(second, "0000-00-00T00:00:00") && (matches!(offset, "Z" | "z") || numeric)
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
    fn rfc3339_is_what_the_rfc_says_and_no_more() {
        let whole = Format::Rfc3339.parse("2025-01-02T10:00:00Z");
        assert_eq!(whole, Some(Moment(1_735_812_000_000)));
        for good in [
            "2025-01-02T10:00:00z",
            "2025-01-02T10:00:00.0Z",
            "2025-01-02T10:00:00.000000000Z",
            "2025-01-02T11:30:00+01:30",
            "2025-01-01T10:01:00-23:59",
            "2025-01-02T10:00:00-00:00",
        ] {
            assert_eq!(Format::Rfc3339.parse(good), whole, "{good}");
            assert_eq!(Format::Rfc3339Lenient.parse(good), whole, "{good}");
        }
        for bad in [
            "2025-01-02T10Z",
            "2025-01-02T10:00Z",
            "2025-01-02T100000Z",
            "2025-01-02T10:00:00,0Z",
            "2025-01-02T10:00:00.Z",
            "2025-01-02T10:00:00.0000000000Z",
            "2025-01-02T10:00:00+00",
            "2025-01-02T10:00:00+0000",
            "2025-01-02T10:00:00+00:00:00",
            "2025-01-02T10:00:00+24:00",
            "2025-01-02T10:00:00-25:30",
            "2025-01-02T10:00:00Z[UTC]",
            "2025-01-02T10:00:00+00:00[Europe/London]",
            "2025-01-02T10:00:00Z[u-ca=hebrew]",
            "2025-01-02t10:00:00Z",
        ] {
            assert_eq!(Format::Rfc3339.parse(bad), None, "{bad} is another standard's, which other readers refuse");
            assert_eq!(Format::Rfc3339Lenient.parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_moment_can_be_written() {
        let formats = [Format::Rfc3339, Format::Rfc3339Lenient, Format::HttpDate];
        for (seconds, year) in [(i64::MIN, "1970"), (-1, "1970"), (Moment::LAST_UNIX + 1, "9999"), (i64::MAX, "9999")] {
            let moment = Moment::from_unix(seconds);
            for format in formats {
                assert!(
                    format.write(moment).contains(year),
                    "{format:?} of {seconds} panicked, as no date has its year"
                );
            }
            assert!(moment.rfc3339().to_string().starts_with(year), "{seconds}");
        }
        let last = Moment::from_unix(Moment::LAST_UNIX);
        for format in formats {
            assert_eq!(
                format.parse(&format.write(last)),
                Some(last),
                "{format:?} does not read the last that it writes"
            );
        }
        assert_eq!(last.rfc3339().to_string(), "9999-12-30T22:00:00.000Z");
    }

    #[test]
    fn received_at_is_rfc3339_with_milliseconds() {
        assert_eq!(Moment(1_735_812_000_042).rfc3339().to_string(), "2025-01-02T10:00:00.042Z");
    }
}
