//! Reads and merges the layers of the configuration, in rising precedence: the embedded defaults, the file, the
//! environment variables `DOORWARD__SECTION__KEY`. Knows where each value was set.

use std::collections::HashMap;
use std::path::Path;

use config::Config;
use config::Environment;
use config::File;
use config::FileFormat;
use config::Map;
use config::Value;
use config::ValueKind;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::base::problem::Problems;

/// The embedded defaults.
const DEFAULTS: &str = include_str!("../../config/doorward.toml");
const PREFIX: &str = "DOORWARD";
const SEPARATOR: &str = "__";

/// A text value of the embedded defaults.
pub(super) fn default_value(section: &str, key: &str) -> Result<String, String> {
    let defaults: toml::Table = DEFAULTS.parse().map_err(|error| format!("the defaults cannot be read: {error}"))?;
    let value = defaults.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_str);
    value.map(str::to_owned).ok_or_else(|| format!("the defaults have no {section}.{key}"))
}

/// The merged layers.
pub(super) struct Layers {
    root: Map<String, Value>,
    /// The path of the file.
    file: String,
    /// The lines of the file's keys, from 1; keys in tables have their path, such as `server.listen`.
    lines: HashMap<String, usize>,
}

impl Layers {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// The file cannot be read, or a layer cannot be parsed.
    pub(super) fn read(path: &Path) -> Result<Self, Problems> {
        let file = path.display().to_string();
        let fatal = |message: String| {
            let mut problems = Problems::default();
            problems.error(file.clone(), "", message);
            problems
        };
        let text = std::fs::read_to_string(path).map_err(|error| fatal(format!("cannot read it: {error}")))?;
        Self::merge(file.clone(), &text).map_err(fatal)
    }

    fn merge(file: String, text: &str) -> Result<Self, String> {
        // Parsed by `toml` first, for line and column of errors. Its own message would also show the line, which may
        // contain a secret.
        let document = DeTable::parse(text).map_err(|error| syntax_error(text, &error))?;
        let lines = lines(text, document.get_ref());
        let merged = Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(File::from_str(text, FileFormat::Toml))
            .add_source(Environment::with_prefix(PREFIX).prefix_separator(SEPARATOR).separator(SEPARATOR))
            .build()
            .map_err(|error| error.to_string())?;
        let ValueKind::Table(root) = merged.cache.kind else {
            return Err("is not a table of keys and values".to_owned());
        };
        Ok(Self { root, file, lines })
    }

    pub(super) fn root(&self) -> &Map<String, Value> {
        &self.root
    }

    /// Where a value is set: the environment, or a line of the file. For a key that is not in the file, the line of the
    /// innermost table around it.
    pub(super) fn place(&self, origin: Option<&str>, key: &str) -> String {
        if origin == Some("the environment") {
            return format!("environment variable {PREFIX}{SEPARATOR}{}", key.to_uppercase().replace('.', SEPARATOR));
        }
        match self.line(key) {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        }
    }

    fn line(&self, mut key: &str) -> Option<usize> {
        loop {
            if let Some(line) = self.lines.get(key) {
                return Some(*line);
            }
            key = key.rsplit_once('.')?.0;
        }
    }
}

/// The value of [`Layers::lines`].
fn lines(text: &str, document: &DeTable<'_>) -> HashMap<String, usize> {
    let ends: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut lines = HashMap::new();
    let mut tables = vec![(String::new(), document)];
    while let Some((prefix, table)) = tables.pop() {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                tables.push((format!("{key}."), inner));
            }
            lines.insert(key, 1 + ends.partition_point(|end| *end < name.span().start));
        }
    }
    lines
}

/// The message of a syntax error, with line and column.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}
