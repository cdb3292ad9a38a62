//! The places of a profile, compiled so that their values can be read from requests; a body is parsed once for all of
//! them.

use http::HeaderName;

use crate::base::form;
use crate::base::form::FormValue;
use crate::base::form::Names;
use crate::base::form::NotText;
use crate::base::json;
use crate::base::json::Fields;
use crate::base::json::Malformed;
use crate::base::json::Pointers;
use crate::base::json::Slot;
use crate::base::json::Value;
use crate::extract::params;
use crate::extract::params::Params;
use crate::http::content_coding::looks_compressed;
use crate::http::inbound::Inbound;
use crate::profile::Carrier;
use crate::profile::Item;
use crate::profile::Location;

/// Everything that somebody wants to read from a request's body and query.
#[derive(Debug, Clone, Default)]
pub struct ExtractionPlan {
    pointers: Pointers,
    form: Names,
    query: Names,
    /// Whether a body that is not JSON at all is refused.
    pub json_only: bool,
    /// Whether a body that is no JSON is good enough.
    pub json_optional: bool,
}

/// What was read from one request for those who want it.
#[derive(Debug, Clone, Default)]
pub struct Extracted {
    fields: Fields,
    form: Vec<FormValue>,
    query: Vec<FormValue>,
}

impl ExtractionPlan {
    /// Whether the body may be read as a form.
    pub fn form(&self) -> bool {
        !self.form.is_empty()
    }

    /// Whether the body has to be parsed as JSON for anybody.
    pub fn json(&self) -> bool {
        !self.pointers.is_empty()
    }

    /// Reads what can be had without parsing JSON: the parameters and the fields of a form that are wanted. What nobody
    /// wants of them is not judged, nor is a body that looks like JSON read as a form.
    pub fn read(&self, inbound: &Inbound) -> Extracted {
        let form = if is_json(inbound.body()) { &[][..] } else { inbound.body() };
        Extracted {
            fields: Fields::default(),
            form: self.form.read(form),
            query: self.query.read(inbound.query().unwrap_or_default().as_bytes()),
        }
    }

    /// Parses the JSON body as well.
    ///
    /// # Errors
    /// [`Malformed`] when it is not strict JSON; a body that does not look like JSON may be something else where
    /// that is good enough, and not `needed`.
    pub fn read_json(&self, inbound: &Inbound, values: &mut Extracted, needed: bool) -> Result<(), Malformed> {
        // Its Content-Encoding, which nobody has signed, was taken away, or another one laid over it: it would be an
        // event without what stands in it.
        if self.json() && looks_compressed(inbound.body()) {
            return Err(Malformed::new("it is compressed, and its Content-Encoding does not say so"));
        }
        if self.json_only || self.json() && (is_json(inbound.body()) || needed || !self.json_optional) {
            values.fields = self.pointers.extract(inbound.body())?;
        }
        if self.json_only && !is_json(inbound.body()) {
            return Err(Malformed::new("it is neither a JSON object nor an array"));
        }
        Ok(())
    }
}

/// Whether the body is meant to be a JSON object or array. What the sender says of its type is not signed, and decides
/// nothing.
fn is_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(json::BYTE_ORDER_MARK).unwrap_or(body);
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Where to read one text.
#[derive(Debug, Clone)]
pub struct Field {
    carrier: Ready,
    item: Option<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ready {
    Header(Vec<HeaderName>),
    Numbered(HeaderName),
    Json(Slot),
    Form(usize),
    Query(usize),
}

/// Most headers of a numbered family that are read.
const MAX_NUMBERED: usize = 100;

impl Field {
    /// Makes a place ready, and asks for what it reads.
    pub fn new(location: &Location, plan: &mut ExtractionPlan) -> Self {
        let carrier = match &location.carrier {
            Carrier::Header(names) => Ready::Header(names.clone()),
            Carrier::Numbered(name) => Ready::Numbered(name.clone()),
            Carrier::Json(pointer) => Ready::Json(plan.pointers.add(pointer)),
            Carrier::Form(field) => Ready::Form(plan.form.add(field)),
            Carrier::Query(name) => Ready::Query(plan.query.add(name)),
        };
        Self { carrier, item: location.item.clone() }
    }

    /// The same with the parameters of a source in the key of its entry.
    #[must_use]
    pub fn with_params(mut self, params: &Params) -> Self {
        if let Some(item) = &mut self.item {
            item.key = params::fill(&item.key, params);
        }
        self
    }

    /// Whether both are read from the same header, form field and so on.
    pub fn shares_carrier(&self, other: &Self) -> bool {
        self.carrier == other.carrier
    }

    /// The field of another entry in the same list.
    #[must_use]
    pub fn with_item(&self, key: &str) -> Self {
        let item = self.item.as_ref().map(|item| Item { key: key.to_owned(), ..item.clone() });
        Self { carrier: self.carrier.clone(), item }
    }

    /// Whether the body has to be parsed as JSON before this can be read.
    pub fn is_json(&self) -> bool {
        matches!(self.carrier, Ready::Json(_))
    }

    /// Whether it is read from headers.
    pub fn is_header(&self) -> bool {
        matches!(self.carrier, Ready::Header(_) | Ready::Numbered(_))
    }

    /// The headers of which each must not be there twice.
    pub fn headers(&self) -> Vec<HeaderName> {
        match &self.carrier {
            Ready::Header(names) => names.clone(),
            Ready::Numbered(name) => vec![numbered(name, 1)].into_iter().flatten().collect(),
            Ready::Json(_) | Ready::Form(_) | Ready::Query(_) => Vec::new(),
        }
    }

    /// Whether anything stands there, text or not, with the entry or without.
    pub fn is_there(&self, inbound: &Inbound, values: &Extracted) -> bool {
        !matches!(self.wholes(inbound, values), Ok((None, many)) if many.is_empty())
    }

    /// Whether nothing stands there, not even `null`, or not the entry that is looked for.
    pub fn is_absent(&self, inbound: &Inbound, values: &Extracted) -> bool {
        let null = matches!(&self.carrier, Ready::Json(slot) if *values.fields.get(*slot) == Value::Null);
        !null && !self.has_entry(inbound, values)
    }

    /// Whether all headers that it may be read from say the same, so that whoever reads another one finds no other
    /// value.
    pub fn agrees(&self, inbound: &Inbound) -> bool {
        let Ready::Header(names) = &self.carrier else { return true };
        let mut there = names.iter().filter_map(|name| inbound.headers().get(name));
        let first = there.next();
        there.all(|other| Some(other) == first)
    }

    /// Whether what stands there has the entry that is looked for.
    pub fn has_entry(&self, inbound: &Inbound, values: &Extracted) -> bool {
        match self.texts(inbound, values) {
            Ok(texts) => texts.is_some_and(|mut texts| texts.next().is_some()),
            Err(NotText) => true,
        }
    }

    /// The text; `None` when there is none.
    ///
    /// # Errors
    /// [`NotText`] when it is something else: bytes beyond visible ASCII in a header, a key that the list has twice, an
    /// array in the body, a field that the form has twice.
    pub fn text<'r>(&'r self, inbound: &'r Inbound, values: &'r Extracted) -> Result<Option<&'r str>, NotText> {
        let Some(mut texts) = self.texts(inbound, values)? else { return Ok(None) };
        let text = texts.next();
        if texts.next().is_some() { Err(NotText) } else { Ok(text) }
    }

    /// The text in each item of a list; `None` when there is no list, nothing in it, or nothing in one of its items.
    ///
    /// # Errors
    /// [`NotText`] when something else stands in an item.
    pub fn each<'r>(&self, values: &'r Extracted) -> Result<Option<Vec<&'r str>>, NotText> {
        let Ready::Json(slot) = &self.carrier else { return Ok(None) };
        let Value::Each(items) = values.fields.get(*slot) else { return Ok(None) };
        let text = |item: &'r Value| match item {
            Value::Absent | Value::Null => None,
            Value::Text(text) if text.is_empty() => None,
            Value::Text(text) => Some(std::str::from_utf8(text).map_err(|_bytes| NotText)),
            Value::Other | Value::Each(_) => Some(Err(NotText)),
        };
        if items.is_empty() { Ok(None) } else { items.iter().map(text).collect::<Option<_>>().transpose() }
    }

    /// Every text that stands there: the one, or each value of the list's key, of each header or item; `None` when
    /// there is nothing at all.
    ///
    /// # Errors
    /// [`NotText`] as for [`Self::text`].
    pub fn texts<'r>(&'r self, inbound: &'r Inbound, values: &'r Extracted) -> Result<Option<Texts<'r>>, NotText> {
        let (one, many) = self.wholes(inbound, values)?;
        let there = one.is_some() || !many.is_empty();
        Ok(there.then(|| Texts { item: self.item.as_ref(), list: None, one, many: many.into_iter() }))
    }

    /// The values that the holder holds, in most cases at most one.
    fn wholes<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Extracted,
    ) -> Result<(Option<&'r str>, Vec<&'r str>), NotText> {
        match &self.carrier {
            Ready::Header(names) => {
                let value = names.iter().find_map(|name| inbound.headers().get(name));
                Ok((value.map(|value| value.to_str().map_err(|_bytes| NotText)).transpose()?, Vec::new()))
            }
            Ready::Numbered(name) => {
                let mut many = Vec::new();
                for name in (1..=MAX_NUMBERED).map_while(|number| numbered(name, number)) {
                    let Some(value) = inbound.headers().get(name) else { break };
                    many.push(value.to_str().map_err(|_bytes| NotText)?);
                }
                Ok((None, many))
            }
            Ready::Json(slot) => match values.fields.get(*slot) {
                Value::Absent | Value::Null => Ok((None, Vec::new())),
                Value::Text(text) => Ok((Some(std::str::from_utf8(text).map_err(|_bytes| NotText)?), Vec::new())),
                Value::Each(items) if items.is_empty() => Err(NotText),
                Value::Each(items) => {
                    let text = |item: &'r Value| match item {
                        Value::Text(text) => std::str::from_utf8(text).map_err(|_bytes| NotText),
                        Value::Absent | Value::Null | Value::Other | Value::Each(_) => Err(NotText),
                    };
                    Ok((None, items.iter().map(text).collect::<Result<_, _>>()?))
                }
                Value::Other => Err(NotText),
            },
            Ready::Form(at) => Ok((form::value_at(&values.form, *at)?, Vec::new())),
            Ready::Query(at) => Ok((form::value_at(&values.query, *at)?, Vec::new())),
        }
    }
}

/// The texts that stand at a place.
#[derive(Debug, Clone)]
pub struct Texts<'r> {
    item: Option<&'r Item>,
    /// The entries that are left of the list at hand.
    list: Option<std::str::Split<'r, char>>,
    one: Option<&'r str>,
    many: std::vec::IntoIter<&'r str>,
}

impl<'r> Iterator for Texts<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<&'r str> {
        loop {
            let whole = |texts: &mut Self| texts.one.take().or_else(|| texts.many.next());
            let Some(item) = self.item else { return whole(self) };
            if let Some(value) = self.list.as_mut().and_then(|list| list.find_map(|entry| item.value(entry))) {
                return Some(value);
            }
            self.list = Some(whole(self)?.split(item.separator));
        }
    }
}

/// The header of a numbered family with this number.
fn numbered(family: &HeaderName, number: usize) -> Option<HeaderName> {
    HeaderName::try_from(format!("{family}-{number}")).ok()
}
