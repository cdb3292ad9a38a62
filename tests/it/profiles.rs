//! Profiles that cannot be read: that each mistake is pointed at, and what would be right.
//!
//! Each `tests/fixtures/profiles/NAME.toml` stands beside what is said of it, `NAME.expected`. With the environment
//! variable `DOORWARD_TESTS_UPDATE=1` the latter are written instead of compared; read what changed before you keep it.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use crate::harness::doorward;

#[test]
fn every_mistake_is_pointed_at_with_what_would_be_right() {
    let mut wrong = Vec::new();
    let said = said();
    for profile in fixtures() {
        let name = profile.file_name().expect("a name").to_string_lossy().into_owned();
        let said = said.get(&name).cloned().unwrap_or_default();
        let expected = profile.with_extension("expected");
        if std::env::var_os("DOORWARD_TESTS_UPDATE").is_some_and(|update| update == "1") {
            std::fs::write(&expected, &said).expect("written");
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{name}\n--- expected\n{expected}--- said\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_mistake_has_its_line_column_and_caret() {
    let said = said();
    assert_eq!(said.len(), fixtures().len());
    for (name, said) in said {
        let lines: Vec<_> = said.lines().collect();
        let text = std::fs::read_to_string(folder().join(&name)).expect("a profile");
        let place = lines[0].split_once(": line ").expect("a line").1;
        let (line, column) = place.split_once(", column ").expect("a column");
        let (line, column): (usize, usize) = (line.parse().expect("a number"), column.parse().expect("a number"));
        assert!(
            lines[2].starts_with(&format!("{line} | {}", text.lines().nth(line - 1).unwrap_or_default())),
            "{said}"
        );
        let before = format!("{} | {}", " ".repeat(line.to_string().len()), " ".repeat(column - 1));
        assert!(lines[3].strip_prefix(&before).is_some_and(|carets| carets.starts_with('^')), "{said}");
        assert!(lines[4].len() > 10, "{said}");
    }
}

#[test]
fn the_words_are_not_those_of_the_program() {
    for (name, said) in said() {
        for word in ["struct", "variant of", "untagged", "u16", "usize", "i64", "Table ", "expected a map"] {
            assert!(!said.contains(word), "{name}: {said}");
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/profiles")
}

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    paths.sort();
    paths
}

/// What is said of each file, by its name.
fn said() -> BTreeMap<String, String> {
    let output = doorward().args(["profiles", "--directory"]).arg(folder()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).expect("text");
    let here = format!("{}/", folder().display());
    let problems = text.split(&here).filter(|problem| !problem.is_empty());
    problems.map(|problem| (problem.split(':').next().expect("a name").to_owned(), problem.to_owned())).collect()
}
