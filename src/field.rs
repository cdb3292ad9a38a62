//! A place of a profile, made ready to be read from requests.

use http::HeaderMap;
use http::HeaderName;

use crate::json::Fields;
use crate::json::Pointers;
use crate::json::Slot;
use crate::json::Value;
use crate::profile::Item;
use crate::profile::Place;

/// Where to read one text.
#[derive(Debug, Clone)]
pub enum Field {
    /// A header, or an item of the list in it.
    Header(HeaderName, Option<Item>),
    /// A value of the JSON body.
    Json(Slot),
}

/// What stands there is not one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText;

impl Field {
    /// Makes a place ready; a JSON pointer joins those that are wanted of the body.
    pub fn new(place: &Place, pointers: &mut Pointers) -> Self {
        match place {
            Place::Header(header) => Self::Header(header.name.clone(), header.item.clone()),
            Place::Json(pointer) => Self::Json(pointers.want(pointer)),
        }
    }

    /// Whether the body has to be parsed before this can be read.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::Json(_))
    }

    /// The header that must not be there twice.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name, _) => Some(name),
            Self::Json(_) => None,
        }
    }

    /// Whether anything stands there, text or not.
    pub fn is_there(&self, headers: &HeaderMap, fields: &Fields) -> bool {
        match self {
            Self::Header(name, _) => headers.contains_key(name),
            Self::Json(slot) => !matches!(fields.get(*slot), Value::Absent),
        }
    }

    /// The text; `None` when there is none.
    ///
    /// # Errors
    /// [`NotText`] when it is something else: bytes beyond visible ASCII in a header, a key that the list has twice, an
    /// array in the body.
    pub fn text<'r>(&'r self, headers: &'r HeaderMap, fields: &'r Fields) -> Result<Option<&'r str>, NotText> {
        match self {
            Self::Header(_, Some(item)) => {
                let Some(list) = self.whole(headers, fields)? else { return Ok(None) };
                let mut values = item.values(list);
                let value = values.next();
                if values.next().is_some() { Err(NotText) } else { Ok(value) }
            }
            Self::Header(_, None) | Self::Json(_) => self.whole(headers, fields),
        }
    }

    /// Every text that stands there: the one, or each value of the list's key; `None` when there is nothing at all.
    ///
    /// # Errors
    /// [`NotText`] as for [`Self::text`].
    pub fn texts<'r>(
        &'r self,
        headers: &'r HeaderMap,
        fields: &'r Fields,
    ) -> Result<Option<impl Iterator<Item = &'r str> + Clone>, NotText> {
        let item = match self {
            Self::Header(_, item) => item.as_ref(),
            Self::Json(_) => None,
        };
        Ok(self.whole(headers, fields)?.map(|whole| {
            let alone = item.is_none().then_some(whole);
            alone.into_iter().chain(item.map(|item| item.values(whole)).into_iter().flatten())
        }))
    }

    fn whole<'r>(&self, headers: &'r HeaderMap, fields: &'r Fields) -> Result<Option<&'r str>, NotText> {
        match self {
            Self::Header(name, _) => {
                headers.get(name).map(|value| value.to_str().map_err(|_bytes| NotText)).transpose()
            }
            Self::Json(slot) => match fields.get(*slot) {
                Value::Absent => Ok(None),
                Value::Text(text) => std::str::from_utf8(text).map(Some).map_err(|_bytes| NotText),
                Value::Other => Err(NotText),
            },
        }
    }
}
