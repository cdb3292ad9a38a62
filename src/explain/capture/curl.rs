//! Parses requests in the output of curl: `-v`, `--trace-ascii` and `--trace`.

use http::header;

use super::Capture;
use super::wire;

/// Bytes in a line of `--trace`.
const WIDTH: usize = 16;

/// Reads the output of curl; `None` for anything else.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Capture, String>> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    if lines.iter().any(|line| sent(line, "header").is_some()) {
        return Some(traced(&lines));
    }
    let first = lines.iter().position(|line| line.starts_with("> ") && line.contains(" HTTP/"))?;
    Some(verbose(lines.get(first..).unwrap_or_default()))
}

/// Reads the output of `-v` from the request on: the lines of its head begin with `>`, and there is no body.
fn verbose(lines: &[&str]) -> Result<Capture, String> {
    let head = lines.iter().filter_map(|line| line.strip_prefix('>')).map(str::trim);
    let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
    let mut capture = wire::raw(format!("{}\r\n\r\n", head.join("\r\n")).as_bytes())?;
    let length = capture.headers.get(header::CONTENT_LENGTH);
    capture.lacks_body =
        length.is_some_and(|length| length != "0") || capture.headers.contains_key(header::TRANSFER_ENCODING);
    // It says that the body is shorter than its Content-Length.
    capture.notes.clear();
    Ok(capture)
}

/// The number of bytes in a line such as `=> Send header, 120 bytes (0x78)`.
fn sent(line: &str, what: &str) -> Option<usize> {
    let rest = line.split_once("=> Send ")?.1.strip_prefix(what)?.strip_prefix(", ")?;
    rest.split(' ').next()?.parse().ok()
}

/// The head and the data of the first request of a trace.
fn traced(lines: &[&str]) -> Result<Capture, String> {
    let mut bytes = Vec::new();
    let (mut heads, mut ambiguous) = (0, false);
    for (at, line) in lines.iter().enumerate() {
        let (head, data) = (sent(line, "header"), sent(line, "data"));
        heads += usize::from(head.is_some());
        let Some(size) = head.or(data).filter(|_| heads == 1) else { continue };
        let shown: Vec<_> = lines.iter().skip(at + 1).map_while(|line| offset(line)).collect();
        let (block, exact) = block(&shown, size)
            .ok_or("is a trace of curl that cannot be read: a line is cut, or stands where none should")?;
        ambiguous |= data.is_some() && !exact;
        bytes.extend(block);
    }
    let mut capture = wire::raw(&bytes)?;
    if ambiguous {
        capture.notes.push(
            "curl --trace-ascii writes a point for each byte that is no printable ASCII, such as a line feed: where the \
             signature does not match, capture with --trace, or name the file that was sent with --body"
                .to_owned(),
        );
    }
    Ok(capture)
}

/// The offset and the rest of a line such as `0040: text`.
fn offset(line: &str) -> Option<(usize, &str)> {
    let (digits, rest) = line.split_once(':')?;
    let offset = usize::from_str_radix(digits, 16).ok().filter(|_| digits.len() >= 4)?;
    Some((offset, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// The bytes of one block, and whether they are exact: `--trace-ascii` also writes a point for unprintable bytes.
fn block(lines: &[(usize, &str)], size: usize) -> Option<(Vec<u8>, bool)> {
    if let Some(bytes) = hexadecimal(lines, size) {
        return Some((bytes, true));
    }
    let mut bytes = Vec::new();
    let mut ends = lines.iter().skip(1).map(|(offset, _)| *offset);
    for (offset, text) in lines {
        if *offset != bytes.len() {
            return None;
        }
        bytes.extend(text.as_bytes());
        // A line ends early at a line break.
        match ends.next().unwrap_or(size).checked_sub(bytes.len())? {
            0 => {}
            2 => bytes.extend(b"\r\n"),
            _ => return None,
        }
    }
    let exact = !bytes.contains(&b'.');
    (bytes.len() == size).then_some((bytes, exact))
}

/// The bytes of a block of `--trace`, which has two hexadecimal digits for each before the text.
fn hexadecimal(lines: &[(usize, &str)], size: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (offset, text) in lines {
        let here = size.checked_sub(*offset)?.min(WIDTH);
        if *offset != bytes.len() || text.chars().count() != 3 * WIDTH + here {
            return None;
        }
        for pair in text.split(' ').take(here) {
            bytes.push(u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2)?);
        }
    }
    (bytes.len() == size).then_some(bytes)
}
