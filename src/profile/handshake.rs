//! `[[handshake]]`: rules for a provider's probes of the endpoint. The gateway answers them itself.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;

use super::answers::Status;
use super::condition::Condition;
use super::deserialize::deserialize_as;
use super::location::Location;
use super::location::location_table;
use super::template::Template;

/// A rule. The first rule whose conditions hold answers the request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[handshake]]")]
pub struct Handshake {
    /// When the provider sends such a probe, for people.
    pub about: Option<String>,
    /// The method of the request.
    #[serde(default)]
    pub method: Verb,
    /// Whether the request must be verified. Default: requests with `POST` must.
    pub signed: Option<bool>,
    /// The rule applies when all of these hold.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// Conditions that must hold when the rule applies; else the request is refused.
    #[serde(default)]
    pub check: Vec<Condition>,
    /// An address that the gateway requests before it answers.
    pub visit: Option<Visit>,
    /// The answer.
    #[serde(default)]
    pub reply: Reply,
}

impl Handshake {
    /// Whether the request must be verified.
    pub fn is_signed(&self) -> bool {
        self.signed.unwrap_or(self.method == Verb::Post)
    }

    /// The templates of its reply.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let json = self.reply.json.iter().flat_map(|members| members.values());
        let json = json.filter_map(|value| if let Json::Text(template) = value { Some(template) } else { None });
        self.reply.text.iter().chain(json).chain(self.reply.headers.values())
    }
}

/// The methods of handshakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the methods")]
pub enum Verb {
    #[default]
    Post,
    Get,
    Head,
    Options,
}

impl Verb {
    /// The same method as a type of the `http` crate.
    pub fn method(self) -> Method {
        match self {
            Self::Post => Method::POST,
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Options => Method::OPTIONS,
        }
    }
}

/// An address in the request that the gateway requests with `GET`, if the host is allowed.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The location of the address.
    pub from: Location,
    /// The allowed hosts, separated by spaces; `<region>` matches a region of AWS, `{name}` is replaced by a parameter
    /// of the source.
    pub hosts: String,
}

location_table!(VisitTable {
    hosts: Option<String>,
});

deserialize_as!(Visit, VisitTable, "a place with hosts, such as { json = \"/url\", hosts = \"api.example.com\" }");

impl TryFrom<VisitTable> for Visit {
    type Error = String;

    fn try_from(mut table: VisitTable) -> Result<Self, String> {
        let from = table.location().plain()?;
        let hosts = table.hosts.ok_or("says no hosts; write hosts = \"api.example.com\"")?;
        Ok(Self { from, hosts })
    }
}

/// The answer to a handshake.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a reply such as { status = 200, text = \"…\" }")]
pub struct Reply {
    /// The status. Default: 200.
    pub status: Option<Status<200, 299>>,
    /// A body in `text/plain`.
    pub text: Option<Template>,
    /// A body in JSON: an object of these members.
    pub json: Option<BTreeMap<String, Json>>,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
}

/// A value of a JSON reply.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "JsonForm")]
pub enum Json {
    /// A text made by a template.
    Text(Template),
    /// A number.
    Number(i64),
    /// `true` or `false`.
    Bool(bool),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write a template such as \"{json:/challenge}\", a whole number, true or false")]
enum JsonForm {
    Text(String),
    Number(i64),
    Bool(bool),
}

impl TryFrom<JsonForm> for Json {
    type Error = String;

    fn try_from(form: JsonForm) -> Result<Self, String> {
        match form {
            JsonForm::Text(text) => text.parse().map(Self::Text),
            JsonForm::Number(number) => Ok(Self::Number(number)),
            JsonForm::Bool(yes) => Ok(Self::Bool(yes)),
        }
    }
}
