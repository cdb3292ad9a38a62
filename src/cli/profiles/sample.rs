//! Writes a sample table `[sources.NAME]` for a profile, to paste into a configuration.

use super::wording;
use crate::profile::Combination;
use crate::profile::KeyForm;
use crate::profile::Profile;
use crate::profile::Scheme;

/// Longest line of addresses, in bytes.
const WIDTH: usize = 100;

/// A source with this profile; `…` stands for values that only the operator knows.
pub(super) fn source(name: &str, profile: &Profile) -> String {
    let mut out = format!("[sources.{name}]\nprofile = \"{name}\"\npath    = \"/webhooks/{name}\"\n");
    out.push_str(&secrets(name, profile));
    for (param, spec) in &profile.params {
        let comment = if spec.default.is_some() { "# " } else { "" };
        let value = quoted(spec.default.as_deref().unwrap_or("…"));
        out.push_str(&format!("{comment}params.{param} = {value}   # {}\n", line(&spec.about)));
    }
    out.push_str(&allow(profile));
    if let Some(largest) = profile.largest_body() {
        let largest = largest.to_string().replace(".0 ", "");
        out.push_str(&format!("max_body = {}   # it sends as much\n", quoted(&largest)));
    }
    out.push_str("deliver.upstream = { url = \"http://127.0.0.1:3000/\" }\n");
    out
}

/// A text for a comment: on one line.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A basic string of TOML: like a JSON string, except that TOML requires DEL to be escaped.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn secrets(name: &str, profile: &Profile) -> String {
    let keys = keys(profile);
    if keys.is_empty() {
        return String::new();
    }
    let variable = name.to_uppercase().replace('-', "_");
    let mut about = String::new();
    let mut entries = Vec::new();
    for (at, (optional, scheme, key)) in keys.iter().enumerate() {
        let what = key.about.as_deref().map_or_else(|| format!("the key of {}", scheme.title()), line);
        let public = if scheme.is_asymmetric() { "; public, so that it may stand here" } else { "" };
        let other = match (at, profile.auth.combination, optional) {
            (0, _, _) => "",
            (_, Combination::First, _) => "or instead, or besides, ",
            (_, Combination::All, true) => "and where there is one, ",
            (_, Combination::All, false) => "and ",
        };
        let entry = if matches!(scheme, Scheme::Jwt(_)) && scheme.is_asymmetric() {
            format!("\"file:/etc/doorward/{name}.jwks\"")
        } else if scheme.is_asymmetric() {
            "\"plain:…\"".to_owned()
        } else if at == 0 {
            format!("\"env:{variable}_SECRET\"")
        } else {
            format!("\"env:{variable}_SECRET_{}\"", at + 1)
        };
        about.push_str(&format!("# {other}{what}{public}"));
        let needed = at == 0 || profile.auth.combination == Combination::All && !optional;
        if needed {
            entries.push(entry);
        } else {
            about.push_str(&format!(": {entry}"));
        }
        about.push('\n');
    }
    format!("{about}secrets = [{}]\n", entries.join(", "))
}

/// The keys of the profile without repetitions, and whether each is optional.
fn keys(profile: &Profile) -> Vec<(bool, &Scheme, &KeyForm)> {
    let mut keys: Vec<(bool, &Scheme, &KeyForm)> = Vec::new();
    for member in &profile.auth.members {
        if let Some(key) = member.scheme.key(profile.fetches_keys())
            && !keys.iter().any(|(_, known, form)| form.about == key.about && known.table() == member.scheme.table())
        {
            keys.push((member.optional, &member.scheme, key));
        }
    }
    keys
}

fn allow(profile: &Profile) -> String {
    let addresses: Vec<_> = profile.facts.addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let list = addresses.join(", ");
    if list.is_empty() {
        return String::new();
    }
    if list.len() <= WIDTH {
        return format!("# allow = [{list}]   # the provider's addresses\n");
    }
    let lines = wording::wrapped(&list, WIDTH);
    let lines: String = lines.iter().map(|line| format!("#   {line}\n")).collect();
    format!("# allow = [   # the provider's addresses\n{lines}# ]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_profile_says_the_source_is_toml() {
        let text = r#"
            title = "X"
            [params.one]
            about = "a line\nand = [another"
            default = "say \"it\" \\ \n twice\u007f"
            [params.two]
            about = "\u0007"
            [auth.hmac]
            key = { about = "the key\r\nin = [two lines" }
            signature = { header = "X-S", encoding = "hex" }
            signed = "{body}"
            [[require]]
            header = "X-P"
            equals = "{one}{two}"
            [event]
            id = { json = "/id" }
        "#;
        let profile = Profile::parse(text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let source = source("x", &profile);
        let read: toml::Table = source.parse().unwrap_or_else(|wrong| panic!("a line break left its comment: {wrong}"));
        assert_eq!(read["sources"]["x"]["params"]["two"].as_str(), Some("…"), "{source}");
        let given: toml::Table = source.replace("# params.", "params.").parse().expect("the default is TOML too");
        assert_eq!(given["sources"]["x"]["params"]["one"].as_str(), Some("say \"it\" \\ \n twice\u{7f}"));
    }
}
