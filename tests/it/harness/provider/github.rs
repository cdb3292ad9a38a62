//! GitHub: its source, its deliveries.

use std::net::SocketAddr;

use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;

/// GitHub, whose event id is a header that is not signed, and whose bodies are any bytes.
pub struct Github;

impl Github {
    /// A source with the shared secret that delivers to `upstream`.
    pub fn source(upstream: &str) -> String {
        Self::delivering(&format!("upstream = {{ url = \"{upstream}\" }}"))
    }

    /// A source with the shared secret that delivers so.
    pub fn delivering(so: &str) -> String {
        format!(
            "[sources.github]\nprofile = \"github\"\npath = \"/webhooks/github\"\nsecrets = [\"plain:{SECRET}\"]\n\
             deliver.{so}\n"
        )
    }

    /// A genuine delivery.
    pub fn delivery(id: &str, body: impl Into<Vec<u8>>) -> Delivery {
        let body = body.into();
        let signature = format!("sha256={}", hmac_hex(SECRET, &[&body]));
        Delivery {
            method: "POST".to_owned(),
            path: "/webhooks/github".to_owned(),
            headers: vec![
                ("Content-Type".to_owned(), "application/json".to_owned()),
                ("X-GitHub-Event".to_owned(), "push".to_owned()),
                ("X-GitHub-Delivery".to_owned(), id.to_owned()),
                ("X-Hub-Signature-256".to_owned(), signature),
            ],
            body,
        }
    }
}

/// Asserts that a genuine event of a GitHub source gets through, as if nothing had happened before.
#[track_caller]
pub fn assert_serves(gateway: SocketAddr, upstream: &Upstream) {
    let id = format!("after-{}", upstream.received().len());
    let answer = Github::delivery(&id, format!("{{\"id\":\"{id}\"}}")).send(gateway);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.ids().last(), Some(&id));
}
