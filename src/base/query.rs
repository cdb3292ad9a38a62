//! Removes parameters by name, such as credentials, from a query that is passed on.
//!
//! Parsers differ in which names they treat as equal. So a parameter is removed if any common parser could read one of
//! the names in it. Some parsers split at `;` too, ignore case (ASP.NET), read `a[b]` as part of `a` (PHP, Rack, qs)
//! and `[a]` as `a` (Rack, qs), replace blanks, dots and an unclosed bracket by `_`, or end a name at a zero byte
//! (PHP).

use std::borrow::Cow;

use crate::base::form::Decoded;

/// Names of parameters, each in its two normal forms.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<Vec<u8>>);

impl Names {
    /// The names of all parameters of a query.
    pub fn of_query(query: &str) -> Self {
        Self::new(query.split('&').flat_map(names_in).map(|name| Decoded::decode(name.as_bytes()).text.into_owned()))
    }

    /// These names, already decoded.
    pub fn new(names: impl Iterator<Item = Vec<u8>>) -> Self {
        Self(names.flat_map(normal_forms).filter(|name| !name.is_empty()).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The query without the parameters of these names; all others stay byte for byte.
    pub fn remove_from<'q>(&self, query: &'q str) -> Cow<'q, str> {
        let is_kept = |parameter: &&str| !self.may_name(parameter);
        if self.is_empty() || query.split('&').all(|parameter| is_kept(&parameter)) {
            return Cow::Borrowed(query);
        }
        Cow::Owned(query.split('&').filter(is_kept).collect::<Vec<_>>().join("&"))
    }

    /// Whether some parser may read one of these names in the parameter.
    fn may_name(&self, parameter: &str) -> bool {
        names_in(parameter).any(|name| {
            let name = Decoded::decode(name.as_bytes());
            // Parsers read different names where one cannot be decoded.
            !name.complete || normal_forms(name.text.into_owned()).iter().any(|form| self.0.contains(form))
        })
    }
}

/// The names that a parser may read between two `&`, where some also split at `;`.
fn names_in(parameter: &str) -> impl Iterator<Item = &str> {
    parameter.split(';').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
}

/// The two normal forms of a name: its first part before or in brackets, and all of it. Two names that some parser
/// treats as equal share a normal form.
fn normal_forms(mut name: Vec<u8>) -> [Vec<u8>; 2] {
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
            assert_eq!(own.remove_from(gone), "", "{gone}");
            assert_eq!(own.remove_from(&format!("k=%20&{gone}&l+=%zz")), "k=%20&l+=%zz", "{gone}");
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
            assert_eq!(own.remove_from(kept), kept);
        }
    }

    #[test]
    fn a_query_of_which_nothing_goes_stays_as_it_is() {
        for query in ["", "&", "a=1&&b", "a;b=%zz&%", "code=1"] {
            assert!(matches!(Names::default().remove_from(query), Cow::Borrowed(same) if same == query), "{query}");
        }
        assert_eq!(Names::of_query("x").remove_from("&&a=+%2b&"), "&&a=+%2b&");
    }
}
