//! Hypotheses: the body was compressed or decompressed after it was signed, or its `Content-Encoding` is wrong or
//! missing.

use bytes::Bytes;
use http::header;

use super::Hypothesis;
use crate::explain::Case;
use crate::explain::json_styles::MAX_BODY;
use crate::http::content_coding::Coding;
use crate::profile::ContentEncoding;

/// The same request with the other bytes signed, decompressed, or without `Content-Encoding`.
pub(super) fn hypothesis(case: &Case) -> Vec<Hypothesis> {
    match Coding::from_headers(&case.headers) {
        Ok(Some(coding)) if plain(coding, &case.body).is_some() => signed_otherwise(case),
        Ok(Some(_)) => vec![not_compressed(case)],
        Ok(None) => {
            [Coding::Gzip, Coding::Deflate].into_iter().filter_map(|coding| without_header(case, coding)).collect()
        }
        Err(_unsupported) => Vec::new(),
    }
}

/// The signature covers the other form of the body than the profile says.
fn signed_otherwise(case: &Case) -> Vec<Hypothesis> {
    let Some(spec) = case.profile.content_encoding else { return Vec::new() };
    let (signed_form, other) = match spec {
        ContentEncoding::SignedPlain => ("as sent", ContentEncoding::SignedAsSent),
        ContentEncoding::SignedAsSent => ("before its compression", ContentEncoding::SignedPlain),
    };
    let description = format!(
        "the signature is right over the body {signed_form}, and the profile says content_encoding = \"{}\". Write \
         content_encoding = \"{}\".",
        spec.name(),
        other.name()
    );
    let mut case = case.clone();
    case.profile.content_encoding = Some(other);
    vec![Hypothesis::new(description, case)]
}

/// `Content-Encoding` is wrong: the body is not compressed.
fn not_compressed(case: &Case) -> Hypothesis {
    let mut case = case.clone();
    case.headers.remove(header::CONTENT_ENCODING);
    let description = "the request says that its body is compressed, and it is not: something decompresses it and leaves \
                 Content-Encoding, or the capture shows it so. The signature belongs to the body before it was compressed.";
    Hypothesis::request(description, case)
}

/// `Content-Encoding` is missing: the body is compressed.
fn without_header(case: &Case, coding: Coding) -> Option<Hypothesis> {
    let description = "the body is compressed, and the request does not say so: something on the way compresses it, or has lost \
                 Content-Encoding. The signature belongs to the body before it was compressed.";
    Some(Hypothesis::body(description.to_owned(), plain(coding, &case.body)?, case))
}

/// The decompressed body, if it has at most [`MAX_BODY`] bytes.
fn plain(coding: Coding, body: &Bytes) -> Option<Bytes> {
    coding.decompress(body, MAX_BODY).ok().flatten().map(Bytes::from)
}
