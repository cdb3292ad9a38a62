//! Parses `application/x-www-form-urlencoded`, in bodies and in queries: either the values of some names, ignoring
//! errors in the other pairs, or all pairs. At most 1000 pairs.

use std::borrow::Cow;

use crate::base::json::Malformed;

/// The most fields of a form, or parameters of a query, that are read. Many parsers have a limit like this.
pub const MAX_PAIRS: usize = 1000;

/// The value is not one text: its name occurs twice, or it cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText;

/// The value of a wanted name; `None` when the name does not occur.
pub type FormValue = Result<Option<String>, NotText>;

/// The names whose values are wanted.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// Adds a name. Returns the index of its value in what [`Self::read`] returns; the same name has the same index.
    pub fn add(&mut self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of each name. It is [`NotText`] when the name occurs twice, the value cannot be decoded, another name
    /// cannot be decoded and some parser could read it as this one, or there are more than [`MAX_PAIRS`] pairs.
    pub fn read(&self, text: &[u8]) -> Vec<FormValue> {
        if self.0.is_empty() || text.is_empty() {
            return Vec::new();
        }
        let mut all: Vec<FormValue> = vec![Ok(None); self.0.len()];
        for (count, (name, value)) in pairs(text).enumerate() {
            let name = Decoded::decode(name);
            for (wanted, value_of) in self.0.iter().zip(&mut all) {
                if count >= MAX_PAIRS {
                    *value_of = Err(NotText);
                } else if name.may_match(wanted) {
                    *value_of = match value_of {
                        Ok(None) if name.complete => Decoded::decode(value).text().map(Some).ok_or(NotText),
                        _ => Err(NotText),
                    };
                }
            }
            if count >= MAX_PAIRS {
                break;
            }
        }
        all
    }
}

/// The value at the index that [`Names::add`] returned; `None` when the name does not occur.
///
/// # Errors
/// [`NotText`] as for [`Names::read`].
pub fn value_at(all: &[FormValue], at: usize) -> Result<Option<&str>, NotText> {
    match all.get(at) {
        Some(Ok(value)) => Ok(value.as_deref()),
        Some(Err(NotText)) => Err(NotText),
        None => Ok(None),
    }
}

/// Reads all pairs: names with values, decoded, in their order.
///
/// # Errors
/// [`Malformed`] where parsers differ: a percent sign is not followed by two hexadecimal digits, the text is not UTF-8,
/// or there are more than [`MAX_PAIRS`] pairs.
pub fn read_all(text: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut all = Vec::new();
    for (name, value) in pairs(text) {
        if all.len() == MAX_PAIRS {
            return Err(Malformed::new(format!("the form has more than {MAX_PAIRS} fields")));
        }
        let decoded = |part: &[u8]| {
            Decoded::decode(part).text().ok_or_else(|| {
                let number = all.len() + 1;
                Malformed::new(format!(
                    "field {number} of the form: a percent sign is not followed by two hexadecimal digits, or the text is not \
                     UTF-8"
                ))
            })
        };
        let pair = (decoded(name)?, decoded(value)?);
        all.push(pair);
    }
    Ok(all)
}

/// Names and values, not decoded. Empty pairs are skipped.
fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        (halves.next().unwrap_or_default(), halves.next().unwrap_or_default())
    })
}

/// The part of a name or value that can be decoded: up to the first percent sign that is not followed by two
/// hexadecimal digits, and up to the first byte that is not UTF-8.
#[derive(Debug)]
pub(crate) struct Decoded<'t> {
    pub(crate) text: Cow<'t, [u8]>,
    /// Whether `text` is all of it, so that every parser decodes it alike.
    pub(crate) complete: bool,
}

impl<'t> Decoded<'t> {
    pub(crate) fn decode(written: &'t [u8]) -> Self {
        if written.iter().all(|byte| byte.is_ascii() && !matches!(byte, b'%' | b'+')) {
            return Self { text: Cow::Borrowed(written), complete: true };
        }
        let hex = |at: usize| written.get(at).is_some_and(u8::is_ascii_hexdigit);
        let bad = |(at, byte): &(usize, &u8)| **byte == b'%' && !(hex(at + 1) && hex(at + 2));
        let end = written.iter().enumerate().find(bad).map_or(written.len(), |(at, _)| at);
        let spaced: Vec<u8> = written.iter().take(end).map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        let mut text: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
        let utf8 = std::str::from_utf8(&text).map_or_else(|bad| bad.valid_up_to(), str::len);
        let complete = end == written.len() && utf8 == text.len();
        text.truncate(utf8);
        Self { text: Cow::Owned(text), complete }
    }

    /// Whether some parser may read this name as `name`. Parsers differ on what follows the first error: they keep it,
    /// drop it, or decode extensions such as `%u0061`. So a name with an error matches all that begin like it.
    fn may_match(&self, name: &str) -> bool {
        if self.complete { *self.text == *name.as_bytes() } else { name.as_bytes().starts_with(&self.text) }
    }

    fn text(self) -> Option<String> {
        String::from_utf8(self.text.into_owned()).ok().filter(|_| self.complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_every_parser_reads_them() {
        for text in ["", "a=1&b=2", "&&a&", "a==b&=&=c", "a+b=c%2Bd+%20", "%C3%A9=%26%3d&\u{e9}=\u{1f600}", "a=1&a=2"] {
            let expected: Vec<_> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            assert_eq!(read_all(text.as_bytes()).expect(text), expected, "{text}");
            for (name, _) in &expected {
                let values: Vec<_> = expected.iter().filter(|(known, _)| known == name).collect();
                let only = if let [(_, value)] = values.as_slice() { Ok(Some(value.clone())) } else { Err(NotText) };
                assert_eq!(read(name, text), only, "{text}");
            }
        }
        for bad in
            [&b"a=%"[..], b"a=%4", b"a=%4&1", b"%zz=1", b"a=%C3", b"%C3&%A9", b"a=%C3=%A9", b"a=\xff", b"\xc3&\xa9"]
        {
            assert!(read_all(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(read_all("a&".repeat(MAX_PAIRS).as_bytes()).is_ok());
        let many = read_all("a&".repeat(MAX_PAIRS + 1).as_bytes()).expect_err("too many");
        assert_eq!(many.to_string(), "the form has more than 1000 fields");
        let wrong = read_all(b"a=1&b=100%&c=1").expect_err("a percent sign");
        assert!(wrong.to_string().starts_with("field 2 of the form: a percent sign"), "{wrong}");
    }

    #[test]
    fn only_wanted_values_are_judged() {
        for text in ["code=x", "a=100%&code=x", "code=x&a=%zz&a=%", "100%&code=x", "a=%C3&code=x&d%=1", "%63od%65=x"] {
            assert_eq!(read("code", text), Ok(Some("x".to_owned())), "{text}");
        }
        for text in ["", "a=1", "codes=1", "Code=1", "a=code=x", "50%code=x"] {
            assert_eq!(read("code", text), Ok(None), "{text}");
        }
        for text in ["code=x&code=x", "code=x&%63ode=y", "code=%", "code=%C3", "code&code", "code=%zz"] {
            assert_eq!(read("code", text), Err(NotText), "{text}");
        }
        assert_eq!(value_at(&Names(vec!["code".to_owned()]).read(b"code=\xff"), 0), Err(NotText));
    }

    #[test]
    fn a_name_that_some_take_for_the_wanted_one_is_one_too_many() {
        for other in ["%u0063ode", "co%u0064e", "c%ode", "cod%e", "code%", "%zz", "code%zz", "co%ffde", "%C3code"] {
            for text in [format!("{other}=y&code=x"), format!("code=x&{other}=y"), format!("{other}=y")] {
                assert_eq!(read("code", &text), Err(NotText), "{text}");
            }
        }
    }

    #[test]
    fn as_many_fields_are_read_as_parsers_read() {
        let many = |count: usize| format!("code=x{}", "&a".repeat(count - 1));
        assert_eq!(read("code", &many(MAX_PAIRS)), Ok(Some("x".to_owned())));
        assert_eq!(read("code", &many(MAX_PAIRS + 1)), Err(NotText));
    }

    fn read(name: &str, text: &str) -> FormValue {
        let mut names = Names::default();
        let at = names.add(name);
        value_at(&names.read(text.as_bytes()), at).map(|value| value.map(str::to_owned))
    }
}
