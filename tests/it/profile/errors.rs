//! Profiles that cannot be read: that each mistake is pointed at, and what would be right.
//!
//! The profiles and what is said of them stand in the tables `tests/fixtures/profiles/*.txt`. With the environment
//! variable `DOORWARD_TESTS_UPDATE=1` what is said is written there instead of compared.

use std::collections::BTreeMap;
use std::path::Path;

use crate::harness::cases::Cases;
use crate::harness::gateway::doorward;

#[test]
fn every_mistake_is_pointed_at_with_what_would_be_right() {
    let profiles = Cases::of("profiles");
    let said = said(profiles.written().path());
    profiles.compare(|name| said.get(name).cloned().unwrap_or_default());
}

#[test]
fn every_mistake_has_its_line_column_and_caret() {
    let profiles = Cases::of("profiles");
    let folder = profiles.written();
    let said = said(folder.path());
    assert_eq!(said.len(), profiles.iter().count());
    for (name, said) in said {
        let lines: Vec<_> = said.lines().collect();
        let text = std::fs::read_to_string(folder.path().join(&name)).expect("a profile");
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
fn error_messages_name_no_types_of_the_code() {
    for (name, said) in said(Cases::of("profiles").written().path()) {
        for word in ["struct", "variant of", "untagged", "u16", "usize", "i64", "Table ", "expected a map"] {
            assert!(!said.contains(word), "{name}: {said}");
        }
    }
}

/// What is said of each profile of a folder, by the name of its file.
fn said(folder: &Path) -> BTreeMap<String, String> {
    let output = doorward().args(["profiles", "--directory"]).arg(folder).output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).expect("text");
    let here = format!("{}/", folder.display());
    let problems = text.split(&here).filter(|problem| !problem.is_empty());
    problems
        .map(|problem| {
            let name = problem.split(':').next().expect("a name").to_owned();
            // A blank line stands behind each problem.
            let said = problem.strip_suffix("\n\n").expect("a blank line");
            (name, format!("{said}\n"))
        })
        .collect()
}
