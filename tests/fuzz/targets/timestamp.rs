//! Times are read as their formats say and not otherwise, and no distance between two of them overflows.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use doorward::base::time::Format;
use doorward::base::time::Moment;
use doorward::extract::field::ExtractionPlan;
use doorward::http::inbound::Inbound;
use doorward::profile::Location;
use doorward::profile::Timestamp;
use doorward::profile::TimestampPolicy;
use doorward::profile::Tolerance;
use doorward::verify::Failure;
use doorward::verify::Freshness;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 6] =
    [Format::Unix, Format::UnixMs, Format::UnixFloat, Format::Rfc3339, Format::Rfc3339Lenient, Format::HttpDate];
/// For how many seconds events are remembered: a signed time further from now is refused.
const REMEMBERED: i64 = 96 * 3600;
const NAME: HeaderName = HeaderName::from_static("x-time");

// The format, the tolerance, the present, and a text.
fuzz_target!(|input: (u8, u64, u64, i64, &str)| {
    let (format, past, future, now, text) = input;
    let format = FORMATS[usize::from(format) % FORMATS.len()];
    let found = format.parse(text);
    assert_eq!(found.map(millis), naive(format, text), "{format:?} {text:?}");
    for moment in [Some(Moment::from_unix(now)), found].into_iter().flatten() {
        drop(moment.rfc3339().to_string());
        let written = format.write(moment);
        if (0..=Moment::LAST_UNIX).contains(&moment.unix()) {
            assert_eq!(format.parse(&written).map(Moment::unix), Some(moment.unix()), "{format:?} {written:?}");
        }
    }
    if let Ok(value) = HeaderValue::from_str(text) {
        judge(format, (past, future), Moment::from_unix(now), (value, found));
    }
});

/// Compares what is judged with the same in numbers that are large enough.
fn judge(format: Format, (past, future): (u64, u64), now: Moment, (value, found): (HeaderValue, Option<Moment>)) {
    let limit = |seconds| Some(Duration::from_secs(seconds));
    let tolerance = Some(Tolerance { past: limit(past), future: limit(future) });
    let spec = Timestamp { from: Location::header(NAME), format, tolerance, policy: TimestampPolicy::Enforce };
    let mut wants = ExtractionPlan::default();
    let freshness = Freshness::new(&spec, Some(Duration::from_secs(REMEMBERED.unsigned_abs())), &mut wants);
    let headers = HeaderMap::from_iter([(NAME, value)]);
    let inbound = Inbound::recorded(Method::POST, Uri::from_static("/"), headers, Bytes::new(), now);
    let values = wants.read(&inbound);
    let judged = freshness.read(&inbound, &values).and_then(|stamp| freshness.check(&stamp, now));
    let age = found.map(|moment| i128::from(now.unix()) - i128::from(moment.unix()));
    let expected = match age {
        None => Err(Failure::TimestampMalformed),
        Some(age) if age > i128::from(past) || age >= i128::from(REMEMBERED) => Err(Failure::TimestampStale),
        Some(age) if -age > i128::from(future) || -age >= i128::from(REMEMBERED) => Err(Failure::TimestampFuture),
        Some(age) => Ok(i64::try_from(age).ok()),
    };
    assert_eq!(judged, expected, "{format:?} {found:?} at {now:?}");
}

fn millis(moment: Moment) -> i64 {
    Format::UnixMs.write(moment).parse().expect("milliseconds")
}

/// The same by other means.
fn naive(format: Format, text: &str) -> Option<i64> {
    match format {
        Format::Unix => integer(text)?.checked_mul(1000),
        Format::UnixMs => integer(text),
        Format::UnixFloat => {
            let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
            let decimals = digits(decimals, 1..=9)?;
            let thousandths: String = decimals.chars().chain("000".chars()).take(3).collect();
            Some(integer(seconds)? * 1000 + thousandths.parse::<i64>().ok()?)
        }
        Format::Rfc3339 => rfc3339(text, 2),
        Format::Rfc3339Lenient => rfc3339(text, 1),
        Format::HttpDate => {
            let parsed = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
            let civil = parsed.to_datetime().ok()?;
            let moment = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
            let canonical = moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string() == text;
            (canonical && moment.as_second() >= 0).then(|| moment.as_millisecond())
        }
    }
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<&str> {
    (length.contains(&text.len()) && text.chars().all(|digit| digit.is_ascii_digit())).then_some(text)
}

fn integer(text: &str) -> Option<i64> {
    let number: i64 = digits(text, 1..=15)?.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// RFC 3339 section 5.6, with at least this many digits of day and month.
fn rfc3339(text: &str, least: usize) -> Option<i64> {
    let number = |text: &str, length| digits(text, length)?.parse::<i64>().ok();
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = date.split('-').collect::<Vec<_>>().try_into().ok()?;
    let (year, month, day) = (number(year, 4..=4)?, number(month, least..=2)?, number(day, least..=2)?);
    let (time, offset) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let at = time.rfind(['+', '-'])?;
            let (hours, minutes) = time[at + 1..].split_once(':')?;
            let (hours, minutes) = (number(hours, 2..=2)?, number(minutes, 2..=2)?);
            let sign = if time.as_bytes()[at] == b'-' { -1 } else { 1 };
            (hours < 24 && minutes < 60).then_some((&time[..at], sign * (hours * 60 + minutes)))?
        }
    };
    let (time, nanos) = time.split_once('.').map_or(Some((time, 0)), |(time, fraction)| {
        Some((time, format!("{:0<9}", digits(fraction, 1..=9)?).parse().ok()?))
    })?;
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>().try_into().ok()?;
    let (hour, minute, second) = (number(hour, 2..=2)?, number(minute, 2..=2)?, number(second, 2..=2)?);
    // A leap second counts as the one before it.
    let second = if second == 60 { 59 } else { second };
    let small = |number: i64| i8::try_from(number).ok();
    let date = jiff::civil::Date::new(i16::try_from(year).ok()?, small(month)?, small(day)?).ok()?;
    let time = jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, nanos).ok()?;
    let offset = jiff::tz::Offset::from_seconds(i32::try_from(offset * 60).ok()?).ok()?;
    Some(offset.to_timestamp(date.to_datetime(time)).ok()?.as_millisecond())
}
