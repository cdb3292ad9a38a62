//! Gateways with one source: of a shipped profile, or of one that a test writes itself.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;

use tempfile::TempDir;

use super::Delivery;
use super::Gateway;
use super::Upstream;
use super::connect;

/// A gateway with one source of this profile at `/NAME`, which delivers to the upstream; `lines` say the rest of it.
#[track_caller]
pub fn shipped(name: &str, lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&section(name, lines, &upstream));
    (gateway, upstream)
}

/// The same with a profile of the test's own, which is called `own`.
#[track_caller]
pub fn own(profile: &str, lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let sections = format!("profiles = \"profiles\"\n{}", section("own", lines, &upstream));
    let gateway = Gateway::start_in(with_profile(profile), &sections);
    (gateway, upstream)
}

/// A folder in which `profiles/own.toml` is this profile.
pub fn with_profile(profile: &str) -> TempDir {
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

/// A request with these headers.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Delivery {
    Delivery {
        method: method.to_owned(),
        path: target.to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.into(),
    }
}

/// All bytes that the gateway answers, up to the end of the connection.
#[track_caller]
pub fn everything(address: SocketAddr, delivery: &Delivery) -> String {
    let mut stream = connect(address);
    stream.write_all(&delivery.clone().with("Connection", "close").bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    String::from_utf8(bytes).expect("text")
}

impl Gateway {
    /// How many requests of a source ended so.
    pub fn outcomes(&self, source: &str, outcome: &str) -> f64 {
        self.metric(&format!("doorward_requests_total{{outcome=\"{outcome}\",source=\"{source}\"}}"))
    }

    /// How many requests of a source were refused for this.
    pub fn refusals(&self, source: &str, reason: &str) -> f64 {
        self.metric(&format!("doorward_refusals_total{{reason=\"{reason}\",source=\"{source}\"}}"))
    }
}
