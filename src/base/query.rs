//! Removes parameters by name, such as credentials, from a query that is passed on.
//!
//! Parsers differ in what they take for the same name. So a parameter is removed as soon as any common parser could
//! read one of the names in it: those that split at `;` too, that ignore case (ASP.NET), that read `a[b]` as part of
//! `a` (PHP, Rack, qs) and `[a]` as `a` (Rack, qs), that turn blanks, dots and an unclosed bracket into `_` or end a
//! name at a zero byte (PHP).

use std::borrow::Cow;

use crate::base::form::Decoded;

/// Names of parameters, each in the forms of which every spelling has one.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<Vec<u8>>);

impl Names {
    /// The names of all parameters of a query.
    pub fn of_query(query: &str) -> Self {
        Self::new(query.split('&').flat_map(names).map(|name| Decoded::of(name.as_bytes()).text.into_owned()))
    }

    /// These names, which are decoded already.
    pub fn new(names: impl Iterator<Item = Vec<u8>>) -> Self {
        Self(names.flat_map(forms).filter(|name| !name.is_empty()).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The query without the parameters of these names; all others stay byte for byte.
    pub fn left_out_of<'q>(&self, query: &'q str) -> Cow<'q, str> {
        let goes_on = |parameter: &&str| !self.is_in(parameter);
        if self.is_empty() || query.split('&').all(|parameter| goes_on(&parameter)) {
            return Cow::Borrowed(query);
        }
        Cow::Owned(query.split('&').filter(goes_on).collect::<Vec<_>>().join("&"))
    }

    fn is_in(&self, parameter: &str) -> bool {
        names(parameter).any(|name| {
            let name = Decoded::of(name.as_bytes());
            // Of one that cannot be decoded, some read more than others.
            !name.whole || forms(name.text.into_owned()).iter().any(|form| self.0.contains(form))
        })
    }
}

/// What may be names in what stands between two `&`.
fn names(parameter: &str) -> impl Iterator<Item = &str> {
    parameter.split(';').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
}

/// The forms of a name: what stands before or in its first brackets, and all of it. Of two names that some parser takes
/// for the same, one form is the same.
fn forms(mut name: Vec<u8>) -> [Vec<u8>; 2] {
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    let bracket = |byte: &u8| matches!(byte, b'[' | b']');
    let part = name.split(bracket).find(|part| !part.is_empty()).unwrap_or_default();
    [part, &name].map(|name| {
        let mut name = name.trim_ascii().to_ascii_lowercase();
        for byte in &mut name {
            if matches!(*byte, b' ' | b'.' | b'[') {
                *byte = b'_';
            }
        }
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_goes_in_whatever_spelling_a_parser_takes() {
        let own = Names::of_query("code=1&a.b;c+d=&e[]=2&&%66=3&[g]=4");
        let all = "code=x code CODE=x %63ode=x c%6Fd%45 +code=x code+=x code%00z=x code[]=x code[a][b]=x \
                   code%5B%5D=x [code]=x %5bcode]=x ]code=x code]=x [code x=1;code=2 x;code %u0063ode=x code%=x \
                   c%C1%AFde=x a.b= a_b= a%20b= a[b= c_d= c+d= e=1 e[1]=1 f= F g=1";
        for gone in all.split(' ') {
            assert_eq!(own.left_out_of(gone), "", "{gone}");
            assert_eq!(own.left_out_of(&format!("k=%20&{gone}&l+=%zz")), "k=%20&l+=%zz", "{gone}");
        }
        for kept in [
            "codes=x",
            "x=code",
            "xcode=1",
            "x[code]=1",
            "x=;y=code",
            "c%2563ode=x",
            "na%C3%AFve=1",
            "h=%u0063",
            "h[]=1",
            "[]=code",
        ] {
            assert_eq!(own.left_out_of(kept), kept);
        }
    }

    #[test]
    fn a_query_of_which_nothing_goes_stays_as_it_is() {
        for query in ["", "&", "a=1&&b", "a;b=%zz&%", "code=1"] {
            assert!(matches!(Names::default().left_out_of(query), Cow::Borrowed(same) if same == query), "{query}");
        }
        assert_eq!(Names::of_query("x").left_out_of("&&a=+%2b&"), "&&a=+%2b&");
    }
}
