//! A signature is believed when it is written as the profile says, and never otherwise.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::extract::mac;
use doorward::extract::params::Params;
use doorward::http::inbound::Inbound;
use doorward::profile::Encoding;
use doorward::profile::Hash;
use doorward::profile::Item;
use doorward::profile::Profile;
use doorward::verify::KeySets;
use doorward::verify::compile::ReplayPolicy;
use doorward::verify::compile::RequestVerifier;
use doorward_fuzz::cut;
use doorward_fuzz::now;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use libfuzzer_sys::fuzz_target;

const ENCODINGS: [Encoding; 3] = [Encoding::Hex, Encoding::Base64, Encoding::Base64url];
const HASHES: [(Hash, &str); 3] = [(Hash::Sha256, "sha256"), (Hash::Sha512, "sha512"), (Hash::Sha1, "sha1")];
/// Whether there are several headers, the prefix, and key, separator and assign of an entry.
const SHAPES: [(bool, &str, Option<(&str, char, char)>); 8] = [
    (false, "", None),
    (false, "sha256=", None),
    (false, "", Some(("v1", ',', '='))),
    (false, "", Some(("v1", ' ', ','))),
    (false, "p:", Some(("s", ';', ':'))),
    (true, "", None),
    (true, "v1=", None),
    (true, "", Some(("v1", ',', '='))),
];
const SECRET: &str = "of nobody's";

static VERIFIERS: LazyLock<Vec<RequestVerifier>> =
    LazyLock::new(|| (0..SHAPES.len() * ENCODINGS.len() * HASHES.len()).map(verifier).collect());

/// The shape, encoding and hash with this number.
fn chosen(number: usize) -> (usize, usize, usize) {
    let rest = number / SHAPES.len();
    (number % SHAPES.len(), rest % ENCODINGS.len(), rest / ENCODINGS.len() % HASHES.len())
}

fn verifier(number: usize) -> RequestVerifier {
    let (shape, encoding, hash) = chosen(number);
    let (numbered, prefix, item) = SHAPES[shape];
    let item = item
        .map(|(key, separator, assign)| format!(r#", item = "{key}", separator = "{separator}", assign = "{assign}""#));
    let prefix = if prefix.is_empty() { String::new() } else { format!(r#", prefix = "{prefix}""#) };
    let text = format!(
        "title = \"X\"\n[auth.hmac]\nhash = \"{}\"\nsigned = \"{{body}}\"\nsignature = {{ header = \"X-S\", \
         numbered = {numbered}, encoding = \"{}\"{prefix}{} }}\n[event]\nid = {{ unique = true }}\n",
        HASHES[hash].1,
        ["hex", "base64", "base64url"][encoding],
        item.unwrap_or_default()
    );
    let profile = Profile::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
    let secrets = [Secret::new(SECRET).expect("a secret")];
    let replays = ReplayPolicy::new(Duration::MAX, None, &[]);
    RequestVerifier::new(&profile, &secrets, &Params::new(), replays, &mut KeySets::new()).expect("everything fits")
}

// What is chosen; three headers, one a line, in which the first control characters stand for the signature in several
// spellings; the body.
fuzz_target!(|input: &[u8]| {
    let Some((number, rest)) = input.split_first() else { return };
    let number = usize::from(*number) % VERIFIERS.len();
    let (shape, encoding, hash) = chosen(number);
    let mut lines = Vec::new();
    let mut body = rest;
    while lines.len() < 3
        && let Some((line, after)) = cut(body, b'\n')
    {
        lines.push(line);
        body = after;
    }
    decode(body);
    list(&lines, body);

    let key = mac::Key::new(HASHES[hash].0, SECRET.as_bytes()).expect("a key");
    let digest = key.digest(&[body]);
    let written = ENCODINGS[encoding].encode(&digest);
    let spelled = |line: &[u8]| {
        let mut out = Vec::new();
        for byte in line {
            match byte {
                1 => out.extend(written.bytes()),
                2 => out.extend(written.to_ascii_uppercase().bytes()),
                3 => out.extend(written.trim_end_matches('=').bytes()),
                4 => out.extend(Encoding::Base64.encode(&digest).replace('+', "-").replace('/', "_").bytes()),
                5 => out.extend(written.bytes().skip(1)),
                6 => out.extend(const_hex::encode(&digest).bytes()),
                byte => out.push(*byte),
            }
        }
        out
    };
    let (numbered, prefix, item) = SHAPES[shape];
    let names: &[&str] = if numbered { &["x-s-1", "x-s-2", "x-s-3"] } else { &["x-s"] };
    let mut headers = HeaderMap::new();
    let mut values = Vec::new();
    for (name, line) in names.iter().zip(&lines) {
        let Ok(value) = HeaderValue::from_bytes(&spelled(line)) else { break };
        headers.insert(HeaderName::from_static(name), value.clone());
        values.push(value);
    }
    let inbound = Inbound::recorded(Method::POST, Uri::from_static("/"), headers, Bytes::copy_from_slice(body), now());
    let verified = doorward_fuzz::wait(VERIFIERS[number].authenticator.verify(inbound, now()));
    let texts: Option<Vec<&str>> = values.iter().map(|value| value.to_str().ok()).collect();
    let right =
        |text: &str| text.strip_prefix(prefix).is_some_and(|text| is_written(ENCODINGS[encoding], text, &digest));
    let expected = texts.unwrap_or_default().into_iter().any(|text| match item {
        None => right(text),
        Some((key, separator, assign)) => naive(text, key, separator, assign).into_iter().any(right),
    });
    assert_eq!(verified.is_ok(), expected, "{values:?} {verified:?}");
});

/// Only what encoding gives back is decoded, but for the liberties that RFC 4648 and profiles leave.
fn decode(text: &[u8]) {
    for encoding in ENCODINGS {
        let decoded = encoding.decode_vec(text, 64);
        if let Some(bytes) = &decoded {
            assert!(bytes.len() <= 64, "{encoding:?} {text:?}");
            assert!(
                std::str::from_utf8(text).is_ok_and(|text| is_written(encoding, text, bytes)),
                "{encoding:?} {text:?}"
            );
        }
        for length in [0, 1, 2, 20, 32, 64] {
            let mut buffer = vec![0; length];
            let taken = encoding.decode(text, &mut buffer);
            let fits = decoded.as_ref().filter(|bytes| bytes.len() == length);
            assert_eq!(taken.then_some(&buffer), fits, "{encoding:?} {text:?}");
        }
    }
}

fn is_written(encoding: Encoding, text: &str, bytes: &[u8]) -> bool {
    let written = encoding.encode(bytes);
    match encoding {
        Encoding::Hex => text.eq_ignore_ascii_case(&written),
        Encoding::Base64 => text == written,
        Encoding::Base64url => {
            let padding = "=".repeat((4 - written.len() % 4) % 4);
            text == written || text == written + &padding
        }
    }
}

/// Entries are found by any key.
fn list(lines: &[&[u8]], list: &[u8]) {
    let (Some(head), Ok(list)) = (lines.first(), std::str::from_utf8(list)) else { return };
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut head = head.chars();
    let (Some(separator), Some(assign)) = (head.next(), head.next()) else { return };
    let key = head.as_str();
    let item = Item { key: key.to_owned(), separator, assign };
    assert_eq!(item.values(list).collect::<Vec<_>>(), naive(list, key, separator, assign));
}

/// The values of a key, by other means.
fn naive<'l>(list: &'l str, key: &str, separator: char, assign: char) -> Vec<&'l str> {
    let mut values = Vec::new();
    let mut begin = 0;
    for (at, one) in list.char_indices().chain([(list.len(), separator)]) {
        if one != separator {
            continue;
        }
        let entry = &list[begin..at];
        begin = at + separator.len_utf8();
        let first = entry.find(|one| one != ' ').unwrap_or(entry.len());
        let last = entry
            .rfind(|one| one != ' ')
            .map_or(first, |last| last + entry[last..].chars().next().map_or(0, char::len_utf8));
        let entry = &entry[first..last];
        if let Some(equals) = entry.find(assign)
            && entry[..equals] == *key
        {
            values.push(&entry[equals + assign.len_utf8()..]);
        }
    }
    values
}
