//! The recorded deliveries in `tests/fixtures/providers`: one file per provider, written by
//! `tests/fixtures/generate.py`.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

/// What stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    /// The fields of every delivery that does not say otherwise.
    defaults: Map<String, Value>,
    deliveries: BTreeMap<String, Map<String, Value>>,
}

/// The providers whose deliveries are recorded.
pub fn providers() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut names: Vec<_> =
        entries.map(|path| path.file_stem().expect("a name").to_str().expect("text").to_owned()).collect();
    names.sort();
    names
}

/// All deliveries of a provider, by name.
pub fn deliveries(provider: &str) -> BTreeMap<String, Value> {
    let path = folder().join(format!("{provider}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let recorded: Recorded = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let whole = |own| recorded.defaults.clone().into_iter().chain(own).collect();
    recorded.deliveries.into_iter().map(|(name, own)| (name, Value::Object(whole(own)))).collect()
}

/// One delivery of a provider.
pub fn delivery(provider: &str, name: &str) -> Value {
    deliveries(provider).remove(name).unwrap_or_else(|| panic!("{provider}.json has no delivery {name}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers")
}
