//! The head of a request of HTTP/2, made what that of HTTP/1.1 is: everything behind it relies on that.

use http::HeaderMap;
use http::HeaderValue;
use http::Uri;
use http::header;

use crate::http::body::Unreadable;

/// The most headers of a request, as hyper has it for HTTP/1.1.
const MAX_HEADERS: usize = 100;

/// What a stream takes in memory besides the text of its head and its body: its task, timer and tables.
const STREAM: usize = 8 * 1024;
/// What a header takes besides its text, as in RFC 9113 section 6.5.2.
const HEADER: usize = 32;

/// Checks a head and adds `Host`.
///
/// # Errors
/// [`Unreadable`] when it has too many headers, white space around a value, which HTTP/1.1 would drop, or two hosts.
pub(super) fn normalize(target: &Uri, headers: &mut HeaderMap) -> Result<(), Unreadable> {
    if headers.len() > MAX_HEADERS {
        return Err(Unreadable::HeadTooLarge);
    }
    let is_padded = |value: &HeaderValue| {
        let ends = [value.as_bytes().first(), value.as_bytes().last()];
        ends.into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
    };
    if headers.values().any(is_padded) {
        return Err(Unreadable::HeadMalformed);
    }
    join_cookies(headers);
    let Some(authority) = target.authority() else { return Ok(()) };
    let is_other = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    if authority.as_str().contains('@') || headers.get_all(header::HOST).iter().any(is_other) {
        return Err(Unreadable::HostMismatch);
    }
    if !headers.contains_key(header::HOST) {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_bad| Unreadable::HeadMalformed)?;
        headers.insert(header::HOST, host);
    }
    Ok(())
}

/// Makes one `Cookie` of several (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// The bytes of a stream with its head in memory.
pub(super) fn size(target: &Uri, headers: &HeaderMap) -> usize {
    let path = target.path_and_query().map_or(0, |path| path.as_str().len());
    headers.iter().map(|(name, value)| HEADER + name.as_str().len() + value.len()).sum::<usize>() + path + STREAM
}
