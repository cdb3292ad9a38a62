//! A server that has a few files.

use std::collections::BTreeMap;

use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

/// The server.
pub struct FileServer(Upstream);

impl FileServer {
    /// Answers requests for these paths with these texts, and others with 404.
    pub fn serving(files: BTreeMap<String, String>) -> Self {
        Self(Upstream::with(move |_, request| {
            let target = request.start.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match files.get(target) {
                Some(body) => ("200 OK", body.as_str()),
                None => ("404 Not Found", ""),
            };
            Reply::Raw(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
        }))
    }

    pub fn address(&self) -> String {
        self.0.address().to_string()
    }
}
