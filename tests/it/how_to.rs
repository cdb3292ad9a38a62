//! What `src/README.md` tells of adding a target is all that has to be done: a copy of the source in which it was done
//! delivers to the new target. And the files that the README names are there.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::gateway::Gateway;
use crate::harness::provider::github::Github;

/// Of the package of the copy.
const NAME: &str = "doorward-how-to";
const README: &str = include_str!("../../src/README.md");

#[test]
fn a_target_is_added_by_the_text_alone() {
    let copy = copy_of_the_source();
    let steps = README.split("### a target").nth(1).expect("the section").split("\n## ").next().expect("its end");
    let changes = changes(steps);
    assert_eq!(changes.len(), 10, "the changes of the section");
    for change in &changes {
        change.make(&copy);
    }
    let binary = build(&copy);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.jsonl");
    let deliver = format!("deliver.json-lines = {{ path = '{}' }}", file.display());
    let config = Github::source("http://127.0.0.1:9/");
    let config = config.lines().map(|line| if line.starts_with("deliver.") { deliver.as_str() } else { line });
    let config = config.collect::<Vec<_>>().join("\n");
    let gateway = Gateway::spawn_binary(&binary, folder.path(), &config);
    for _ in 0..2 {
        assert!(Github::delivery("1", "{\"a\":1}").send(gateway.address()).status < 300);
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), "{\"body\":\"{\\\"a\\\":1}\",\"id\":\"1\"}\n");
}

#[test]
fn the_files_that_are_named_are_there() {
    let links = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links: Vec<_> = links.filter(|link| !link.contains("://")).collect();
    assert!(links.len() > 40, "{links:?}");
    for link in links {
        assert!(root().join("src").join(link).exists(), "src/README.md names {link}, which is not there");
    }
}

/// A part of a block of code: lines for a file, behind one that is there, or a whole file.
#[derive(Debug)]
struct Change {
    path: String,
    after: Option<String>,
    lines: Vec<String>,
}

impl Change {
    fn make(&self, copy: &Path) {
        let path = copy.join(&self.path);
        let Some(after) = &self.after else {
            write_if_changed(&path, self.lines.join("\n").as_bytes());
            return;
        };
        let text = fs::read_to_string(&path).expect("a file of the source");
        let places: Vec<_> = text.lines().enumerate().filter(|(_, line)| line.trim() == after).collect();
        let [(place, _)] = places.as_slice() else {
            panic!("{}: {after:?} is there {} times", self.path, places.len())
        };
        let mut lines: Vec<_> = text.lines().collect();
        lines.splice(place + 1..=*place, self.lines.iter().map(String::as_str));
        fs::write(&path, lines.join("\n") + "\n").expect("written");
    }
}

/// The changes that a section of the README asks for, in their order.
fn changes(section: &str) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for block in section.split("```rust\n").skip(1) {
        let block = block.split("```").next().expect("the end of a block");
        for line in block.lines().map(|line| line.strip_prefix("   ").unwrap_or(line)) {
            match line.strip_prefix("// src/").map(|head| head.split_once(" after: ")) {
                Some(Some((path, after))) => {
                    changes.push(Change {
                        path: format!("src/{path}"),
                        after: Some(after.to_owned()),
                        lines: Vec::new(),
                    });
                }
                Some(None) => {
                    let path = line.trim_start_matches("// ").to_owned();
                    changes.push(Change { path, after: None, lines: Vec::new() });
                }
                None => changes.last_mut().expect("a block begins with its file").lines.push(line.to_owned()),
            }
        }
    }
    changes
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// In the target folder, so that only what has changed is built when this runs again.
fn copy_of_the_source() -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("how-to");
    for file in ["Cargo.toml", "Cargo.lock"] {
        let text = fs::read_to_string(root().join(file)).expect("a file");
        // Under a name of its own, so that its binary does not take the place of the one that is tested.
        let own = text.replace("name = \"doorward\"\n", &format!("name = \"{NAME}\"\n"));
        let own = own.replace("package.doorward]", &format!("package.{NAME}]"));
        let own = own.replace("[lib]\nname = \"doorward-how-to\"", "[lib]\nname = \"doorward\"");
        write_if_changed(&copy.join(file), own.as_bytes());
    }
    copy_if_changed(&root().join("README.md"), &copy.join("README.md"));
    write_if_changed(&copy.join("tests/it/main.rs"), b"");
    for folder in ["src", "config", ".cargo"] {
        copy_folder(&root().join(folder), &copy.join(folder));
    }
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    let names = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    let wanted = names(from);
    for name in names(to).into_iter().filter(|name| !wanted.contains(name)) {
        let path = to.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.expect("removed");
    }
    for name in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy_folder(&from, &to) } else { copy_if_changed(&from, &to) }
    }
}

fn copy_if_changed(from: &Path, to: &Path) {
    write_if_changed(to, &fs::read(from).expect("a file"));
}

fn write_if_changed(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    if fs::read(path).ok().as_deref() != Some(content) {
        fs::write(path, content).expect("written");
    }
}

/// Builds the copy with the dependencies that this test was built with.
fn build(copy: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Its test is empty. Built with it, the binary has the same features of the same dependencies.
    command.args(["build", "--locked", "--offline", "--test", "it", "--manifest-path"]);
    command.arg(copy.join("Cargo.toml")).env("CARGO_TARGET_DIR", target);
    // Run by sudo, it is built as the user, as everything is.
    let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        let owner = Command::new("chown").args(["-R", &format!("{user}:{group}")]).arg(copy).status();
        assert!(owner.expect("chown").success());
        command.uid(user).gid(group);
    }
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug").join(NAME)
}
