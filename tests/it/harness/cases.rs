//! Tables of cases in `tests/fixtures/NAME/*.txt`: files for the gateway to read, and what it says of them.
//!
//! ```text
//! ==== NAME.toml
//! what stands in the file
//! ----
//! what is said of it
//!
//! ==== FOLDER/NAME.toml
//! what stands in a file that other cases need beside theirs
//! ```
//!
//! A blank line stands between two of them. `(CRLF)` behind a name: the file has line breaks of Windows.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use tempfile::TempDir;

const HEAD: &str = "==== ";
const SAID: &str = "----\n";
const CRLF: &str = " (CRLF)";

/// All tables of a folder.
pub struct Cases {
    tables: Vec<(PathBuf, Vec<Case>)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Case {
    name: String,
    /// Whether the file has line breaks of Windows; there are none in `input`.
    crlf: bool,
    input: String,
    /// Absent of a file that other cases need.
    said: Option<String>,
}

impl Cases {
    /// The cases in `tests/fixtures/NAME`.
    pub fn of(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let entries = std::fs::read_dir(folder).expect("the tables").map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "txt")).collect();
        paths.sort();
        let read = |path: &PathBuf| parsed(path, &std::fs::read_to_string(path).expect("text"));
        let tables: Vec<_> = paths.into_iter().map(|path| (path.clone(), read(&path))).collect();
        let mut names = BTreeSet::new();
        for case in tables.iter().flat_map(|(_, cases)| cases) {
            assert!(names.insert(&case.name), "two cases of {name} are called {}", case.name);
        }
        Self { tables }
    }

    /// The names of the cases, each with what should be said of it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let cases = self.tables.iter().flat_map(|(_, cases)| cases);
        cases.filter_map(|case| Some((case.name.as_str(), case.said.as_deref()?)))
    }

    /// A folder with all of their files.
    pub fn written(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for case in self.tables.iter().flat_map(|(_, cases)| cases) {
            let path = folder.path().join(&case.name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let input = if case.crlf { case.input.replace('\n', "\r\n") } else { case.input.clone() };
            std::fs::write(path, input).expect("written");
        }
        folder
    }

    /// Fails when anything else is `said` of a case than what should be. With the environment variable
    /// `DOORWARD_TESTS_UPDATE=1` that is written instead; read what changed before you keep it.
    pub fn compare(&self, said: impl Fn(&str) -> String) {
        let update = std::env::var_os("DOORWARD_TESTS_UPDATE").is_some_and(|update| update == "1");
        let mut wrong = Vec::new();
        for (path, cases) in &self.tables {
            let mut now = cases.clone();
            for Case { name, said: expected, .. } in &mut now {
                let Some(expected) = expected else { continue };
                let said = said(name);
                if said != *expected {
                    wrong.push(format!("{}: {name}\n--- expected\n{expected}--- said\n{said}", path.display()));
                }
                *expected = said;
            }
            if update && now != *cases {
                let text = text(&now);
                assert_eq!(parsed(path, &text), now, "what is said cannot stand in a table");
                // At once: other tests read the table meanwhile.
                std::fs::write(path.with_extension("new"), text).expect("written");
                std::fs::rename(path.with_extension("new"), path).expect("renamed");
            }
        }
        assert!(update || wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// The cases of a table.
fn parsed(path: &Path, text: &str) -> Vec<Case> {
    let path = path.display();
    let text = format!("\n{text}");
    let head = format!("\n{HEAD}");
    let mut blocks = text.split(&head);
    assert!(blocks.next() == Some(""), "{path} begins with something else than {HEAD}NAME.toml");
    let case = |block: &str| {
        let missing = || panic!("{path}: no blank line stands behind {block}");
        let (head, rest) = block.split_once('\n').unwrap_or_else(missing);
        let name = head.strip_suffix(CRLF).unwrap_or(head);
        let known = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
        assert!(name.ends_with(".toml") && name.chars().all(known), "{path}: {name:?} is not the name of a case");
        // The line break of a blank line is the one in front of the next name.
        assert!(rest.is_empty() || rest.ends_with('\n'), "{path}: no blank line stands behind {name}");
        let lines: Vec<_> = rest.split_inclusive('\n').collect();
        let mut parts = lines.split(|line| *line == SAID).map(<[_]>::concat);
        let (input, said) = (parts.next().unwrap_or_default(), parts.next());
        assert!(parts.next().is_none(), "{path}: {name} has two lines ----");
        assert!(said.is_some() || name.contains('/'), "{path}: {name} has no line ----");
        assert!(said.is_none() || !name.contains('/'), "{path}: {name} has a line ----, but is in a folder");
        Case { name: name.to_owned(), crlf: name != head, input, said }
    };
    blocks.map(case).collect()
}

/// The table of these cases.
fn text(cases: &[Case]) -> String {
    let block = |case: &Case| {
        let crlf = if case.crlf { CRLF } else { "" };
        let said = case.said.iter().flat_map(|said| [SAID, said]).collect::<String>();
        format!("{HEAD}{}{crlf}\n{}{said}", case.name, case.input)
    };
    cases.iter().map(block).collect::<Vec<_>>().join("\n")
}
