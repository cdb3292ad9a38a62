//! Reads the files of a configuration, and notes what each held, so that a change of any of them is seen later.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use glob::MatchOptions;
use glob::Pattern;
use sha2::Digest as _;
use sha2::Sha256;

/// Hidden files come from editors, archives and Kubernetes (`..data`); `*` and `?` match no `/`.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// What a configuration was read from, with a digest of what each part held or of why it could not be read.
#[derive(Clone, Default)]
pub struct Inputs(BTreeMap<Input, [u8; 32]>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Input {
    File(PathBuf),
    /// The paths that match a pattern.
    Pattern(String),
}

/// Reads files, and notes them.
#[derive(Default)]
pub(super) struct Files(RefCell<Inputs>);

impl Files {
    /// The content of a file. A pipe cannot be read a second time, and is not noted.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = std::fs::read(path);
        if std::fs::metadata(path).map_or(true, |metadata| metadata.is_file() || metadata.is_dir()) {
            self.0.borrow_mut().0.insert(Input::File(path.to_owned()), digest_of(&content));
        }
        content
    }

    /// The content of a file of text.
    pub(super) fn read_text(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?)
            .map_err(|_bad| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
    }

    /// The paths that match a pattern, sorted; patterns that are not absolute begin at `folder`.
    pub(super) fn matching(&self, folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let begin = folder.to_str().ok_or_else(|| format!("{} is not UTF-8", folder.display()))?;
        let full = if Path::new(pattern).is_absolute() || begin.is_empty() {
            pattern.to_owned()
        } else {
            format!("{}/{pattern}", Pattern::escape(begin))
        };
        let paths = matching(&full)?;
        self.0.borrow_mut().0.insert(Input::Pattern(full), digest_of_paths(&paths));
        Ok(paths)
    }

    pub(super) fn into_inputs(self) -> Inputs {
        self.0.into_inner()
    }
}

impl Inputs {
    /// Reads all of it again.
    #[must_use]
    pub fn read_again(&self) -> Self {
        let again = |input: &Input| match input {
            Input::File(path) => digest_of(&std::fs::read(path)),
            Input::Pattern(pattern) => digest_of_paths(&matching(pattern).unwrap_or_default()),
        };
        Self(self.0.keys().map(|input| (input.clone(), again(input))).collect())
    }

    /// Whether all that both have read held the same.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.0.iter().all(|(input, digest)| other.0.get(input).is_none_or(|other| other == digest))
    }
}

/// Without the digests, which would let somebody try secrets.
impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn matching(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let paths = glob::glob_with(pattern, MATCHING).map_err(|error| format!("is not a pattern: {error}"))?;
    let mut paths: Vec<_> = paths.flatten().collect();
    paths.sort();
    Ok(paths)
}

fn digest_of(content: &io::Result<Vec<u8>>) -> [u8; 32] {
    match content {
        Ok(bytes) => Sha256::new().chain_update([0]).chain_update(bytes).finalize().into(),
        Err(error) => Sha256::new().chain_update([1]).chain_update(error.kind().to_string()).finalize().into(),
    }
}

fn digest_of_paths(paths: &[PathBuf]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for path in paths {
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update([0]);
    }
    hasher.finalize().into()
}
