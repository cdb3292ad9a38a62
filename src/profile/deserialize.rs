//! Deserializers that parse a value while `toml` knows its position, so that an error has the position even in a list;
//! and error messages for the author of a profile.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use crate::base::problem::closest;

/// Parses a text, or returns an error message.
type Parser<T> = fn(&str) -> Result<T, String>;

/// Deserializes a text.
pub(super) fn text<'de, D: Deserializer<'de>, T>(
    input: D,
    expecting: &'static str,
    parse: Parser<T>,
) -> Result<T, D::Error> {
    input.deserialize_str(Text { expecting, parse })
}

struct Text<T> {
    expecting: &'static str,
    parse: Parser<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

impl<'de, T> serde::de::DeserializeSeed<'de> for Text<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<T, D::Error> {
        input.deserialize_str(self)
    }
}

/// Deserializes one text or a list of texts.
pub(super) fn texts<'de, D: Deserializer<'de>, T>(
    input: D,
    expecting: &'static str,
    parse: Parser<T>,
) -> Result<Vec<T>, D::Error> {
    input.deserialize_any(Texts { expecting, parse })
}

struct Texts<T> {
    expecting: &'static str,
    parse: Parser<T>,
}

impl<'de, T> Visitor<'de> for Texts<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        (self.parse)(text).map(|value| vec![value]).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element_seed(Text { expecting: "a text", parse: self.parse })? {
            all.push(one);
        }
        Ok(all)
    }
}

/// Deserializes one text or a list of texts, without parsing them.
pub(super) fn strings<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    texts(input, "a text, or a list of texts", |text| Ok(text.to_owned()))
}

/// Deserializes a whole number within a range.
pub(super) fn number<'de, D: Deserializer<'de>>(input: D, range: RangeInclusive<i64>) -> Result<i64, D::Error> {
    input.deserialize_i64(Number(range))
}

struct Number(RangeInclusive<i64>);

impl Visitor<'_> for Number {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
        if self.0.contains(&number) {
            return Ok(number);
        }
        Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self))
    }
}

/// Deserializes a table as a `T`, and converts it to a `U`.
pub(super) fn table<'de, D, T, U>(input: D, expecting: &'static str) -> Result<U, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    U: TryFrom<T, Error = String>,
{
    input.deserialize_map(Table { expecting, becomes: PhantomData::<(T, U)> })
}

struct Table<T, U> {
    expecting: &'static str,
    becomes: PhantomData<(T, U)>,
}

impl<'de, T: Deserialize<'de>, U: TryFrom<T, Error = String>> Visitor<'de> for Table<T, U> {
    type Value = U;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<U, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))?.try_into().map_err(A::Error::custom)
    }
}

/// Implements `Deserialize` for a type by way of the type of its table, while `toml` knows the position.
macro_rules! deserialize_as {
    ($type:ty, $table:ty, $expecting:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                $crate::profile::deserialize::table::<D, $table, Self>(input, $expecting)
            }
        }
    };
}
pub(super) use deserialize_as;

/// An error of `toml`, with a hint and an excerpt of the file.
pub(super) fn describe_error(text: &str, error: &toml::de::Error) -> String {
    with_excerpt(text, error.span().unwrap_or_default(), &with_hint(error.message()))
}

/// Keys that may be missing, each with an example of what to write.
const EXAMPLES: &[(&str, &str)] = &[
    ("title", "title = \"…\", the provider's name"),
    ("about", "about = \"…\", for whoever has to fill it in"),
    ("auth", "a table [auth.hmac], [auth.ed25519], [auth.ecdsa], [auth.rsa], [auth.token], [auth.basic] or [auth.jwt]"),
    ("event", "[event] and id = { json = \"/id\" }"),
    ("id", "id = { json = \"/id\" }"),
    ("signature", "signature = { header = \"X-Signature\", encoding = \"hex\" }"),
    ("signed", "signed = \"{body}\""),
    ("from", "from = { header = \"X-Name\" }"),
    ("format", "format = \"unix\""),
    ("algorithm", "algorithm = \"RS256\""),
    ("claim", "claim = \"…\", the name of the claim"),
    ("encoding", "encoding = \"hex\", \"base64\" or \"base64url\""),
];

/// A message of `toml` with the closest valid name or an example, and with the terms of TOML instead of those of serde.
fn with_hint(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    if let Some(near) = names.next().filter(|_| unknown).and_then(|written| closest(written, names)) {
        return format!("{message}; did you mean `{near}`?");
    }
    if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let example = EXAMPLES.iter().find(|(name, _)| *name == missing);
        return example.map_or_else(|| message.to_owned(), |(_, example)| format!("{message}; write {example}"));
    }
    match message.rsplit_once(", expected ") {
        Some((found, "a sequence")) => format!("{found}, expected a list, [ … ]"),
        Some((found, "a map")) => format!("{found}, expected a table, {{ … }}"),
        _ => message.to_owned(),
    }
}

/// A message after the line that it is about, with carets under the range.
pub(super) fn with_excerpt(text: &str, location: Range<usize>, message: &str) -> String {
    let before = text.get(..location.start).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let blanks = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let marked = text.get(location).and_then(|marked| marked.lines().next()).map_or(0, |marked| marked.chars().count());
    let carets = "^".repeat(marked.max(1));
    let margin = " ".repeat(number.to_string().len());
    format!(
        "line {number}, column {}\n{margin} |\n{number} | {line}\n{margin} | {}{carets}\n{message}\n",
        blanks + 1,
        " ".repeat(blanks)
    )
}
