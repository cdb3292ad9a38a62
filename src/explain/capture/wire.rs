//! Parses raw HTTP/1 requests (RFC 9112), also with line ends that an editor has changed.

use http::HeaderMap;
use http::header;

use super::Capture;
use super::add;

/// Most headers of a captured request.
const MAX_HEADERS: usize = 256;

const NO_REQUEST: &str = "is neither JSON nor an HTTP request, which begins with a line such as POST /webhooks HTTP/1.1, then \
                          headers, an empty line and the body";

/// Reads a raw request; lines may end with a line feed alone.
pub(super) fn raw(bytes: &[u8]) -> Result<Capture, String> {
    let bytes = with_version_1(bytes);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if request.path.is_some() => {
            return Err("ends before the empty line that stands between headers and body".to_owned());
        }
        Ok(httparse::Status::Partial) => return Err(NO_REQUEST.to_owned()),
        Err(error) => return Err(format!("{NO_REQUEST}: {error}")),
    };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        add(&mut map, header.name, header.value)?;
    }
    let rest = bytes.get(length..).unwrap_or_default().to_vec();
    let (body, note) = body(&map, rest);
    let mut capture = Capture::new(request.method.unwrap_or_default(), request.path.unwrap_or_default(), map, body)?;
    capture.notes.extend(note);
    Ok(capture)
}

/// Replaces the version by HTTP/1.1, which the parser supports: tools show HTTP/2 requests in the form of HTTP/1.
fn with_version_1(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    let text = String::from_utf8_lossy(line);
    let line = text.trim_end();
    let line = match line.rsplit_once(" HTTP/") {
        Some((before, _)) => format!("{before} HTTP/1.1"),
        // A browser's "copy as text" leaves the version out.
        None if line.split(' ').count() == 2 => format!("{line} HTTP/1.1"),
        None => line.to_owned(),
    };
    [line.as_bytes(), rest].concat()
}

/// The body in the bytes after the head, and a note for the reader.
fn body(headers: &HeaderMap, rest: Vec<u8>) -> (Vec<u8>, Option<String>) {
    let chunked = headers.get(header::TRANSFER_ENCODING).is_some_and(|coding| coding == "chunked");
    if chunked && let Some(body) = unchunked(&rest) {
        return (body, Some("its chunks were joined".to_owned()));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if rest.len() > length => {
            let note = format!(
                "the file has {} bytes after the {length} that Content-Length counts; they are left out",
                rest.len() - length
            );
            (rest.get(..length).unwrap_or_default().to_vec(), Some(note))
        }
        Some(length) if rest.len() < length => {
            let note = format!(
                "Content-Length counts {length} bytes, and the file has {} of the body: the capture has lost some, such as \
                 the carriage returns of its lines",
                rest.len()
            );
            (rest, Some(note))
        }
        _ => (rest, None),
    }
}

/// A body without its chunked framing (RFC 9112 section 7.1); `None` when it has none.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((head, size)) = httparse::parse_chunk_size(rest).ok()? else { return None };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(body);
        }
        let end = head.checked_add(size)?;
        body.extend_from_slice(rest.get(head..end)?);
        let after = rest.get(end..)?;
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n"))?;
    }
}
