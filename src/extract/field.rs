//! The locations of a profile, compiled to fields that are read from requests. The plan of all fields parses a body
//! once.

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

/// All values that the fields of a source read from bodies and queries.
#[derive(Debug, Clone, Default)]
pub struct ExtractionPlan {
    pointers: Pointers,
    form: Names,
    query: Names,
    /// Whether a body that is not a JSON object or array is refused, even if no field reads JSON.
    pub json_only: bool,
    /// Whether a body that does not look like JSON is accepted, even if fields read JSON.
    pub json_optional: bool,
}

/// The values that a plan has read from one request.
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

    /// Whether any field reads JSON.
    pub fn json(&self) -> bool {
        !self.pointers.is_empty()
    }

    /// Reads the values that need no JSON parser: parameters of the query and fields of a form. Errors in other
    /// parameters and fields are ignored. A body that looks like JSON is not read as a form.
    pub fn read(&self, inbound: &Inbound) -> Extracted {
        let form = if is_json(inbound.body()) { &[][..] } else { inbound.body() };
        Extracted {
            fields: Fields::default(),
            form: self.form.read(form),
            query: self.query.read(inbound.query().unwrap_or_default().as_bytes()),
        }
    }

    /// Parses the JSON body and adds its values. `required`: whether it must be JSON even if [`Self::json_optional`].
    ///
    /// # Errors
    /// [`Malformed`] when it is not strict JSON. A body that does not look like JSON is only an error if JSON is
    /// required.
    pub fn read_json(&self, inbound: &Inbound, values: &mut Extracted, required: bool) -> Result<(), Malformed> {
        // An attacker may have removed its Content-Encoding, which is not signed, or compressed it twice. Without this
        // check, it would be accepted as an event without the values in the body.
        if self.json() && looks_compressed(inbound.body()) {
            return Err(Malformed::new("it is compressed, and its Content-Encoding does not say so"));
        }
        if self.json_only || self.json() && (is_json(inbound.body()) || required || !self.json_optional) {
            values.fields = self.pointers.extract(inbound.body())?;
        }
        if self.json_only && !is_json(inbound.body()) {
            return Err(Malformed::new("it is neither a JSON object nor an array"));
        }
        Ok(())
    }
}

/// Whether the body looks like a JSON object or array. `Content-Type` is not considered, because it is not signed.
fn is_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(json::BYTE_ORDER_MARK).unwrap_or(body);
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// A compiled location: where to read one value.
#[derive(Debug, Clone)]
pub struct Field {
    carrier: CarrierSlot,
    item: Option<Item>,
}

/// A carrier; those of bodies and queries as an index into [`Extracted`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum CarrierSlot {
    Header(Vec<HeaderName>),
    Numbered(HeaderName),
    Json(Slot),
    Form(usize),
    Query(usize),
}

/// The most headers `NAME-1`, `NAME-2` and so on that are read.
const MAX_NUMBERED: usize = 100;

impl Field {
    /// Compiles a location, and adds it to the plan.
    pub fn new(location: &Location, plan: &mut ExtractionPlan) -> Self {
        let carrier = match &location.carrier {
            Carrier::Header(names) => CarrierSlot::Header(names.clone()),
            Carrier::Numbered(name) => CarrierSlot::Numbered(name.clone()),
            Carrier::Json(pointer) => CarrierSlot::Json(plan.pointers.add(pointer)),
            Carrier::Form(field) => CarrierSlot::Form(plan.form.add(field)),
            Carrier::Query(name) => CarrierSlot::Query(plan.query.add(name)),
        };
        Self { carrier, item: location.item.clone() }
    }

    /// The same field with the parameters of a source in the key of its list entry.
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
        matches!(self.carrier, CarrierSlot::Json(_))
    }

    /// Whether it is read from headers.
    pub fn is_header(&self) -> bool {
        matches!(self.carrier, CarrierSlot::Header(_) | CarrierSlot::Numbered(_))
    }

    /// The headers that it reads, each of which may occur only once.
    pub fn headers(&self) -> Vec<HeaderName> {
        match &self.carrier {
            CarrierSlot::Header(names) => names.clone(),
            CarrierSlot::Numbered(name) => vec![numbered(name, 1)].into_iter().flatten().collect(),
            CarrierSlot::Json(_) | CarrierSlot::Form(_) | CarrierSlot::Query(_) => Vec::new(),
        }
    }

    /// Whether its carrier has any value, text or not, with or without the list entry.
    pub fn is_present(&self, inbound: &Inbound, values: &Extracted) -> bool {
        !matches!(self.carrier_values(inbound, values), Ok((None, many)) if many.is_empty())
    }

    /// Whether it has no value, not even `null`, or not the list entry.
    pub fn is_absent(&self, inbound: &Inbound, values: &Extracted) -> bool {
        let null = matches!(&self.carrier, CarrierSlot::Json(slot) if *values.fields.get(*slot) == Value::Null);
        !null && !self.has_entry(inbound, values)
    }

    /// Whether all headers that it may be read from have the same value, so that an application that reads another one
    /// of them gets the same.
    pub fn headers_agree(&self, inbound: &Inbound) -> bool {
        let CarrierSlot::Header(names) = &self.carrier else { return true };
        let mut present = names.iter().filter_map(|name| inbound.headers().get(name));
        let first = present.next();
        present.all(|other| Some(other) == first)
    }

    /// Whether it has a value and, where it is an entry of a list, that entry.
    pub fn has_entry(&self, inbound: &Inbound, values: &Extracted) -> bool {
        match self.texts(inbound, values) {
            Ok(texts) => texts.is_some_and(|mut texts| texts.next().is_some()),
            Err(NotText) => true,
        }
    }

    /// The value as a text; `None` when it is absent.
    ///
    /// # Errors
    /// [`NotText`] when it is not one text: bytes beyond visible ASCII in a header, a key that occurs twice in the
    /// list, an array in the body, a field that occurs twice in the form.
    pub fn text<'r>(&'r self, inbound: &'r Inbound, values: &'r Extracted) -> Result<Option<&'r str>, NotText> {
        let Some(mut texts) = self.texts(inbound, values)? else { return Ok(None) };
        let text = texts.next();
        if texts.next().is_some() { Err(NotText) } else { Ok(text) }
    }

    /// The text in each item of a JSON array; `None` when there is no array, it is empty, or an item has no text.
    ///
    /// # Errors
    /// [`NotText`] when the value of an item is not a text.
    pub fn each<'r>(&self, values: &'r Extracted) -> Result<Option<Vec<&'r str>>, NotText> {
        let CarrierSlot::Json(slot) = &self.carrier else { return Ok(None) };
        let Value::Each(items) = values.fields.get(*slot) else { return Ok(None) };
        let text = |item: &'r Value| match item {
            Value::Absent | Value::Null => None,
            Value::Text(text) if text.is_empty() => None,
            Value::Text(text) => Some(std::str::from_utf8(text).map_err(|_bytes| NotText)),
            Value::Other | Value::Each(_) => Some(Err(NotText)),
        };
        if items.is_empty() { Ok(None) } else { items.iter().map(text).collect::<Option<_>>().transpose() }
    }

    /// All texts of the field: one for each value of its carrier, or for each list entry with its key in each value.
    /// `None` when the carrier has no value.
    ///
    /// # Errors
    /// [`NotText`] as for [`Self::text`].
    pub fn texts<'r>(&'r self, inbound: &'r Inbound, values: &'r Extracted) -> Result<Option<Texts<'r>>, NotText> {
        let (one, many) = self.carrier_values(inbound, values)?;
        let present = one.is_some() || !many.is_empty();
        Ok(present.then(|| Texts { item: self.item.as_ref(), list: None, one, many: many.into_iter() }))
    }

    /// The values of the carrier: at most one, without an allocation, or those of numbered headers and JSON arrays.
    fn carrier_values<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Extracted,
    ) -> Result<(Option<&'r str>, Vec<&'r str>), NotText> {
        match &self.carrier {
            CarrierSlot::Header(names) => {
                let value = names.iter().find_map(|name| inbound.headers().get(name));
                Ok((value.map(|value| value.to_str().map_err(|_bytes| NotText)).transpose()?, Vec::new()))
            }
            CarrierSlot::Numbered(name) => {
                let mut many = Vec::new();
                for name in (1..=MAX_NUMBERED).map_while(|number| numbered(name, number)) {
                    let Some(value) = inbound.headers().get(name) else { break };
                    many.push(value.to_str().map_err(|_bytes| NotText)?);
                }
                Ok((None, many))
            }
            CarrierSlot::Json(slot) => match values.fields.get(*slot) {
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
            CarrierSlot::Form(at) => Ok((form::value_at(&values.form, *at)?, Vec::new())),
            CarrierSlot::Query(at) => Ok((form::value_at(&values.query, *at)?, Vec::new())),
        }
    }
}

/// The texts of a field.
#[derive(Debug, Clone)]
pub struct Texts<'r> {
    item: Option<&'r Item>,
    /// The remaining entries of the current list.
    list: Option<std::str::Split<'r, char>>,
    one: Option<&'r str>,
    many: std::vec::IntoIter<&'r str>,
}

impl<'r> Iterator for Texts<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<&'r str> {
        loop {
            let next_value = |texts: &mut Self| texts.one.take().or_else(|| texts.many.next());
            let Some(item) = self.item else { return next_value(self) };
            if let Some(value) = self.list.as_mut().and_then(|list| list.find_map(|entry| item.value(entry))) {
                return Some(value);
            }
            self.list = Some(next_value(self)?.split(item.separator));
        }
    }
}

/// The header `NAME-1`, `NAME-2` and so on.
fn numbered(family: &HeaderName, number: usize) -> Option<HeaderName> {
    HeaderName::try_from(format!("{family}-{number}")).ok()
}
