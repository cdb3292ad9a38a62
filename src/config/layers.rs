//! Reads and merges the layers of the configuration, in rising precedence: the embedded defaults, the file and those
//! that it includes, the environment variables `DOORWARD__SECTION__KEY`. Knows where each value was set.

use std::collections::BTreeSet;
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

use super::files::Files;
use crate::base::problem::Problems;

/// The embedded defaults.
const DEFAULTS: &str = include_str!("../../config/doorward.toml");
const PREFIX: &str = "DOORWARD";
const SEPARATOR: &str = "__";
/// The key of the patterns of files that are included.
pub(super) const INCLUDE: &str = "include";
const SOURCES: &str = "sources";
/// The origin of values that come from environment variables, as the `config` crate calls it.
const ENVIRONMENT: &str = "the environment";

/// A text value of the embedded defaults.
pub(super) fn default_value(section: &str, key: &str) -> Result<String, String> {
    let defaults: toml::Table = DEFAULTS.parse().map_err(|error| format!("the defaults cannot be read: {error}"))?;
    let value = defaults.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_str);
    value.map(str::to_owned).ok_or_else(|| format!("the defaults have no {section}.{key}"))
}

/// The merged layers.
pub(super) struct Layers {
    root: Map<String, Value>,
    /// The file that was named, and those that it includes.
    texts: Vec<FileText>,
}

/// A file of the configuration.
struct FileText {
    /// Its path.
    path: String,
    text: String,
    /// The lines of its keys, from 1; keys in tables have their path, such as `server.listen`.
    lines: HashMap<String, usize>,
    /// The names of its top-level keys and of its sources.
    sources: BTreeSet<String>,
    other: BTreeSet<String>,
}

impl Layers {
    /// Reads the file, the files that it includes, and the environment.
    ///
    /// # Errors
    /// A file cannot be read, a layer cannot be parsed, or a source is in two files.
    pub(super) fn read(path: &Path, files: &Files) -> Result<Self, Problems> {
        let mut layers = Self::read_alone(path, files)?;
        let mut problems = Problems::default();
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for pattern in strings(layers.root.get(INCLUDE)) {
            match files.matching(folder, &pattern) {
                Ok(paths) if paths.is_empty() && !pattern.contains(['*', '?', '[']) => {
                    problems.error(layers.place(None, INCLUDE), INCLUDE, format!("{pattern:?}: there is no such file"));
                }
                Ok(paths) => paths.iter().for_each(|path| layers.include(path, files, &mut problems)),
                Err(message) => {
                    problems.error(layers.place(None, INCLUDE), INCLUDE, format!("{pattern:?} {message}"));
                }
            }
        }
        if problems.is_fatal() {
            return Err(problems);
        }
        layers.root = merge(&layers.texts).map_err(|message| fatal(&layers.file(), message))?;
        Ok(layers)
    }

    /// Reads the file and the environment only: all but sources is there.
    ///
    /// # Errors
    /// The file cannot be read, or a layer cannot be parsed.
    pub(super) fn read_alone(path: &Path, files: &Files) -> Result<Self, Problems> {
        let text = FileText::read(path, files)?;
        let path = text.path.clone();
        let texts = vec![text];
        let root = merge(&texts).map_err(|message| fatal(&path, message))?;
        Ok(Self { root, texts })
    }

    /// Adds an included file.
    fn include(&mut self, path: &Path, files: &Files, problems: &mut Problems) {
        let included = match FileText::read(path, files) {
            Ok(included) => included,
            Err(more) => return more.iter().for_each(|problem| problems.push(problem.clone())),
        };
        if self.texts.iter().any(|known| known.path == included.path) {
            return;
        }
        if included.text.trim().is_empty() {
            problems.error(included.path.clone(), "", "is empty; an included file has tables [sources.NAME]");
        }
        for key in &included.other {
            let message = format!("belongs into {}; an included file has tables [sources.NAME]", self.file());
            problems.error(included.place(key), key, message);
        }
        for name in &included.sources {
            let key = format!("sources.{name}");
            if let Some(other) = self.texts.iter().find(|known| known.sources.contains(name)) {
                let message = format!("is in {} too; a source is in one file", other.place(&key));
                problems.error(included.place(&key), key, message);
            }
        }
        self.texts.push(included);
    }

    pub(super) fn root(&self) -> &Map<String, Value> {
        &self.root
    }

    /// The path of the file that was named.
    pub(super) fn file(&self) -> String {
        self.texts.first().map(|text| text.path.clone()).unwrap_or_default()
    }

    /// Whether the file that was named has nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.texts.first().is_none_or(|text| text.text.trim().is_empty())
    }

    /// Whether a value is set in a file or the environment.
    pub(super) fn is_set(&self, origin: Option<&str>, key: &str) -> bool {
        origin == Some(ENVIRONMENT) || self.texts.iter().any(|text| text.lines.contains_key(key))
    }

    /// Where a value is set: the environment, or a line of a file. For a key that is in no file, the line of the
    /// innermost table around it.
    pub(super) fn place(&self, origin: Option<&str>, key: &str) -> String {
        if origin == Some(ENVIRONMENT) {
            return format!("environment variable {PREFIX}{SEPARATOR}{}", key.to_uppercase().replace('.', SEPARATOR));
        }
        let mut around = key;
        loop {
            if let Some(text) = self.texts.iter().find(|text| text.lines.contains_key(around)) {
                return text.place(around);
            }
            match around.rsplit_once('.') {
                Some((outer, _)) => around = outer,
                None => return self.file(),
            }
        }
    }
}

impl FileText {
    fn read(path: &Path, files: &Files) -> Result<Self, Problems> {
        let shown = path.display().to_string();
        let text = files.read_text(path).map_err(|error| fatal(&shown, format!("cannot read it: {error}")))?;
        // Parsed by `toml` first, for line and column of errors. Its own message would also show the line, which may
        // contain a secret.
        let document = DeTable::parse(&text).map_err(|error| fatal(&shown, syntax_error(&text, &error)))?;
        let table = document.get_ref();
        let lines = lines(&text, table);
        let named =
            table.iter().find(|(name, _)| name.get_ref() == SOURCES).and_then(|(_, value)| value.get_ref().as_table());
        let sources =
            named.into_iter().flat_map(|sources| sources.keys()).map(|name| name.get_ref().to_string()).collect();
        let other = table.keys().map(|name| name.get_ref().to_string()).filter(|name| name != SOURCES).collect();
        Ok(Self { path: shown, lines, sources, other, text })
    }

    /// The path, with the line of a key that is in the file.
    fn place(&self, key: &str) -> String {
        self.lines.get(key).map_or_else(|| self.path.clone(), |line| format!("{}:{line}", self.path))
    }
}

fn fatal(file: &str, message: String) -> Problems {
    let mut problems = Problems::default();
    problems.error(file, "", message);
    problems
}

/// The defaults, these files and the environment, in rising precedence.
fn merge(texts: &[FileText]) -> Result<Map<String, Value>, String> {
    let defaults = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    let with = texts.iter().fold(defaults, |all, file| all.add_source(File::from_str(&file.text, FileFormat::Toml)));
    let merged = with
        .add_source(Environment::with_prefix(PREFIX).prefix_separator(SEPARATOR).separator(SEPARATOR))
        .build()
        .map_err(|error| error.to_string())?;
    let ValueKind::Table(root) = merged.cache.kind else {
        return Err("is not a table of keys and values".to_owned());
    };
    Ok(root)
}

/// The texts of a list, which in an environment variable are separated by commas; none of what is no list.
pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    match value.map(|value| &value.kind) {
        Some(ValueKind::Array(values)) => values.iter().map(|value| value.kind.to_string()).collect(),
        Some(ValueKind::String(text)) => {
            text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// The value of [`FileText::lines`].
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
