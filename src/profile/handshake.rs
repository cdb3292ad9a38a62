//! `[[handshake]]`: rules for a provider's probes of the endpoint, which the gateway answers itself.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;

use super::answers::Status;
use super::condition::Condition;
use super::deserialize::written_as;
use super::location::Location;
use super::location::place_table;
use super::template::Template;

/// One rule; the first whose conditions hold answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[handshake]]")]
pub struct Handshake {
    /// When the provider does this, for people.
    pub about: Option<String>,
    /// The method of the request.
    #[serde(default)]
    pub method: Verb,
    /// Whether the request has to be authentic; those with `POST` have to, unless said otherwise.
    pub signed: Option<bool>,
    /// When the rule applies: all of these hold.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// What must hold then; if not, the request is refused.
    #[serde(default)]
    pub check: Vec<Condition>,
    /// An address that has to be asked before the answer is given.
    pub visit: Option<Visit>,
    /// The answer.
    #[serde(default)]
    pub reply: Reply,
}

impl Handshake {
    /// Whether the request has to be authentic.
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
    /// As the HTTP library knows it.
    pub fn method(self) -> Method {
        match self {
            Self::Post => Method::POST,
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Options => Method::OPTIONS,
        }
    }
}

/// An address in the request that is asked with `GET`, if it lies on one of a few hosts.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Where the address is.
    pub from: Location,
    /// The hosts that may be asked, separated by spaces; `<region>` is a region of AWS, `{name}` a parameter of the
    /// source.
    pub hosts: String,
}

place_table!(VisitTable {
    hosts: Option<String>,
});

written_as!(Visit, VisitTable, "a place with hosts, such as { json = \"/url\", hosts = \"api.example.com\" }");

impl TryFrom<VisitTable> for Visit {
    type Error = String;

    fn try_from(mut table: VisitTable) -> Result<Self, String> {
        let from = table.location().plain()?;
        let hosts = table.hosts.ok_or("says no hosts; write hosts = \"api.example.com\"")?;
        Ok(Self { from, hosts })
    }
}

/// What a handshake is answered with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a reply such as { status = 200, text = \"…\" }")]
pub struct Reply {
    /// The status; 200 unless said otherwise.
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
    /// Yes or no.
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
