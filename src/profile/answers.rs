//! `[answers]`: the statuses and bodies that a provider understands.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `[answers]`: what each outcome is answered with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// For events that were taken without an upstream's own answer; 200 unless said otherwise.
    #[serde(default)]
    pub accepted: Accepted,
    /// For requests that could not be authenticated; 401 unless said otherwise.
    pub refused: Option<Status<400, 499>>,
    /// For requests that cannot be read or have no event id; 400 unless said otherwise.
    pub malformed: Option<Status<400, 499>>,
    /// For bodies over the limit; 413 unless said otherwise.
    pub too_large: Option<Status<400, 499>>,
    /// The one status that makes the provider try again, where not every 5xx does; then it also replaces 502 and 504.
    pub retry: Option<Status<400, 599>>,
}

/// The answer for an event that was taken.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "AcceptedForm")]
pub struct Accepted {
    /// The status.
    pub status: Option<Status<200, 299>>,
    /// The body; `{"received":true}` unless said otherwise.
    pub body: Option<AcceptedBody>,
}

/// The body of such an answer.
#[derive(Debug, Clone)]
pub enum AcceptedBody {
    /// In `text/plain`.
    Text(String),
    /// In JSON.
    Json(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write a status such as 200, or { status = 200, text = \"…\" }")]
enum AcceptedForm {
    Status(Status<200, 299>),
    Whole(Whole),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    status: Option<Status<200, 299>>,
    text: Option<String>,
    json: Option<BTreeMap<String, serde_json::Value>>,
}

impl From<AcceptedForm> for Accepted {
    fn from(form: AcceptedForm) -> Self {
        match form {
            AcceptedForm::Status(status) => Self { status: Some(status), body: None },
            AcceptedForm::Whole(Whole { status, text, json }) => {
                let json = json.map(|members| serde_json::json!(members).to_string());
                Self { status, body: text.map(AcceptedBody::Text).or_else(|| json.map(AcceptedBody::Json)) }
            }
        }
    }
}

/// An HTTP status within a range (RFC 9110 section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct Status<const MIN: u16, const MAX: u16>(u16);

impl<const MIN: u16, const MAX: u16> Status<MIN, MAX> {
    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl<const MIN: u16, const MAX: u16> TryFrom<u16> for Status<MIN, MAX> {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        if (MIN..=MAX).contains(&code) {
            Ok(Self(code))
        } else {
            Err(format!("{code} is no status for this answer; it takes {MIN} to {MAX}"))
        }
    }
}
