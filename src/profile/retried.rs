//! The statuses on which a provider retries: `["5xx", "429"]`, `["non-2xx", "not 406"]`, or `[]` for none.

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;

use super::deserialize;

/// The statuses on which a provider retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried(Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// `5xx` or `503`: it retries on these.
    These(Statuses),
    /// `non-2xx` or `non-200`: it retries on all others.
    Others(Statuses),
    /// `not 406`: it never retries on these; this overrides the other entries.
    Never(Statuses),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statuses {
    Class(u16),
    One(u16),
}

impl Statuses {
    fn contain(self, code: u16) -> bool {
        match self {
            Self::Class(class) => code / 100 == class,
            Self::One(status) => code == status,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix("xx") {
            Some(class) => class.parse().ok().filter(|class| (2..=5).contains(class)).map(Self::Class),
            None => text.parse().ok().filter(|status| (200..=599).contains(status)).map(Self::One),
        }
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, String> {
        let entry = if let Some(text) = text.strip_prefix("non-") {
            Statuses::parse(text).map(Self::Others)
        } else if let Some(text) = text.strip_prefix("not ") {
            Statuses::parse(text).map(Self::Never)
        } else {
            Statuses::parse(text).map(Self::These)
        };
        entry.ok_or_else(|| {
            format!("{text:?} names no answers; write \"5xx\", \"503\", \"non-2xx\", \"non-200\" or \"not 410\"")
        })
    }
}

impl Retried {
    /// Whether the provider retries on this status.
    pub fn contains(&self, code: u16) -> bool {
        let included = |entry: &Entry| match entry {
            Entry::These(statuses) => statuses.contain(code),
            Entry::Others(statuses) => !statuses.contain(code),
            Entry::Never(_) => false,
        };
        let excluded = |entry: &Entry| matches!(entry, Entry::Never(statuses) if statuses.contain(code));
        self.0.iter().any(included) && !self.0.iter().any(excluded)
    }

    /// Whether it retries on no status.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Retried {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let entries = deserialize::texts(input, "answers such as \"non-2xx\" or [\"5xx\", \"429\"]", Entry::parse)?;
        if !entries.is_empty() && entries.iter().all(|entry| matches!(entry, Entry::Never(_))) {
            return Err(D::Error::custom(
                "says only what is not tried again, of nothing; write [\"non-2xx\", \"not 410\"], or [] where nothing is",
            ));
        }
        Ok(Self(entries))
    }
}

impl std::fmt::Display for Retried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let statuses = |statuses: &Statuses| match statuses {
            Statuses::Class(class) => format!("{class}xx"),
            Statuses::One(status) => status.to_string(),
        };
        let entries = self.0.iter().map(|entry| match entry {
            Entry::These(these) => statuses(these),
            Entry::Others(others) => format!("non-{}", statuses(others)),
            Entry::Never(never) => format!("not {}", statuses(never)),
        });
        f.write_str(&entries.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retried(texts: &[&str]) -> Retried {
        Retried(texts.iter().map(|text| Entry::parse(text).expect("answers")).collect())
    }

    #[test]
    fn answers_are_classes_and_statuses_with_exceptions() {
        for (texts, yes, no) in [
            (&["5xx", "429"][..], &[500, 503, 599, 429][..], &[400, 200, 302][..]),
            (&["non-2xx"], &[301, 400, 503], &[200, 204]),
            (&["non-200"], &[204, 503], &[200]),
            (&["non-2xx", "not 406"], &[400, 503], &[200, 406]),
            (&["409", "503"], &[409, 503], &[500, 502]),
            (&[], &[], &[200, 500]),
        ] {
            let retried = retried(texts);
            assert_eq!(retried.to_string(), texts.join(", "));
            assert!(yes.iter().all(|code| retried.contains(*code)), "{texts:?}");
            assert!(!no.iter().any(|code| retried.contains(*code)), "{texts:?}");
        }
        for bad in ["", "xx", "1xx", "6xx", "50x", "600", "all", "non-", "not", "not  503"] {
            assert!(Entry::parse(bad).is_err(), "{bad:?}");
        }
    }
}
