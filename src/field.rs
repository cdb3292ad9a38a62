//! The places of a profile, made ready to be read from requests.

use std::borrow::Cow;

use http::HeaderName;

use crate::body::Inbound;
use crate::content_coding::looks_compressed;
use crate::json::Fields;
use crate::json::Malformed;
use crate::json::Pointers;
use crate::json::Slot;
use crate::json::Value;
use crate::params;
use crate::params::Params;
use crate::profile::Holder;
use crate::profile::Item;
use crate::profile::Place;

/// Most fields of a form or parameters of a query that are read.
const MAX_PAIRS: usize = 1000;

/// Everything that somebody wants to read from a request's body and query.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    pointers: Pointers,
    form: bool,
    /// Whether a body that looks like JSON is read as a form all the same.
    any_form: bool,
    query: bool,
    /// Whether a body that is not JSON at all is refused.
    pub json_only: bool,
    /// Whether a body that is no JSON is good enough.
    pub json_optional: bool,
}

/// What was read from one request for those who want it.
#[derive(Debug, Clone, Default)]
pub struct Values {
    fields: Fields,
    form: Pairs,
    query: Pairs,
}

/// Names with values, decoded, in their order.
type Pairs = Vec<(String, String)>;

impl Wants {
    /// Asks for all fields of a form, because they are signed.
    pub fn whole_form(&mut self) {
        self.any_form = true;
    }

    /// Whether the body may be read as a form.
    pub fn form(&self) -> bool {
        self.form || self.any_form
    }

    /// Whether the body has to be parsed as JSON for anybody.
    pub fn json(&self) -> bool {
        !self.pointers.is_empty()
    }

    /// Reads what can be had without parsing JSON.
    ///
    /// # Errors
    /// [`Malformed`] when a form or query would be read in two ways.
    pub fn read(&self, inbound: &Inbound) -> Result<Values, Malformed> {
        let form = self.any_form || self.form && !is_json(inbound.body());
        Ok(Values {
            fields: Fields::default(),
            form: if form { pairs(inbound.body())? } else { Pairs::new() },
            query: if self.query { pairs(inbound.query().unwrap_or_default().as_bytes())? } else { Pairs::new() },
        })
    }

    /// Parses the JSON body as well.
    ///
    /// # Errors
    /// [`Malformed`] when it is not strict JSON; a body that does not look like JSON may be something else where
    /// that is good enough, and not `needed`.
    pub fn read_json(&self, inbound: &Inbound, values: &mut Values, needed: bool) -> Result<(), Malformed> {
        // Its Content-Encoding, which nobody has signed, was taken away, or another one laid over it: it would be an event
        // without what stands in it.
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

impl Values {
    /// The fields of the form.
    pub fn form(&self) -> &[(String, String)] {
        &self.form
    }
}

/// Whether the body is meant to be a JSON object or array. What the sender says of its type is not signed, and decides
/// nothing.
fn is_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Reads `application/x-www-form-urlencoded`, where a percent sign is followed by two hexadecimal digits and the result
/// is UTF-8: in everything else parsers differ.
fn pairs(bytes: &[u8]) -> Result<Pairs, Malformed> {
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let percent = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    if percent.into_iter().any(|(at, _)| !(hex(at + 1) && hex(at + 2))) {
        return Err(Malformed::new("a percent sign in it is followed by something else than two hexadecimal digits"));
    }
    let mut pairs = Pairs::new();
    for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(MAX_PAIRS + 1) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut half = || decoded(halves.next().unwrap_or_default());
        pairs.push((half()?, half()?));
    }
    if pairs.len() > MAX_PAIRS {
        return Err(Malformed::new("it has too many fields"));
    }
    Ok(pairs)
}

/// A name or value of a form as text.
fn decoded(text: &[u8]) -> Result<String, Malformed> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let escaped = match Cow::from(percent_encoding::percent_decode(&spaced)) {
        Cow::Owned(bytes) => Some(bytes),
        Cow::Borrowed(_) => None,
    };
    String::from_utf8(escaped.unwrap_or(spaced)).map_err(|_bad| Malformed::new("its text is not UTF-8"))
}

/// Where to read one text.
#[derive(Debug, Clone)]
pub struct Field {
    holder: Ready,
    item: Option<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ready {
    Header(Vec<HeaderName>),
    Numbered(HeaderName),
    Json(Slot),
    Form(String),
    Query(String),
}

/// What stands there is not one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText;

/// Most headers of a numbered family that are read.
const MAX_NUMBERED: usize = 100;

impl Field {
    /// Makes a place ready, and asks for what it reads.
    pub fn new(place: &Place, wants: &mut Wants) -> Self {
        let holder = match &place.holder {
            Holder::Header(names) => Ready::Header(names.clone()),
            Holder::Numbered(name) => Ready::Numbered(name.clone()),
            Holder::Json(pointer) => Ready::Json(wants.pointers.want(pointer)),
            Holder::Form(field) => {
                wants.form = true;
                Ready::Form(field.clone())
            }
            Holder::Query(name) => {
                wants.query = true;
                Ready::Query(name.clone())
            }
        };
        Self { holder, item: place.item.clone() }
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
    pub fn shares_holder(&self, other: &Self) -> bool {
        self.holder == other.holder
    }

    /// The same list, another entry.
    #[must_use]
    pub fn with_item(&self, key: &str) -> Self {
        let item = self.item.as_ref().map(|item| Item { key: key.to_owned(), ..item.clone() });
        Self { holder: self.holder.clone(), item }
    }

    /// Whether the body has to be parsed as JSON before this can be read.
    pub fn is_json(&self) -> bool {
        matches!(self.holder, Ready::Json(_))
    }

    /// The headers of which each must not be there twice.
    pub fn headers(&self) -> Vec<HeaderName> {
        match &self.holder {
            Ready::Header(names) => names.clone(),
            Ready::Numbered(name) => vec![numbered(name, 1)].into_iter().flatten().collect(),
            Ready::Json(_) | Ready::Form(_) | Ready::Query(_) => Vec::new(),
        }
    }

    /// Whether anything stands there, text or not, with the entry or without.
    pub fn is_there(&self, inbound: &Inbound, values: &Values) -> bool {
        !matches!(self.wholes(inbound, values), Ok((None, many)) if many.is_empty())
    }

    /// Whether nothing stands there, not even `null`, or not the entry that is looked for.
    pub fn is_absent(&self, inbound: &Inbound, values: &Values) -> bool {
        let null = matches!(&self.holder, Ready::Json(slot) if *values.fields.get(*slot) == Value::Null);
        !null && !self.has_entry(inbound, values)
    }

    /// Whether all headers that it may be read from say the same, so that whoever reads another one finds no other value.
    pub fn agrees(&self, inbound: &Inbound) -> bool {
        let Ready::Header(names) = &self.holder else { return true };
        let mut there = names.iter().filter_map(|name| inbound.headers().get(name));
        let first = there.next();
        there.all(|other| Some(other) == first)
    }

    /// Whether what stands there has the entry that is looked for.
    pub fn has_entry(&self, inbound: &Inbound, values: &Values) -> bool {
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
    pub fn text<'r>(&'r self, inbound: &'r Inbound, values: &'r Values) -> Result<Option<&'r str>, NotText> {
        let Some(mut texts) = self.texts(inbound, values)? else { return Ok(None) };
        let text = texts.next();
        if texts.next().is_some() { Err(NotText) } else { Ok(text) }
    }

    /// Every text that stands there: the one, or each value of the list's key, of each header or item; `None` when there
    /// is nothing at all.
    ///
    /// # Errors
    /// [`NotText`] as for [`Self::text`].
    pub fn texts<'r>(&'r self, inbound: &'r Inbound, values: &'r Values) -> Result<Option<Texts<'r>>, NotText> {
        let (one, many) = self.wholes(inbound, values)?;
        let there = one.is_some() || !many.is_empty();
        Ok(there.then(|| Texts { item: self.item.as_ref(), list: None, one, many: many.into_iter() }))
    }

    /// The values that the holder holds, in most cases at most one.
    fn wholes<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Values,
    ) -> Result<(Option<&'r str>, Vec<&'r str>), NotText> {
        match &self.holder {
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
            Ready::Form(name) => Ok((only(&values.form, name)?, Vec::new())),
            Ready::Query(name) => Ok((only(&values.query, name)?, Vec::new())),
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

/// The value of the pair with this name, of which there may be one.
fn only<'p>(pairs: &'p [(String, String)], name: &str) -> Result<Option<&'p str>, NotText> {
    let mut values = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let value = values.next();
    if values.next().is_some() { Err(NotText) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_every_parser_reads_them() {
        for text in ["", "a=1&b=2", "&&a&", "a==b&=&=c", "a+b=c%2Bd+%20", "%C3%A9=%26%3d&\u{e9}=\u{1f600}", "a=1&a=2"] {
            let expected: Pairs = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            assert_eq!(pairs(text.as_bytes()).expect(text), expected, "{text}");
        }
        for bad in
            [&b"a=%"[..], b"a=%4", b"a=%4&1", b"%zz=1", b"a=%C3", b"%C3&%A9", b"a=%C3=%A9", b"a=\xff", b"\xc3&\xa9"]
        {
            assert!(pairs(bad).is_err(), "{}", bad.escape_ascii());
        }
        let many = |count| "a&".repeat(count);
        assert!(pairs(many(MAX_PAIRS).as_bytes()).is_ok() && pairs(many(MAX_PAIRS + 1).as_bytes()).is_err());
    }
}
