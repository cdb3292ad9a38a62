//! All profiles of one installation: those inside the binary and the operator's own.

use std::collections::BTreeMap;
use std::path::Path;

use super::Profile;
use super::shipped;
use crate::problem::Problems;

/// All profiles of one installation, by name.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    profile: Profile,
    text: String,
    shipped: bool,
}

impl Profiles {
    /// The profiles inside the binary.
    pub fn shipped() -> Self {
        Self(
            shipped::FILES
                .iter()
                .filter_map(|(name, text)| {
                    // A test holds that every shipped file parses.
                    let profile = Profile::parse(text).ok()?;
                    Some(((*name).to_owned(), Entry { profile, text: (*text).to_owned(), shipped: true }))
                })
                .collect(),
        )
    }

    /// Adds every `*.toml` of a directory; a file with the name of a shipped profile replaces it.
    pub fn add_directory(&mut self, directory: &Path, problems: &mut Problems) {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                let message = format!("cannot read the profiles directory: {error}");
                return problems.error(directory.display().to_string(), "", message);
            }
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
                problems.error(path.display().to_string(), "", "the file name is not UTF-8");
                continue;
            };
            match std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read it: {error}"))
                .and_then(|text| Ok(Entry { profile: Profile::parse(&text)?, text, shipped: false }))
            {
                Ok(entry) => {
                    self.0.insert(name.to_owned(), entry);
                }
                Err(message) => problems.error(path.display().to_string(), "", message),
            }
        }
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name).map(|entry| &entry.profile)
    }

    /// The file of this name as it was written.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|entry| entry.text.as_str())
    }

    /// Whether the profile of this name is the one inside the binary.
    pub fn is_shipped(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| entry.shipped)
    }

    /// All names with their profiles, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), &entry.profile))
    }
}
