//! Templates are shown as they are written, and give the bytes that they say.
#![no_main]

use std::collections::BTreeSet;

use bytes::Bytes;
use doorward::base::form;
use doorward::base::json::BYTE_ORDER_MARK;
use doorward::base::time::Moment;
use doorward::extract::field::ExtractionPlan;
use doorward::extract::params::Params;
use doorward::extract::template;
use doorward::extract::template::Context;
use doorward::extract::template::Unfilled;
use doorward::http::inbound::Inbound;
use doorward::profile::Carrier;
use doorward::profile::Encoding;
use doorward::profile::Function;
use doorward::profile::Hash;
use doorward::profile::Location;
use doorward::profile::Piece;
use doorward::profile::Template;
use doorward_fuzz::Json;
use doorward_fuzz::Request;
use doorward_fuzz::cut;
use libfuzzer_sys::fuzz_target;
use sha2::Digest as _;

// The template, the address, a time that may be empty, and a request; between them, zeros.
fuzz_target!(|input: &[u8]| {
    let Some((text, rest)) = cut(input, 0) else { return };
    let Ok(spec) = std::str::from_utf8(text).map_err(drop).and_then(|text| text.parse::<Template>().map_err(drop))
    else {
        return;
    };
    // People are shown the ends of lines as they would write them.
    assert!(text.contains(&b'\n') || spec.to_string().parse().as_ref() == Ok(&spec), "{spec}: {spec:?}");
    let Some((url, rest)) = cut(rest, 0) else { return };
    let Some((time, rest)) = cut(rest, 0) else { return };
    let (Ok(url), Ok(time)) = (std::str::from_utf8(url), std::str::from_utf8(time)) else { return };
    let Some(request) = Request::parse(rest) else { return };
    let time = Some(time).filter(|time| !time.is_empty());
    // Several values are for tokens only, and what is no address is nobody's.
    let each = |piece: &Piece| {
        piece
            .location()
            .is_some_and(|location| matches!(&location.carrier, Carrier::Json(pointer) if pointer.is_each()))
    };
    if spec.walk().any(|piece| each(piece) || *piece == Piece::UrlWithPort && other_port(url).is_none()) {
        return;
    }
    // Without a key, which replies to handshakes always have, a keyed hash is nothing, whatever it is of.
    if spec.walk().any(|piece| matches!(piece, Piece::Call(Function::Hmac(..), _))) {
        return;
    }
    fill(&spec, &Params::from([("url".to_owned(), url.to_owned())]), time, &request);
});

fn fill(spec: &Template, params: &Params, time: Option<&str>, request: &Request<'_>) {
    let mut wants = ExtractionPlan::default();
    let ready = template::Template::new(spec, Context { params, signature: None, key: None }, &mut wants);
    let body = Bytes::copy_from_slice(request.body);
    let (method, target) = (request.method.clone(), request.target.clone());
    let inbound = Inbound::recorded(method, target, request.headers.clone(), body, Moment::from_unix(0));
    let mut values = wants.read(&inbound);
    if wants.read_json(&inbound, &mut values, true).is_err() {
        return;
    }
    let filled = ready.fill(&inbound, &values, time).map(|filled| filled.pieces().concat());
    // What others read otherwise or not at all has tests of its own: JSON with such numbers or names, forms and queries
    // with what cannot be decoded.
    let document = serde_json::from_slice::<Json>(request.body).ok().filter(|document| !document.has_floats());
    let query = request.target.query().unwrap_or_default().as_bytes();
    let skipped = spec.walk().filter_map(Piece::location).any(|location| match &location.carrier {
        Carrier::Json(_) => document.is_none(),
        Carrier::Form(_) => pairs(request.body).is_none(),
        Carrier::Query(_) => pairs(query).is_none(),
        Carrier::Header(_) | Carrier::Numbered(_) => false,
    });
    if skipped {
        return;
    }
    let naive = Naive { params, time, request };
    let mut expected = Ok(Vec::new());
    for part in spec.parts() {
        expected = expected.and_then(|mut all: Vec<u8>| {
            all.extend(naive.all(part.pieces())?.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default().concat());
            Ok(all)
        });
    }
    assert_eq!(filled, expected, "{spec}");
}

/// Fills templates by other means.
struct Naive<'n> {
    params: &'n Params,
    time: Option<&'n str>,
    request: &'n Request<'n>,
}

impl Naive<'_> {
    fn all(&self, pieces: &[Piece]) -> Result<Vec<Option<Vec<u8>>>, Unfilled> {
        // Behind an optional value that is not there, nothing is looked at any more.
        let mut all = Vec::new();
        for piece in pieces {
            all.push(self.piece(piece)?);
            if all.last().is_some_and(Option::is_none) {
                break;
            }
        }
        Ok(all)
    }

    fn piece(&self, piece: &Piece) -> Result<Option<Vec<u8>>, Unfilled> {
        let param = |name: &str| self.params.get(name).cloned().unwrap_or_default().into_bytes();
        Ok(Some(match piece {
            Piece::Literal(text) => text.clone().into_bytes(),
            Piece::Body => self.request.body.to_vec(),
            Piece::Timestamp => self.time.ok_or(Unfilled::NoTimestamp)?.as_bytes().to_vec(),
            Piece::Method => self.request.method.as_str().as_bytes().to_vec(),
            Piece::Url => param("url"),
            Piece::UrlWithPort => other_port(&self.params["url"]).unwrap_or_default().into_bytes(),
            Piece::Query => {
                self.request.target.query().map(|query| format!("?{query}")).unwrap_or_default().into_bytes()
            }
            Piece::SortedForm => {
                let form = pairs(self.request.body).filter(|form| form.len() <= form::MAX_PAIRS);
                let Some(form) = form else {
                    return Err(Unfilled::NoForm(form::read_all(self.request.body).expect_err("it is none")));
                };
                let form: BTreeSet<_> = form.into_iter().collect();
                form.into_iter().map(|(name, value)| name + &value).collect::<String>().into_bytes()
            }
            Piece::Param(name) => param(name),
            Piece::Location(location) => self.location(location)?.unwrap_or_default().into_bytes(),
            Piece::Optional(location) => return Ok(self.location(location)?.map(String::into_bytes)),
            Piece::Item(_) => Vec::new(),
            Piece::Call(function, arguments) => {
                let mut bytes = Vec::new();
                for piece in arguments {
                    bytes.extend(self.piece(piece)?.unwrap_or_default());
                }
                call(*function, &bytes).into_bytes()
            }
        }))
    }

    fn location(&self, location: &Location) -> Result<Option<String>, Unfilled> {
        let one = |pairs: Option<Vec<(String, String)>>, name: &str| {
            let pairs = pairs.expect("it can be decoded");
            if pairs.len() > form::MAX_PAIRS {
                return Err(Unfilled::NotText);
            }
            let mut values: Vec<_> = pairs.into_iter().filter(|(known, _)| known == name).collect();
            let value = values.pop().map(|(_, value)| value);
            if values.is_empty() { Ok(value) } else { Err(Unfilled::NotText) }
        };
        match &location.carrier {
            Carrier::Header(names) => match names.iter().find_map(|name| self.request.headers.get(name)) {
                Some(value) => value.to_str().map(|text| Some(text.to_owned())).map_err(|_| Unfilled::NotText),
                None => Ok(None),
            },
            Carrier::Numbered(_) => unreachable!("templates have none"),
            Carrier::Json(pointer) => json(self.request.body, pointer.tokens()),
            Carrier::Form(name) => {
                let body = self.request.body;
                let first = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii_start().first();
                if matches!(first, Some(b'{' | b'[')) { Ok(None) } else { one(pairs(body), name) }
            }
            Carrier::Query(name) => one(pairs(self.request.target.query().unwrap_or_default().as_bytes()), name),
        }
    }
}

fn json(body: &[u8], tokens: &[String]) -> Result<Option<String>, Unfilled> {
    let document: Json = serde_json::from_slice(body).expect("it was read before");
    let mut value = Some(&document);
    for token in tokens {
        value = match value {
            Some(Json::Array(items)) => {
                items.iter().enumerate().find(|(at, _)| at.to_string() == *token).map(|(_, item)| item)
            }
            Some(object) => object.member(token).expect("it was read before"),
            None => None,
        };
    }
    match value {
        Some(Json::Text(text) | Json::Integer(text)) => Ok(Some(text.clone())),
        Some(Json::Bool | Json::Float(_) | Json::Array(_) | Json::Object(_)) => Err(Unfilled::NotText),
        Some(Json::Null) | None => Ok(None),
    }
}

/// Names and values of a form or query, decoded; nothing when one of them cannot be.
fn pairs(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let decoded = |text: &[u8]| {
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            match text[at] {
                b'+' => out.push(b' '),
                b'%' => {
                    let digits = text.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                    out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                    at += 2;
                }
                byte => out.push(byte),
            }
            at += 1;
        }
        String::from_utf8(out).ok()
    };
    let filled = bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    filled
        .map(|pair| {
            let (name, value) = cut(pair, b'=').unwrap_or((pair, b""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

fn call(function: Function, bytes: &[u8]) -> String {
    match function {
        Function::Digest(hash, encoding) => {
            let digest = match hash {
                Hash::Sha1 => sha1::Sha1::digest(bytes).to_vec(),
                Hash::Sha256 => sha2::Sha256::digest(bytes).to_vec(),
                Hash::Sha512 => sha2::Sha512::digest(bytes).to_vec(),
            };
            match encoding {
                Encoding::Hex => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
                Encoding::Base64 | Encoding::Base64url => encoding.encode(&digest),
            }
        }
        // There is no key.
        Function::Hmac(..) => String::new(),
        Function::Crc32 => {
            let mut rest = u32::MAX;
            for byte in bytes {
                rest ^= u32::from(*byte);
                for _ in 0..8 {
                    rest = if rest & 1 == 1 { rest >> 1 ^ 0xedb8_8320 } else { rest >> 1 };
                }
            }
            (!rest).to_string()
        }
    }
}

/// The address with the port of its scheme where it says none, and without where it says that one; `None` where it is
/// no address.
fn other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let usual = [("http", "80"), ("https", "443")].into_iter().find(|(known, _)| *known == scheme)?.1;
    let end = rest.find(|one: char| !one.is_ascii_alphanumeric() && !matches!(one, '.' | '-' | ':'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    if !path.is_empty() && !path.starts_with(['/', '?']) {
        return None;
    }
    match authority.split(':').collect::<Vec<_>>().as_slice() {
        [host] if !host.is_empty() => Some(format!("{scheme}://{host}:{usual}{path}")),
        [host, port] if *port == usual && !host.is_empty() => Some(format!("{scheme}://{host}{path}")),
        [host, port] if !host.is_empty() && port.parse::<u16>().is_ok() => Some(url.to_owned()),
        _ => None,
    }
}
