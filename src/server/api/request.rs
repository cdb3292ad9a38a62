//! Parses requests to the API: a filter, a limit and a cursor from a query or from JSON, and bodies with other members.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::base::problem::closest;
use crate::base::time::Format;
use crate::base::time::Moment;
use crate::store::Filter;
use crate::store::MAX_PART;
use crate::store::MessageId;
use crate::store::State;

/// How many deliveries are listed by default.
const DEFAULT_LIMIT: usize = 50;

/// A filter for deliveries, and one page of those that match.
#[derive(Debug)]
pub(super) struct PageRequest {
    pub(super) filter: Filter,
    /// Only messages after this one.
    pub(super) after: Option<MessageId>,
    pub(super) limit: usize,
}

/// A request for a page, before it is parsed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a JSON object")]
struct RawPageRequest {
    source: Option<String>,
    destination: Option<String>,
    state: Option<String>,
    r#type: Option<String>,
    id: Option<String>,
    from: Option<String>,
    until: Option<String>,
    limit: Option<u64>,
    cursor: Option<String>,
    all: bool,
}

/// The parameters of a query.
const PARAMETERS: [&str; 9] = ["source", "destination", "state", "type", "id", "from", "until", "limit", "cursor"];

/// Reads the query of a list.
///
/// # Errors
/// What is wrong with which parameter, and what would be right.
pub(super) fn query(query: &str) -> Result<PageRequest, String> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !PARAMETERS.contains(&&*name) {
            let hint = closest(&name, PARAMETERS)
                .map_or_else(|| format!("there are {}", PARAMETERS.join(", ")), |near| format!("did you mean {near}?"));
            return Err(format!("{name:?} is no parameter; {hint}"));
        }
        if parameters.insert(name.clone(), value.into_owned()).is_some() {
            return Err(format!("{name}: is there twice; a list has one of each"));
        }
    }
    let mut take = |name: &str| parameters.remove(name);
    let limit = take("limit").map(|limit| limit.parse().map_err(|_none| limited(&format!("{limit:?}")))).transpose()?;
    let raw = RawPageRequest {
        source: take("source"),
        destination: take("destination"),
        state: take("state"),
        r#type: take("type"),
        id: take("id"),
        from: take("from"),
        until: take("until"),
        limit,
        cursor: take("cursor"),
        all: false,
    };
    raw.parse(DEFAULT_LIMIT)
}

/// Reads the body of the replay of one event, which may be empty: the destination to which it is delivered again.
///
/// # Errors
/// What is wrong with it.
pub(super) fn destination(body: &[u8]) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a JSON object")]
    struct Body {
        destination: Option<String>,
    }
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let written = serde_json::from_slice(body).map_err(|error| format!("{error}; write nothing, or a destination"));
    written.map(|written: Body| written.destination)
}

/// Reads what to replay or to purge.
///
/// # Errors
/// What is wrong with which key, and what would be right.
pub(super) fn body(body: &[u8]) -> Result<PageRequest, String> {
    if body.trim_ascii().is_empty() {
        return Err(format!("the body says which events are meant, as a JSON object; {EXAMPLE}"));
    }
    let raw: RawPageRequest = serde_json::from_slice(body).map_err(|error| format!("{error}; {EXAMPLE}"))?;
    let all = raw.all;
    let request = raw.parse(MAX_PART)?;
    match (all, request.filter == Filter::default()) {
        (false, true) => Err(format!("no filter is given; write {EXAMPLE}, or {{\"all\": true}} if all are meant")),
        (true, false) => Err("all: goes without a filter; leave one of them out".to_owned()),
        _ => Ok(request),
    }
}

/// The quarantined file to recover, and the message after which to continue.
#[derive(Debug)]
pub(super) struct Recover {
    pub(super) file: String,
    /// Only messages after this one.
    pub(super) after: Option<MessageId>,
}

/// Reads the body of a recovery.
///
/// # Errors
/// What is wrong with it.
pub(super) fn recover(body: &[u8]) -> Result<Recover, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a JSON object")]
    struct Body {
        file: String,
        cursor: Option<String>,
    }
    let example = r#"for example {"file": "store.db.damaged-20260102T030405Z"}"#;
    let Body { file, cursor } = serde_json::from_slice(body).map_err(|error| format!("{error}; {example}"))?;
    let wrong = |wrong: String| format!("cursor: {wrong}; {CURSOR}");
    Ok(Recover { file, after: cursor.map(|cursor| cursor.parse().map_err(wrong)).transpose()? })
}

/// Reads the body of a backup: the folder that the store is copied to.
///
/// # Errors
/// What is wrong with it.
pub(super) fn folder(body: &[u8]) -> Result<PathBuf, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a JSON object")]
    struct Body {
        folder: PathBuf,
    }
    let example = r#"for example {"folder": "/var/backups/doorward"}"#;
    let written = serde_json::from_slice(body).map_err(|error| format!("{error}; {example}"));
    written.map(|written: Body| written.folder)
}

/// Hint for a cursor that cannot be parsed.
const CURSOR: &str = "take it from the \"next\" of the answer before, or leave it out to begin";
/// Hint for a body that cannot be parsed.
const EXAMPLE: &str = r#"for example {"source": "github", "from": "2026-01-02T03:04:05Z"}"#;

impl RawPageRequest {
    fn parse(self, default_limit: usize) -> Result<PageRequest, String> {
        let text = |name: &str, text: Option<String>| match text {
            Some(text) if text.is_empty() => Err(format!("{name}: is empty; leave it out if any will do")),
            text => Ok(text),
        };
        let filter = Filter {
            source: text("source", self.source)?,
            destination: text("destination", self.destination)?,
            state: self.state.map(|name| state(&name)).transpose()?,
            kind: text("type", self.r#type)?,
            id: text("id", self.id)?,
            from: self.from.map(|from| time("from", &from)).transpose()?,
            until: self.until.map(|until| time("until", &until)).transpose()?,
        };
        if let (Some(from), Some(until)) = (filter.from, filter.until)
            && from >= until
        {
            return Err("until: is not later than from, so that no event is between them".to_owned());
        }
        let limit = match self.limit {
            None => default_limit,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=MAX_PART).contains(limit))
                .ok_or_else(|| limited(&limit.to_string()))?,
        };
        let cursor =
            |text: String| text.parse().map_err(|_wrong: String| format!("cursor: {text:?} is none; {CURSOR}"));
        Ok(PageRequest { filter, after: self.cursor.map(cursor).transpose()?, limit })
    }
}

fn limited(written: &str) -> String {
    format!("limit: {written} is not a whole number from 1 to {MAX_PART}")
}

fn state(name: &str) -> Result<State, String> {
    let names = || State::ALL.map(State::name).join(", ");
    State::named(name).ok_or_else(|| format!("state: {name:?} is none of {}", names()))
}

fn time(name: &str, text: &str) -> Result<Moment, String> {
    Format::Rfc3339.parse(text).ok_or_else(|| {
        let hint = if text.contains(' ') { "; in an address, + is written %2B" } else { "" };
        format!("{name}: {text:?} is not a time such as 2026-01-02T03:04:05Z (RFC 3339){hint}")
    })
}
