//! Whatever an upstream sends, reading it ends within the limits, and what is read does not depend on how it is cut
//! into pieces.
#![no_main]

use bytes::Bytes;
use bytes::BytesMut;
use doorward::target::AnswerParser;
use doorward::target::MAX_HEAD;
use doorward::target::Parsed;
use http::HeaderValue;
use http::Method;
use libfuzzer_sys::fuzz_target;

/// What was read, and how many bytes it took.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: u16,
    content_type: Option<HeaderValue>,
    retry_after: Option<HeaderValue>,
    body: Bytes,
    is_whole: bool,
    is_reusable: bool,
    length: usize,
}

/// Stands for `FILLER` in what is sent, so that limits are reached.
const FILL: u8 = 1;
const FILLER: &[u8] = &[b'x'; 4096];
/// Most bytes that are sent.
const MOST: usize = 256 * 1024;

// Whether the request is a HEAD, how much of the body is read, how often what is sent is cut, after how many bytes each
// time, and what is sent.
fuzz_target!(|input: &[u8]| {
    let [is_head, low, high, cuts] = input.first_chunk().copied().unwrap_or_default();
    let Some((lengths, sent)) = input.get(4..).and_then(|rest| rest.split_at_checked(cuts.into())) else { return };
    let mut bytes = Vec::new();
    for byte in sent {
        bytes.extend_from_slice(if *byte == FILL { FILLER } else { std::slice::from_ref(byte) });
    }
    bytes.truncate(MOST);
    let method = if is_head % 2 == 1 { Method::HEAD } else { Method::POST };
    check(&method, u16::from_le_bytes([low, high]).into(), &bytes, lengths);
});

fn check(method: &Method, max: usize, bytes: &[u8], lengths: &[u8]) {
    let whole = read(method, max, [bytes].into_iter());
    let pieces = read(method, max, cut(bytes, lengths));
    assert_eq!(whole, pieces, "in pieces");
    assert_eq!(whole, read(method, max, bytes.chunks(1)), "byte by byte");
    let Some(whole) = whole else { return };
    assert!(whole.body.len() <= max && (*method != Method::HEAD || whole.body.is_empty()));
    assert!(whole.is_whole || whole.body.len() == max, "it is read up to the limit");
    assert!(!whole.is_reusable || (whole.is_whole && whole.length == bytes.len()), "nothing is left of it");
    // Of one that tells its end, no part is an answer.
    if whole.is_reusable && whole.length > 0 {
        let part = bytes.get(..whole.length - 1).unwrap_or_default();
        assert_eq!(read(method, max, [part].into_iter()), None, "it was cut off");
    }
}

/// Reads what comes in pieces, and after which the connection is closed; nothing when it is no answer.
fn read<'b>(method: &Method, max: usize, mut pieces: impl Iterator<Item = &'b [u8]>) -> Option<Read> {
    let (mut parser, mut buffer) = (AnswerParser::new(method, max), BytesMut::new());
    let mut received = 0;
    let parsed = loop {
        let Some(piece) = pieces.next() else { break parser.end(&mut buffer).ok()? };
        received += piece.len();
        buffer.extend_from_slice(piece);
        if let Some(parsed) = parser.parse(&mut buffer).ok()? {
            break parsed;
        }
        assert!(buffer.len() <= max.max(MAX_HEAD) + piece.len() + 32, "{} bytes wait", buffer.len());
    };
    let left: usize = pieces.map(<[u8]>::len).sum();
    let Parsed { answer, is_reusable } = parsed;
    Some(Read {
        status: answer.status.as_u16(),
        content_type: answer.content_type,
        retry_after: answer.retry_after,
        body: answer.body,
        is_whole: answer.is_whole,
        // What has not been received yet is found before the next request.
        is_reusable: is_reusable && left == 0,
        length: received - buffer.len(),
    })
}

/// Pieces of these lengths, and the rest.
fn cut<'b>(bytes: &'b [u8], lengths: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    let mut rest = bytes;
    let lengths = lengths.iter();
    let mut pieces: Vec<_> = lengths.filter_map(|length| rest.split_off(..usize::from(*length))).collect();
    pieces.push(rest);
    pieces.into_iter()
}
