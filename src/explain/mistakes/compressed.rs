//! Bodies that are compressed, or are said to be.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flate2::read::ZlibDecoder;
use http::header;

use super::Undone;
use crate::explain::Case;
use crate::explain::rewritten::MAX_BODY;

/// The same request with the bytes before and after compression, and without a header that says which they are.
pub(super) fn undone(case: &Case) -> Vec<Undone> {
    let said = case.headers.contains_key(header::CONTENT_ENCODING);
    let plain = decompressed(&case.body);
    let mut bare = case.clone();
    bare.headers.remove(header::CONTENT_ENCODING);
    let mut all = Vec::new();
    if let Some(plain) = &plain {
        let words = if said {
            "the signature belongs to the body before it was compressed: content_encoding = \"signed-plain\" in the profile says \
             that this provider signs so."
        } else {
            "the body is compressed, and the request does not say so: something on the way compresses it, or has lost \
             Content-Encoding. The signature belongs to the body before it was compressed."
        };
        let mut case = bare.clone();
        case.body = Bytes::copy_from_slice(plain);
        all.push(Undone::request(words, case));
    }
    if said {
        let words = if plain.is_some() {
            "the signature belongs to the compressed bytes, as they were sent: content_encoding = \"signed-as-sent\" in the \
             profile says that this provider signs so."
        } else {
            "the request says that its body is compressed, and it is not: something decompresses it and leaves \
             Content-Encoding, or the capture shows it so. The signature belongs to the body before it was compressed."
        };
        all.push(Undone::request(words, bare));
    }
    all
}

/// What gzip (RFC 1952) or zlib (RFC 1950) has compressed, no more than [`MAX_BODY`]; `None` when neither has.
fn decompressed(body: &[u8]) -> Option<Vec<u8>> {
    let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    let mut plain = Vec::new();
    let read = match body {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(body).take(limit + 1).read_to_end(&mut plain),
        [0x78, ..] => ZlibDecoder::new(body).take(limit + 1).read_to_end(&mut plain),
        _ => return None,
    };
    (read.is_ok() && plain.len() <= MAX_BODY).then_some(plain)
}
