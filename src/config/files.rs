//! Reads the files of a configuration, and notes what each held, so that a change of any of them is seen later.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use glob::GlobError;
use glob::MatchOptions;
use glob::Pattern;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use sha2::Digest as _;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Hidden files come from editors, archives and Kubernetes (`..data`); `*` and `?` match no `/`.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The most bytes of a file.
const MAX_FILE: usize = 16 * 1024 * 1024;
/// The most bytes of a file with a secret.
const MAX_SECRET: usize = 1024 * 1024;

type Digest = [u8; 32];

/// What a configuration was read from.
#[derive(Clone, Default)]
pub struct Inputs {
    /// With a digest of what each held, or of why it could not be read.
    noted: BTreeMap<Input, Digest>,
    /// Pipes, which cannot be read a second time, with what they said.
    pipes: BTreeMap<PathBuf, Zeroizing<Vec<u8>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Input {
    File(PathBuf),
    /// The paths that match a pattern.
    Pattern(String),
}

/// Reads files, each of them once, and notes them.
#[derive(Default)]
pub(super) struct Files {
    read: RefCell<BTreeMap<PathBuf, io::Result<Content>>>,
    patterns: RefCell<BTreeMap<String, Digest>>,
    /// What is in use, when a gateway runs.
    before: Option<Inputs>,
}

/// What a file holds.
struct Content {
    bytes: Zeroizing<Vec<u8>>,
    is_pipe: bool,
}

impl Files {
    /// Reads again, for a gateway that runs with what these inputs held.
    pub(super) fn again(before: &Inputs) -> Self {
        Self { before: Some(before.clone()), ..Self::default() }
    }

    /// The content of a file. A pipe is read at a start, and has said the same ever since.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut all = self.read.borrow_mut();
        match all.entry(path.to_owned()).or_insert_with(|| self.read_once(path)) {
            Ok(content) => Ok(content.bytes.to_vec()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    fn read_once(&self, path: &Path) -> io::Result<Content> {
        let Some(before) = &self.before else { return read(File::open(path)?) };
        match before.pipes.get(path) {
            Some(said) => Ok(Content { bytes: said.clone(), is_pipe: true }),
            None => read_regular(path),
        }
    }

    /// The content of a file with a secret.
    pub(super) fn read_secret(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path).and_then(|bytes| if bytes.len() > MAX_SECRET { Err(too_large(MAX_SECRET)) } else { Ok(bytes) })
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
        let paths = matching(&full);
        let before = self.before.as_ref().and_then(|before| before.noted.get(&Input::Pattern(full.clone())));
        let had_any = before.is_some_and(|before| *before != digest_of_paths(&Ok(Vec::new())));
        self.patterns.borrow_mut().insert(full, digest_of_paths(&paths));
        let paths = paths?;
        if had_any && paths.is_empty() {
            return Err("matches no file any more; take the pattern out, too, if that is meant".to_owned());
        }
        Ok(paths)
    }

    /// Whether a gateway that runs uses this file.
    pub(super) fn had(&self, path: &Path) -> bool {
        self.before.as_ref().is_some_and(|before| before.noted.contains_key(&Input::File(path.to_owned())))
    }

    pub(super) fn into_inputs(self) -> Inputs {
        let patterns = self.patterns.into_inner().into_iter();
        let mut inputs = Inputs {
            noted: patterns.map(|(pattern, digest)| (Input::Pattern(pattern), digest)).collect(),
            ..Inputs::default()
        };
        for (path, content) in self.read.into_inner() {
            match content {
                Ok(Content { bytes, is_pipe: true }) => drop(inputs.pipes.insert(path, bytes)),
                content => drop(inputs.noted.insert(Input::File(path), digest_of(&content))),
            }
        }
        inputs
    }
}

impl Inputs {
    /// Reads all of it again.
    #[must_use]
    pub fn read_again(&self) -> Self {
        let again = |input: &Input| match input {
            Input::File(path) => digest_of(&read_regular(path)),
            Input::Pattern(pattern) => digest_of_paths(&matching(pattern)),
        };
        let noted = self.noted.keys().map(|input| (input.clone(), again(input))).collect();
        Self { noted, pipes: BTreeMap::new() }
    }

    /// Whether all that both have read held the same.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.differing(other).next().is_none()
    }

    /// The files and patterns that both have read, and that held something else.
    pub fn differing(&self, other: &Self) -> impl Iterator<Item = String> {
        let differs =
            |(input, digest): &(&Input, &Digest)| other.noted.get(input).is_some_and(|other| other != *digest);
        self.noted.iter().filter(differs).map(|(input, _)| match input {
            Input::File(path) => path.display().to_string(),
            Input::Pattern(pattern) => pattern.clone(),
        })
    }
}

/// Without the digests, which would let somebody try secrets.
impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.noted.keys()).finish()
    }
}

/// Reads a file without waiting for anybody, as a pipe would.
fn read_regular(path: &Path) -> io::Result<Content> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let content = File::from(file);
    let kind = content.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() {
        read(content)
    } else {
        Err(io::Error::other("it is a pipe or a device, which are read at the start only"))
    }
}

fn read(file: File) -> io::Result<Content> {
    let metadata = file.metadata()?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(u64::try_from(MAX_FILE + 1).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        return Err(too_large(MAX_FILE));
    }
    Ok(Content { bytes, is_pipe: !metadata.is_file() })
}

fn too_large(limit: usize) -> io::Error {
    let message = format!("it has more than {} MiB", limit / (1024 * 1024));
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

fn matching(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let paths = glob::glob_with(pattern, MATCHING).map_err(|error| format!("is not a pattern: {error}"))?;
    let paths: Result<Vec<_>, _> = paths.collect();
    let unreadable =
        |error: GlobError| format!("cannot be searched for: {}: {}", error.path().display(), error.error());
    let mut paths = paths.map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn digest_of(content: &io::Result<Content>) -> Digest {
    match content {
        Ok(content) => Sha256::new().chain_update([0]).chain_update(&*content.bytes).finalize().into(),
        Err(error) => Sha256::new().chain_update([1]).chain_update(error.kind().to_string()).finalize().into(),
    }
}

fn digest_of_paths(paths: &Result<Vec<PathBuf>, String>) -> Digest {
    let mut hasher = Sha256::new();
    match paths {
        Ok(paths) => {
            for path in paths {
                hasher.update(path.as_os_str().as_encoded_bytes());
                hasher.update([0]);
            }
        }
        Err(why) => hasher.update(why),
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_twice_held_one_thing_and_has_changed_since() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let files = Files::default();
        std::fs::write(&path, "old").expect("written");
        assert_eq!(files.read_secret(&path).expect("read"), b"old");
        std::fs::write(&path, "new").expect("written");
        assert_eq!(files.read_secret(&path).expect("read"), b"old");
        let inputs = files.into_inputs();
        assert!(!inputs.agrees_with(&inputs.read_again()));
    }
}
