//! Problems with the files and settings of an operator, collected so that one run reports all of them.
//!
//! A [`Problem`] names the file (with its line where it is known), the key, what is wrong and what would be right.

use std::fmt;

/// Whether the gateway can start despite a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The gateway starts, but the operator should check the setting.
    Warning,
}

/// One thing that is wrong with a setting, described for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it keeps the gateway from starting.
    pub severity: Severity,
    /// The file, with its line where known, or `environment`.
    pub place: String,
    /// The key, dotted, such as `sources.github.path`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.place)?;
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All problems found in one run.
#[derive(Debug, Default, Clone)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Adds a problem that keeps the gateway from starting.
    pub fn error(&mut self, place: impl Into<String>, key: impl Into<String>, message: impl Into<String>) {
        self.push(Problem { severity: Severity::Error, place: place.into(), key: key.into(), message: message.into() });
    }

    /// Adds a problem that the operator should check, but that does not keep the gateway from starting.
    pub fn warning(&mut self, place: impl Into<String>, key: impl Into<String>, message: impl Into<String>) {
        let (place, key, message) = (place.into(), key.into(), message.into());
        self.push(Problem { severity: Severity::Warning, place, key, message });
    }

    /// Whether one of them keeps the gateway from starting.
    pub fn is_fatal(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// How many keep the gateway from starting.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// All of them, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The most bytes of a misspelt name that are compared.
const MAX_WRITTEN: usize = 128;

/// The known name closest to `written`, ignoring case, for "did you mean".
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No known name is that long, and the time of the comparison is the product of both lengths.
    let written = written.get(..MAX_WRITTEN).unwrap_or(written);
    let known: Vec<_> = known.into_iter().collect();
    if let Some(same) = known.iter().find(|name| name.eq_ignore_ascii_case(written)) {
        return Some(same);
    }
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3) && 2 * *distance < written.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
