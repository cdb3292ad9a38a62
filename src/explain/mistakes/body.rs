//! Hypotheses: the body was changed after it was signed (final line breaks, JSON, forms, encodings, order of members).

use std::collections::HashSet;

use bytes::Bytes;

use super::Hypothesis;
use super::Variants;
use super::form;
use super::text;
use crate::explain::Case;
use crate::explain::json_styles::rewritten;
use crate::explain::order::reordered;
use crate::extract::mac;
use crate::profile::Hash;

/// The same request with every body that it may have had, generated lazily.
pub(super) fn altered(case: &Case) -> impl Iterator<Item = Hypothesis> {
    let body = &case.body;
    let mut seen = HashSet::from([digest(body)]);
    let variants = ends(body).into_iter().chain(lines(body)).chain(text::encoded(body));
    let variants = variants.chain(form::variants(&case.headers, body)).chain(json(body));
    variants.filter_map(move |(description, bytes)| {
        seen.insert(digest(&bytes)).then(|| Hypothesis::body(description, Bytes::from(bytes), case))
    })
}

/// The same request with the members of its body in every order that they may have had, if they are sorted now.
pub(super) fn ordered(case: &Case) -> impl Iterator<Item = Hypothesis> {
    let sample = case.profile.sample.body.as_deref().unwrap_or_default();
    reordered(&case.body, sample).map(|(order, bytes)| {
        let description = format!(
            "the members of the body are sorted by name, and those that were signed stand {order}: something has sorted them, \
             such as the tool that captured it. Pass on and verify the bytes as they came."
        );
        Hypothesis::body(description, Bytes::from(bytes), case)
    })
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    mac::hash(Hash::Sha256, &[bytes])
}

/// Other white space at the ends.
fn ends(body: &[u8]) -> Variants {
    let added = |end: &str, name: &str| {
        let description = format!(
            "the body has lost {name} at its end, which was signed: something trims it, such as a shell variable or an \
             editor. Keep the body byte for byte."
        );
        (description, [body, end.as_bytes()].concat())
    };
    let mut variants = Vec::new();
    if body.ends_with(b"\n") || body.ends_with(b"\r") {
        let end = body.trim_ascii_end().len();
        let description = "the body has a line break at its end that was not signed: an editor, `echo` or a here-document adds \
                     one. Send it with `curl --data-binary` from a file that `printf` wrote, and capture bytes, not lines.";
        variants.push((description.to_owned(), body.strip_suffix(b"\n").unwrap_or(body).to_vec()));
        variants.push((description.to_owned(), body.strip_suffix(b"\r\n").unwrap_or(body).to_vec()));
        variants.push((description.to_owned(), body.get(..end).unwrap_or_default().to_vec()));
    }
    let description = "the body has blanks around it that were not signed. Keep the body byte for byte.";
    variants.push((description.to_owned(), body.trim_ascii().to_vec()));
    variants.push((description.to_owned(), body.trim_ascii_end().to_vec()));
    variants.extend([added("\n", "a line feed"), added("\r\n", "a line break"), added(" ", "a blank")]);
    variants
}

/// Other line breaks.
fn lines(body: &[u8]) -> Variants {
    let Ok(text) = std::str::from_utf8(body) else { return Vec::new() };
    let unix = text.replace("\r\n", "\n");
    let description = |from: &str, to: &str| {
        format!(
            "the lines of the body end with {from}, and those that were signed with {to}: something converts them, such as \
             git, an editor or a transfer in text mode. Keep the body byte for byte."
        )
    };
    vec![
        (description("a carriage return and a line feed", "a line feed alone"), unix.clone().into_bytes()),
        (description("a line feed", "a carriage return and a line feed"), unix.replace('\n', "\r\n").into_bytes()),
    ]
}

/// Other serialisations of JSON.
fn json(body: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
    let description = |style: &str| {
        format!(
            "the body is the same JSON as the one that was signed, written in another way: what was signed is {style}. \
             Something on the way parses it and writes it again: a body-parsing middleware, a proxy, a log, or the tool that \
             captured it. Pass on and verify the bytes as they came."
        )
    };
    let string = serde_json::from_slice::<String>(body).ok().map(|text| {
        let description =
            "the body is a JSON string that has the signed body in it: it was written as JSON once too often.";
        (description.to_owned(), text.into_bytes())
    });
    let variants = rewritten(body).flat_map(move |(style, bytes)| {
        let with_end = [bytes.as_slice(), b"\n"].concat();
        [(description(&style), bytes), (description(&style), with_end)]
    });
    string.into_iter().chain(variants)
}
