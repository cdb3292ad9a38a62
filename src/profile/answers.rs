//! `[answers]`: the statuses and bodies with which the gateway answers a provider.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;

use super::deserialize;

/// `[answers]`: the answer to each kind of request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [answers]")]
pub struct Answers {
    /// For events that were accepted, unless an upstream's own answer is passed on. Default: 200 and
    /// `{"received":true}`.
    #[serde(default)]
    pub accepted: Answer<200, 299>,
    /// For requests that could not be verified. Default: 401 and a description of the problem.
    #[serde(default)]
    pub refused: Answer<400, 499>,
    /// For requests that cannot be parsed or have no event id. Default: 400.
    pub malformed: Option<Status<400, 499>>,
    /// For bodies over the limit. Default: 413.
    pub too_large: Option<Status<400, 499>>,
    /// The one status on which the provider retries, where it does not retry on every 5xx. It then replaces 502, 503
    /// and 504.
    pub retry: Option<Status<400, 599>>,
}

/// A status, a body, or both; what is absent is the default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "AnswerForm")]
pub struct Answer<const MIN: u16, const MAX: u16> {
    /// The status.
    pub status: Option<Status<MIN, MAX>>,
    /// The body.
    pub body: Option<AnswerBody>,
}

/// The body of an answer.
#[derive(Debug, Clone)]
pub enum AnswerBody {
    /// A body in `text/plain`; without a body when empty.
    Text(String),
    /// A body in `application/json`.
    Json(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write a status, or a table of status and text or json, such as { text = \"…\" }")]
enum AnswerForm {
    Status(i64),
    Table(AnswerTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerTable {
    status: Option<i64>,
    text: Option<String>,
    json: Option<BTreeMap<String, serde_json::Value>>,
}

impl<const MIN: u16, const MAX: u16> TryFrom<AnswerForm> for Answer<MIN, MAX> {
    type Error = String;

    fn try_from(form: AnswerForm) -> Result<Self, String> {
        match form {
            AnswerForm::Status(status) => Ok(Self { status: Some(status.try_into()?), body: None }),
            AnswerForm::Table(AnswerTable { text: Some(_), json: Some(_), .. }) => {
                Err("has both text and json; an answer has one body".to_owned())
            }
            AnswerForm::Table(AnswerTable { status, text, json }) => {
                let status = status.map(Status::try_from).transpose()?;
                let json = json.map(|members| serde_json::json!(members).to_string());
                Ok(Self { status, body: text.map(AnswerBody::Text).or_else(|| json.map(AnswerBody::Json)) })
            }
        }
    }
}

/// An HTTP status within a range (RFC 9110 section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status<const MIN: u16, const MAX: u16>(u16);

impl<const MIN: u16, const MAX: u16> Status<MIN, MAX> {
    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl<const MIN: u16, const MAX: u16> TryFrom<i64> for Status<MIN, MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let code = u16::try_from(number).ok().filter(|code| (MIN..=MAX).contains(code));
        code.map(Self).ok_or_else(|| format!("{number} is no status for this answer; it takes {MIN} to {MAX}"))
    }
}

impl<'de, const MIN: u16, const MAX: u16> Deserialize<'de> for Status<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        deserialize::number(input, MIN.into()..=MAX.into())?.try_into().map_err(D::Error::custom)
    }
}
