//! Reads tables of the configuration key by key, and reports missing, wrong and unknown keys with the place where they
//! are set.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use config::Map;
use config::Value;
use config::ValueKind;

use super::files::Files;
use super::fingerprint::Fingerprint;
use super::fingerprint::Fingerprinting;
use super::layers::Layers;
use super::layers::strings;
use crate::base::problem::Problem;
use crate::base::problem::Problems;
use crate::base::problem::Severity;
use crate::base::problem::closest;

/// A table of the configuration. Records the keys that are read, so that [`Section::finish`] reports the others.
pub(super) struct Section<'l> {
    key: String,
    table: &'l Map<String, Value>,
    known: BTreeSet<&'static str>,
    report: &'l Report<'l>,
}

/// Collects problems, and reads the files that values name.
pub(super) struct Report<'l> {
    layers: &'l Layers,
    files: &'l Files,
    problems: RefCell<Problems>,
}

impl<'l> Report<'l> {
    pub(super) fn new(layers: &'l Layers, files: &'l Files) -> Self {
        Self { layers, files, problems: RefCell::default() }
    }

    /// What reads files.
    pub(super) fn files(&self) -> &'l Files {
        self.files
    }

    pub(super) fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }

    /// Lets code that does not know the layers report problems.
    pub(super) fn with<T>(&self, report: impl FnOnce(&mut Problems) -> T) -> T {
        report(&mut self.problems.borrow_mut())
    }

    fn push(&self, severity: Severity, origin: Option<&str>, key: &str, message: impl Into<String>) {
        let place = self.layers.place(origin, key);
        let (key, message) = (key.to_owned(), message.into());
        self.with(|problems| problems.push(Problem { severity, place, key, message }));
    }
}

impl<'l> Section<'l> {
    /// The whole configuration.
    pub(super) fn root(table: &'l Map<String, Value>, report: &'l Report<'l>) -> Self {
        Self { key: String::new(), table, known: BTreeSet::new(), report }
    }

    /// The table at `key`; a missing one is a problem.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        if !self.table.contains_key(key) {
            self.known.insert(key);
            self.report.push(Severity::Error, None, &self.path(key), "is missing");
        }
        self.subsection(key)
    }

    /// The table at `key`, if there is one.
    pub(super) fn subsection(&mut self, key: &'static str) -> Option<Self> {
        self.known.insert(key);
        let value = self.table.get(key)?;
        self.table_of(key, value)
    }

    /// Every entry as a table with its name.
    pub(super) fn subsections(&self) -> Vec<(&'l str, Self)> {
        let mut sections: Vec<_> =
            self.table.iter().filter_map(|(name, value)| Some((name.as_str(), self.table_of(name, value)?))).collect();
        // For a stable order of problems.
        sections.sort_by_key(|(name, _)| *name);
        sections
    }

    /// The tables of the list at `key`, if there is one.
    pub(super) fn tables(&mut self, key: &'static str) -> Option<Vec<Self>> {
        self.known.insert(key);
        let value = self.table.get(key)?;
        let ValueKind::Array(values) = &value.kind else {
            self.error(key, "is not a list of tables such as [{ … }, { … }]");
            return None;
        };
        values.iter().map(|value| self.table_of(key, value)).collect()
    }

    fn table_of(&self, key: &str, value: &'l Value) -> Option<Self> {
        let key = self.path(key);
        let ValueKind::Table(table) = &value.kind else {
            self.report.push(Severity::Error, value.origin(), &key, "is not a table of keys and values");
            return None;
        };
        Some(Self { key, table, known: BTreeSet::new(), report: self.report })
    }

    /// Every entry as a text with its name.
    pub(super) fn texts(self) -> Vec<(&'l str, String)> {
        let text = |(name, value): (&'l String, &'l Value)| Some((name.as_str(), self.text(name, value)?));
        let mut texts: Vec<_> = self.table.iter().filter_map(text).collect();
        // As in `subsections`.
        texts.sort_by_key(|(name, _)| *name);
        texts
    }

    /// The value at `key`, parsed by `parse`; a missing one is a problem.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.insert(key);
            self.report.push(Severity::Error, None, &self.path(key), "is missing");
        }
        self.optional(key, parse)
    }

    /// The value at `key`, parsed by `parse`, if there is one.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.known.insert(key);
        let value = self.table.get(key)?;
        let text = self.text(key, value)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(message) => {
                self.report.push(Severity::Error, value.origin(), &self.path(key), message);
                None
            }
        }
    }

    /// Whether there is a table at `key`.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| matches!(value.kind, ValueKind::Table(_)))
    }

    /// The values of the list at `key`, each parsed by `parse`. A text is a list separated by commas, as in environment
    /// variables.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.known.insert(key);
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let texts: Vec<String> = if let ValueKind::Array(values) = &value.kind {
            values.iter().filter_map(|value| self.text(key, value)).collect()
        } else if let ValueKind::String(_) = &value.kind {
            strings(Some(value))
        } else {
            self.report.push(Severity::Error, value.origin(), &self.path(key), "is not a list such as [\"…\", \"…\"]");
            Vec::new()
        };
        let parsed = texts.iter().filter_map(|text| match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(message) => {
                self.report.push(Severity::Error, value.origin(), &self.path(key), message);
                None
            }
        });
        parsed.collect()
    }

    /// What reads files.
    pub(super) fn files(&self) -> &'l Files {
        self.report.files()
    }

    /// Adds all that is in the table to a fingerprint.
    pub(super) fn fingerprint(&self, so_far: Fingerprinting) -> Fingerprinting {
        so_far.table(self.table)
    }

    /// The keys of the table at `table`, with fingerprints of what they are set to.
    pub(super) fn fingerprints(&self, table: &str) -> Vec<(String, Fingerprint)> {
        let Some(ValueKind::Table(entries)) = self.table.get(table).map(|value| &value.kind) else { return Vec::new() };
        let entry = |(name, value): (&String, &Value)| {
            (format!("{table}.{name}"), Fingerprinting::default().value(value).finish())
        };
        entries.iter().map(entry).collect()
    }

    /// The full key of the table itself.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether there is anything at `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether the value at `key` is set by the operator, and is not a default.
    pub(super) fn is_set(&self, key: &str) -> bool {
        let origin = self.table.get(key).and_then(Value::origin);
        self.report.layers.is_set(origin, &self.path(key))
    }

    /// Reports a problem with the value at `key`.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) {
        self.push(Severity::Error, key, message);
    }

    /// Reports a warning about the value at `key`.
    pub(super) fn warning(&self, key: &str, message: impl Into<String>) {
        self.push(Severity::Warning, key, message);
    }

    fn push(&self, severity: Severity, key: &str, message: impl Into<String>) {
        let origin = self.table.get(key).and_then(Value::origin);
        self.report.push(severity, origin, &self.path(key), message);
    }

    /// Reports the keys that were not read.
    pub(super) fn finish(self) {
        let mut unknown: Vec<_> = self.table.keys().filter(|key| !self.known.contains(key.as_str())).collect();
        unknown.sort();
        for key in unknown {
            let hint = match closest(key, self.known.iter().copied()) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known are {}", self.known.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            self.error(key, format!("is not a setting; {hint}"));
        }
    }

    fn text(&self, key: &str, value: &Value) -> Option<String> {
        let is_composite = matches!(value.kind, ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_));
        if is_composite {
            self.report.push(Severity::Error, value.origin(), &self.path(key), "is not a single value");
        }
        (!is_composite).then(|| value.kind.to_string())
    }

    fn path(&self, key: &str) -> String {
        match (self.key.as_str(), key) {
            ("", key) => key.to_owned(),
            (section, "") => section.to_owned(),
            (section, key) => format!("{section}.{key}"),
        }
    }
}

/// A duration greater than zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("is zero; write a duration such as \"5s\"".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("{text:?} is not a duration such as \"5s\", \"250ms\" or \"96h\"")),
    }
}

/// A number of bytes greater than zero.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    match bytes {
        Some(0) => Err("is zero; write a size such as \"1MiB\"".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{text:?} is not a size such as \"64KiB\" or \"1MiB\"")),
    }
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    word(&[("true", true), ("false", false)])(text)
}

/// A whole number from `min` to `max`.
pub(super) fn count(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a whole number from {min} to {max}")),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let known = words.iter().find(|(word, _)| *word == text);
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("{text:?} is none of {}", words.join(", "))
        })
    }
}
