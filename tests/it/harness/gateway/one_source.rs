//! Gateways with one source: of a shipped profile, or of one that a test writes itself.

use tempfile::TempDir;

use crate::harness::gateway::Gateway;
use crate::harness::upstream::Upstream;

/// A gateway with one source of this profile at `/NAME`, which delivers to the upstream; `lines` say the rest of it.
#[track_caller]
pub fn start_shipped(name: &str, lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&section(name, lines, &upstream));
    (gateway, upstream)
}

/// The same with a profile of the test's own, which is called `own`.
#[track_caller]
pub fn start_with_profile(profile: &str, lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let sections = format!("profiles = \"profiles\"\n{}", section("own", lines, &upstream));
    let gateway = Gateway::start_in(folder_with_profile(profile), &sections);
    (gateway, upstream)
}

/// A folder in which `profiles/own.toml` is this profile.
pub fn folder_with_profile(profile: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("profiles")).expect("a folder");
    std::fs::write(folder.path().join("profiles/own.toml"), format!("title = \"Own\"\n{profile}")).expect("a profile");
    folder
}

fn section(name: &str, lines: &str, upstream: &Upstream) -> String {
    let url = upstream.url();
    format!(
        "[sources.{name}]\nprofile = \"{name}\"\npath = \"/{name}\"\n{lines}\ndeliver.upstream = {{ url = \"{url}\" }}\n"
    )
}
