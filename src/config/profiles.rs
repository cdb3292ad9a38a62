//! Finds the profiles: those that are compiled in, and those of the operator's directory.

use std::path::Path;
use std::path::PathBuf;

use super::files::Files;
use super::section::Report;
use super::section::Section;
use crate::base::problem::Problems;
use crate::profile::Profiles;

/// The shipped profiles and those of the operator's directory; and this directory, empty when there is none.
pub(super) fn profiles(root: &mut Section<'_>, report: &Report<'_>) -> (Profiles, PathBuf) {
    let mut profiles = Profiles::shipped();
    let directory = root.required("profiles", |text| Ok(PathBuf::from(text))).unwrap_or_default();
    if !directory.as_os_str().is_empty() {
        let files = report.files();
        // What comes to be there later is a change, too. A folder with another name matches nothing.
        let _noted = files.matching(&directory, "*.toml");
        report.with(|problems| profiles.add_directory(&directory, |path| files.read_text(path), problems));
    }
    (profiles, directory)
}

/// That the operator's profile is gone was hardly meant where it would become the shipped one of this name.
pub(super) fn gone(name: &str, profiles: &Profiles, directory: &Path, files: &Files, problems: &mut Problems) {
    let path = directory.join(format!("{name}.toml"));
    if profiles.is_shipped(name) && files.had(&path) {
        let message = "is gone, and the profile of this name that is compiled in would take its place; restart the \
                       gateway if that is meant";
        problems.error(path.display().to_string(), "", message);
    }
}
