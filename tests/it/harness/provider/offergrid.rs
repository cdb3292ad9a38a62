//! Offergrid: its source, its deliveries.

use std::time::SystemTime;

use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::signing::hmac_hex;

/// A source of Offergrid with the shared secret that delivers to `upstream`.
pub fn offergrid_source(upstream: &str) -> String {
    format!(
        "[sources.offergrid]\nprofile = \"offergrid\"\npath = \"/webhooks/offergrid\"\nsecrets = [\"plain:{SECRET}\"]\n\
         deliver.upstream = {{ url = \"{upstream}\" }}\n"
    )
}

/// A genuine delivery of Offergrid, which signs the time and has the id in its body.
pub fn offergrid(id: &str, sent: SystemTime) -> Delivery {
    offergrid_signed(format!(r#"{{"id":"{id}","event":"order.created","data":{{"n":1}}}}"#), sent)
}

/// Any body, signed as Offergrid does.
pub fn offergrid_signed(body: impl Into<Vec<u8>>, sent: SystemTime) -> Delivery {
    let body = body.into();
    let time = sent.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs().to_string();
    let signature = hmac_hex(SECRET, &[time.as_bytes(), b".", &body]);
    Delivery {
        method: "POST".to_owned(),
        path: "/webhooks/offergrid".to_owned(),
        headers: vec![
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("X-Offergrid-Timestamp".to_owned(), time),
            ("X-Offergrid-Signature".to_owned(), signature),
        ],
        body,
    }
}
