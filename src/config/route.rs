//! Reads where a source is reached: `path` and `host`.

use std::collections::BTreeMap;

use super::section::Section;

/// Which source has a path with a host, or with `""` for any.
pub(super) type Taken<'n> = BTreeMap<(String, String), &'n str>;

/// Where a source is reached.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) path: String,
    /// In lower case; any when there are none.
    pub(super) hosts: Vec<String>,
}

impl Route {
    /// Reads the route of the source of this name, and reports another one that has it.
    pub(super) fn read<'n>(section: &mut Section<'_>, name: &'n str, taken: &mut Taken<'n>) -> Option<Self> {
        let path = section.required("path", path);
        let route = path.zip(hosts(section)).map(|(path, hosts)| Self { path, hosts })?;
        let any = [String::new()];
        for host in if route.hosts.is_empty() { &any[..] } else { &route.hosts } {
            match taken.insert((route.path.clone(), host.clone()), name) {
                Some(other) if host.is_empty() => {
                    section.error("path", format!("is the path of sources.{other} too; each source needs its own"));
                }
                Some(other) => {
                    section.error("host", format!("has {host:?}, and sources.{other} has that with the same path too"));
                }
                None => {}
            }
        }
        Some(route)
    }
}

/// A path as in a request line.
pub(super) fn path(text: &str) -> Result<String, String> {
    let is_path = text.parse::<http::Uri>().is_ok_and(|uri| uri.authority().is_none() && uri.path() == text);
    if text.starts_with('/') && is_path {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a path such as \"/webhooks/github\", without query and without spaces"))
}

/// The hosts of a source, in lower case; any when there are none, and `None` when there is a problem.
fn hosts(section: &mut Section<'_>) -> Option<Vec<String>> {
    let is_host = |text: &str| text.parse::<http::uri::Authority>().is_ok_and(|authority| authority.host() == text);
    let written = section.list("host", |text| Ok(text.to_ascii_lowercase()));
    if written.is_empty() && section.has("host") {
        section.error("host", "names none; remove it to take requests to any");
        return None;
    }
    let wrong: Vec<_> = written.iter().filter(|text| !is_host(text)).collect();
    for text in &wrong {
        section.error("host", format!("{text:?} is not a host such as \"hooks.example.com\", without a port"));
    }
    wrong.is_empty().then_some(written)
}
