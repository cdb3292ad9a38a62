//! The order of modules in `src/lib.rs` is the order in which they may know each other, and within a module there are
//! no circles.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

/// Modules by the names on the way to them.
type Module = Vec<String>;

#[test]
fn modules_import_only_from_those_above_them() {
    let map = std::fs::read_to_string(src().join("lib.rs")).expect("the map");
    let modules: Vec<_> = map
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let rank: HashMap<_, _> = modules.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    let mut wrong = Vec::new();
    for (file, module) in files() {
        let Some(module) = module.first() else { continue };
        for (number, code) in code(&file) {
            for named in code.split("crate::").skip(1) {
                let name: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let place = format!("{}:{number}", file.display());
                match rank.get(name.as_str()) {
                    Some(known) if known <= &rank[module.as_str()] => {}
                    Some(_) => wrong.push(format!("{place}: {module} knows {name}, which stands below it")),
                    None => wrong.push(format!("{place}: {name:?} is no module of lib.rs; import one per `use`")),
                }
            }
        }
    }
    assert!(modules.len() > 10, "lib.rs lists modules as `pub mod name;`");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_of_one_folder_do_not_know_each_other_in_a_circle() {
    let files = files();
    let modules: BTreeSet<_> = files.iter().map(|(_, module)| module.clone()).collect();
    // By folder, which of its modules knows which.
    let mut knows: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (file, module) in &files {
        for (_, code) in code(file) {
            for known in named(&code, module).filter_map(|path| innermost(&path, &modules)) {
                let common = module.iter().zip(&known).take_while(|(one, other)| one == other).count();
                if let (Some(own), Some(other)) = (module.get(common), known.get(common)) {
                    let folder = knows.entry(module[..common].to_vec()).or_default();
                    folder.entry(own.clone()).or_default().insert(other.clone());
                }
            }
        }
    }
    assert!(knows.len() > 20, "modules know each other");
    let mut wrong = Vec::new();
    for (folder, mut left) in knows {
        // A module that depends on none that is left is in no cycle.
        while let Some(free) = left.iter().find(|(_, known)| !known.iter().any(|name| left.contains_key(name))) {
            let name = free.0.clone();
            left.remove(&name);
        }
        wrong.extend((!left.is_empty()).then(|| format!("in {}: {left:?}", folder.join("/"))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files but those of tests, with their modules.
fn files() -> Vec<(PathBuf, Module)> {
    let mut found = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(src()).expect("a file of src").with_extension("");
            let mut module: Module = inside.iter().map(|part| part.to_str().expect("text").to_owned()).collect();
            let name = module.pop().expect("a name");
            let is_code = path.extension().is_some_and(|extension| extension == "rs");
            if !is_code || name.starts_with("tests") {
                continue;
            }
            module.extend((!matches!(name.as_str(), "mod" | "lib" | "main")).then_some(name));
            found.push((path, module));
        }
    }
    found
}

/// The lines of a file, with their numbers, without comments and tests. The links of documentation may point anywhere.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(file).expect("a file");
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let line = |(number, line): (usize, &str)| (number + 1, line.split("//").next().unwrap_or_default().to_owned());
    text[..end].lines().enumerate().map(line).collect()
}

/// The paths that a line of a module names, from the root.
fn named<'c>(code: &'c str, module: &'c [String]) -> impl Iterator<Item = Module> + 'c {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).filter_map(move |path| {
        let mut parts = path.split("::").map(str::to_owned).peekable();
        let mut full = module.to_vec();
        match parts.next()?.as_str() {
            "crate" => full.clear(),
            "self" => {}
            "super" => {
                full.pop();
                while parts.next_if(|part| part == "super").is_some() {
                    full.pop();
                }
            }
            _ => return None,
        }
        full.extend(parts);
        Some(full)
    })
}

/// The innermost module on a path.
fn innermost(path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|module| modules.contains(module))
}
