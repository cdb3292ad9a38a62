//! Parameters that are left out of a query which is handed on.
//!
//! Parsers differ in what they take for one name. So a parameter goes as soon as any common parser could read one of the
//! names in it: those that split at `;` too, that ignore case (ASP.NET), that read `a[b]` as part of `a` (PHP, Rack, qs),
//! that turn blanks and dots into `_` or end a name at a zero byte (PHP).

use std::borrow::Cow;

use crate::form::Decoded;
use crate::profile::Credentials;
use crate::profile::Holder;

/// Names of parameters, each in the one form that all its spellings have.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Vec<Vec<u8>>);

impl Names {
    /// Those of which the profile reads a secret.
    pub(super) fn of_secrets(credentials: &Credentials) -> Self {
        let name = |place: &crate::profile::Place| match &place.holder {
            Holder::Query(name) => Some(common(name.bytes().collect())),
            Holder::Header(_) | Holder::Numbered(_) | Holder::Json(_) | Holder::Form(_) => None,
        };
        Self(credentials.places.iter().filter_map(name).collect())
    }

    /// Those of a query.
    pub(super) fn of_query(query: &str) -> Self {
        let all = query.split('&').flat_map(names).map(|name| common(Decoded::of(name.as_bytes()).text.into_owned()));
        Self(all.filter(|name| !name.is_empty()).collect())
    }

    /// The query without the parameters of these names; all others stay byte for byte.
    pub(super) fn left_out_of<'q>(&self, query: &'q str) -> Cow<'q, str> {
        let goes_on = |parameter: &&str| !self.is_in(parameter);
        if self.0.is_empty() || query.split('&').all(|parameter| goes_on(&parameter)) {
            return Cow::Borrowed(query);
        }
        Cow::Owned(query.split('&').filter(goes_on).collect::<Vec<_>>().join("&"))
    }

    fn is_in(&self, parameter: &str) -> bool {
        names(parameter).any(|name| {
            let name = Decoded::of(name.as_bytes());
            // Of one that cannot be decoded, some read more than others.
            !name.whole || self.0.contains(&common(name.text.into_owned()))
        })
    }
}

/// What may be names in what stands between two `&`.
fn names(parameter: &str) -> impl Iterator<Item = &str> {
    parameter.split(';').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
}

/// The form that all spellings of a name have which some parser takes for the same.
fn common(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().enumerate().position(|(at, byte)| *byte == 0 || *byte == b'[' && at > 0);
    name.truncate(end.unwrap_or(name.len()));
    let mut name = name.trim_ascii().to_ascii_lowercase();
    for byte in &mut name {
        if matches!(*byte, b' ' | b'.' | b'[') {
            *byte = b'_';
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_goes_in_whatever_spelling_a_parser_takes() {
        let own = Names::of_query("code=1&a.b;c+d=&e[]=2&&%66=3");
        for gone in [
            "code=x",
            "code",
            "CODE=x",
            "%63ode=x",
            "c%6Fd%45",
            "+code=x",
            "code+=x",
            "code%00z=x",
            "code[]=x",
            "code[a][b]=x",
            "code%5B%5D=x",
            "x=1;code=2",
            "x;code",
            "%u0063ode=x",
            "code%=x",
            "c%C1%AFde=x",
            "a.b=",
            "a_b=",
            "a%20b=",
            "c_d=",
            "c+d=",
            "e=1",
            "e[1]=1",
            "f=",
            "F",
        ] {
            assert_eq!(own.left_out_of(gone), "", "{gone}");
            assert_eq!(own.left_out_of(&format!("k=%20&{gone}&l+=%zz")), "k=%20&l+=%zz", "{gone}");
        }
        for kept in [
            "codes=x",
            "x=code",
            "xcode=1",
            "[code]=1",
            "x[code]=1",
            "x=;y=code",
            "c%2563ode=x",
            "na%C3%AFve=1",
            "g=%u0063",
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
