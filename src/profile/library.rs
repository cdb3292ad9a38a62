//! All profiles of an installation, by name: those that are compiled in, and those in the operator's directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use super::Profile;
use super::shipped;
use crate::base::problem::Problems;

/// All profiles of an installation, by name.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    text: Cow<'static, str>,
    /// Parsed on first use; `None` when the file has a problem.
    profile: OnceLock<Option<Profile>>,
    /// The path of the operator's file; `None` for a profile that is compiled in.
    file: Option<String>,
}

impl Entry {
    fn profile(&self) -> Option<&Profile> {
        // A test checks that every shipped file can be parsed. Others were parsed when they were added.
        self.profile.get_or_init(|| Profile::parse(&self.text).ok()).as_ref()
    }
}

impl Profiles {
    /// The profiles that are compiled in.
    pub fn shipped() -> Self {
        let entry = |text| Entry { text: Cow::Borrowed(text), profile: OnceLock::new(), file: None };
        Self(shipped::FILES.iter().map(|(name, text)| ((*name).to_owned(), entry(*text))).collect())
    }

    /// Adds every `*.toml` of a directory, which `read` reads; a file with the name of a shipped profile replaces it.
    pub fn add_directory(
        &mut self,
        directory: &Path,
        read: impl Fn(&Path) -> io::Result<String>,
        problems: &mut Problems,
    ) {
        let entries = std::fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        let mut paths = match entries {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("cannot read the profiles directory: {error}");
                return problems.error(directory.display().to_string(), "", message);
            }
        };
        paths.sort();
        // Hidden files come from editors and archives.
        let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let toml = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
        for path in paths.iter().filter(|path| toml(path) && !hidden(path)) {
            let file = path.display().to_string();
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
                problems.error(file, "", "the file name is not UTF-8");
                continue;
            };
            let read = read(path).map_err(|error| format!("cannot read it: {error}"));
            let (profile, text) = match read.and_then(|text| Ok((Profile::parse(&text)?, text))) {
                Ok((profile, text)) => (Some(profile), text),
                Err(message) => {
                    problems.error(file.clone(), "", message);
                    (None, String::new())
                }
            };
            let entry = Entry { text: Cow::Owned(text), profile: OnceLock::from(profile), file: Some(file) };
            self.0.insert(name.to_owned(), entry);
        }
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name).and_then(Entry::profile)
    }

    /// Whether there is a profile of this name whose file has a problem.
    pub fn is_broken(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| entry.profile().is_none())
    }

    /// The text of the file of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|entry| &*entry.text)
    }

    /// Whether the profile of this name is compiled in.
    pub fn is_shipped(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| entry.file.is_none())
    }

    /// Adds the warnings about the profile of this name, if the operator wrote it. Others the operator cannot change.
    pub fn lint(&self, name: &str, problems: &mut Problems) {
        let Some(entry) = self.0.get(name) else { return };
        let Some((file, profile)) = entry.file.as_ref().zip(entry.profile()) else { return };
        for lint in profile.lints() {
            let location =
                lint.config_path.line(&entry.text).map_or_else(|| file.clone(), |line| format!("{file}:{line}"));
            problems.warning(location, lint.config_path.to_string(), lint.message);
        }
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All names with their profiles, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.0.iter().filter_map(|(name, entry)| Some((name.as_str(), entry.profile()?)))
    }
}
