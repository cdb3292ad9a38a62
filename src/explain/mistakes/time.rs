//! Hypotheses: the time is in another format or unit than the profile says.

use http::HeaderValue;

use super::Hypothesis;
use crate::base::time::Format;
use crate::base::time::Moment;
use crate::explain::Case;
use crate::profile::Carrier;
use crate::profile::Timestamp;

const FORMATS: [Format; 5] =
    [Format::Unix, Format::UnixMs, Format::UnixFloat, Format::Rfc3339Lenient, Format::HttpDate];

/// 2015-01-01. Earlier times are not plausible.
const EARLIEST: i64 = 1_420_070_400;
/// Times that are further ahead than this, in seconds, are not plausible.
const AHEAD: i64 = 366 * 86_400;

/// The same request with its time read in another format, verified at that time.
pub(super) fn units(case: &Case) -> Vec<Hypothesis> {
    let Some((spec, text)) = time(case) else { return Vec::new() };
    let plausible = |moment: &Moment| (EARLIEST..case.at.unix().saturating_add(AHEAD)).contains(&moment.unix());
    if spec.format.parse(&text).as_ref().is_some_and(plausible) {
        return Vec::new();
    }
    let read = FORMATS.into_iter().filter_map(|format| Some((format, format.parse(&text).filter(plausible)?)));
    let hypothesis = read.map(|(format, moment)| {
        let description = format!(
            "the time is written in {}, and the profile reads {}. If the profile is yours, set format; if not, the sender has \
             to change.",
            format.describe(),
            spec.format.describe()
        );
        let mut case = Case { at: moment, ..case.clone() };
        case.profile.timestamp = Some(Timestamp { format, ..spec.clone() });
        Hypothesis::new(description, case)
    });
    hypothesis.collect()
}

/// The same request with its time written in other formats, for signatures that cover it.
pub(super) fn scaled(case: &Case) -> Vec<Hypothesis> {
    let Some((spec, text)) = time(case) else { return Vec::new() };
    let Carrier::Header(names) = &spec.from.carrier else { return Vec::new() };
    let Some(name) = names.iter().find(|name| case.headers.contains_key(*name)) else { return Vec::new() };
    let moments = FORMATS.into_iter().filter_map(|format| format.parse(&text));
    let mut all = Vec::new();
    for moment in moments {
        for format in FORMATS {
            let other = format.write(moment);
            let value = case.headers.get(name).and_then(|value| value.to_str().ok());
            let value = value.map(|value| value.replacen(&text, &other, 1));
            let Some(value) = value.filter(|_| other != text).and_then(|value| HeaderValue::from_str(&value).ok())
            else {
                continue;
            };
            let description = format!(
                "the time that was signed is {other}, in {}, and the request has {text}. Sign the text that is sent.",
                format.describe()
            );
            let mut case = case.clone();
            case.headers.insert(name.clone(), value);
            case.profile.timestamp = Some(Timestamp { format, ..spec.clone() });
            all.push(Hypothesis::new(description, case));
        }
    }
    all
}

/// The profile's timestamp, and its text in the request.
fn time(case: &Case) -> Option<(&Timestamp, String)> {
    let spec = case.profile.timestamp.as_ref()?;
    let mut plan = crate::extract::field::ExtractionPlan::default();
    let field = crate::extract::field::Field::new(&spec.from, &mut plan);
    let inbound = case.inbound();
    let mut values = plan.read(&inbound);
    if spec.from.is_json() {
        plan.read_json(&inbound, &mut values, true).ok()?;
    }
    let text = field.text(&inbound, &values).ok().flatten()?;
    (text.len() <= 64).then(|| (spec, text.to_owned()))
}
