//! Parses the copied text of GitHub's page for a webhook delivery: headers line by line, then the payload.

use http::HeaderMap;

use super::Capture;
use super::add;

/// Reads the text of the page; `None` for anything else.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Capture, String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let field = |name: &str| text.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.trim()));
    let (url, method) = (field("Request URL:")?, field("Request method:")?);
    let body = text.find("\n{").or_else(|| text.find("\n["));
    let (head, body) = text.split_at(body.map_or(text.len(), |at| at + 1));
    Some(delivery(url, method, head, body.trim_end()))
}

fn delivery(url: &str, method: &str, head: &str, body: &str) -> Result<Capture, String> {
    let mut headers = HeaderMap::new();
    for line in head.lines() {
        // URL and method, which are no headers, have a space in their names; the titles of the page have no colon.
        if let Some((name, value)) = line.trim().split_once(':').filter(|(name, _)| !name.contains(' ')) {
            add(&mut headers, name, value.trim().as_bytes())?;
        }
    }
    let mut capture = Capture::new(method, url, headers, body.as_bytes().to_vec())?;
    capture.lacks_body = body.is_empty();
    capture
        .notes
        .push("the page shows the payload written anew: how the bytes of the body were written is lost".to_owned());
    Ok(capture)
}
