//! The order of modules in `src/lib.rs` is the order in which they may know each other.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

#[test]
fn modules_import_only_from_those_above_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = std::fs::read_to_string(src.join("lib.rs")).expect("the map");
    let modules: Vec<_> = map
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let rank: HashMap<_, _> = modules.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    let mut wrong = Vec::new();
    for module in &modules {
        for file in files(&src, module) {
            let text = std::fs::read_to_string(&file).expect("a file");
            for (number, line) in text.lines().enumerate() {
                // The links of documentation may point anywhere.
                let code = line.split("//").next().unwrap_or_default();
                for named in code.split("crate::").skip(1) {
                    let name: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let place = format!("{}:{}", file.display(), number + 1);
                    match rank.get(name.as_str()) {
                        Some(known) if known <= &rank[module.as_str()] => {}
                        Some(_) => wrong.push(format!("{place}: {module} knows {name}, which stands below it")),
                        None => wrong.push(format!("{place}: {name:?} is no module of lib.rs; import one per `use`")),
                    }
                }
            }
        }
    }
    assert!(modules.len() > 10, "lib.rs lists modules as `pub mod name;`");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The file of a module, or all files of its folder.
fn files(src: &Path, module: &str) -> Vec<PathBuf> {
    let file = src.join(format!("{module}.rs"));
    if file.exists() {
        return vec![file];
    }
    let mut found = Vec::new();
    let mut folders = vec![src.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}
