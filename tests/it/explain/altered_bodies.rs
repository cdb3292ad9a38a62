//! What happened to a body between its provider and the capture: each mistake is made to a rightly signed request, and
//! the command names it. With another secret it names none.

use std::io::Write as _;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::gateway::doorward;
use crate::harness::provider::signing::hmac_sha256;

const SECRET: &str = "It's a Secret to Everybody";

/// What the command says of a body that was captured in place of the one that was signed.
fn explained(signed: &[u8], captured: &[u8], headers: &str, secret: &str) -> Value {
    let digits: String = hmac_sha256(SECRET.as_bytes(), signed).iter().map(|byte| format!("{byte:02x}")).collect();
    let head = format!(
        "POST /hook HTTP/1.1\r\nX-GitHub-Event: ping\r\nX-GitHub-Delivery: 1\r\nX-Hub-Signature-256: sha256={digits}\r\n\
         {headers}\r\n"
    );
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("request");
    std::fs::write(&file, [head.as_bytes(), captured].concat()).expect("a capture");
    let command = doorward()
        .arg("explain")
        .arg(file)
        .args(["--json", "--profile", "github", "--secret", secret])
        .output()
        .expect("it runs");
    serde_json::from_slice(&command.stdout).expect("JSON")
}

#[track_caller]
fn assert_cause(signed: impl AsRef<[u8]>, captured: impl AsRef<[u8]>, headers: &str, says: &str) {
    let (signed, captured) = (signed.as_ref(), captured.as_ref());
    let said = explained(signed, captured, headers, SECRET);
    let description = said["cause"]["words"].as_str().unwrap_or_else(|| panic!("{said}"));
    assert!(said["cause"]["proven"] == true && description.contains(says), "{says}: {description}");
    let said = explained(signed, captured, headers, "another secret");
    assert_eq!(said["cause"]["proven"], false, "with another secret there is no cause: {said}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn bodies_that_are_compressed_are_found_out() {
    let json = b"{\"id\":\"1\"}";
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(json).expect("compressed");
    let zlib = zlib.finish().expect("compressed");
    assert_cause(json, gzip(json), "", "the body is compressed, and the request does not say so");
    assert_cause(json, zlib, "", "the body is compressed, and the request does not say so");
    let said = "Content-Encoding: gzip\r\n";
    assert_cause(json, json, said, "it is not: something decompresses it");
    // Something that is compressed to little is not written out whole, and what is cut is no body.
    let bomb = gzip(&vec![b' '; 1024 * 1024 + 1]);
    let most = gzip(&vec![b' '; 1024 * 1024]);
    assert_cause(vec![b' '; 1024 * 1024], most, "", "the body is compressed");
    for captured in [bomb, gzip(json)[..12].to_vec(), b"\x1f\x8b".to_vec(), b"x".to_vec()] {
        assert_eq!(explained(b"{}", &captured, said, SECRET)["cause"]["proven"], false);
        assert_eq!(explained(b"{}", &captured, "", SECRET)["cause"]["proven"], false);
    }
}

#[test]
fn an_order_of_members_that_was_lost_is_found_where_it_can_be() {
    let sorted = "{\"amount\":1,\"data\":{\"a\":1,\"b\":2},\"id\":\"e\",\"type\":\"t\"}";
    assert_cause(
        "{\"id\":\"e\",\"type\":\"t\",\"data\":{\"a\":1,\"b\":2},\"amount\":1}",
        sorted,
        "",
        "in the order id, type, data, amount",
    );
    assert_cause(
        "{\"id\": \"e\", \"amount\": 1, \"data\": {\"a\": 1, \"b\": 2}, \"type\": \"t\"}",
        sorted,
        "",
        "with id first",
    );
    // The profile's sample has the members of issue in this order.
    let issue = |members: &str| format!("{{\"action\":\"opened\",\"issue\":{{{members}}}}}");
    assert_cause(
        issue("\"id\":1,\"number\":2,\"title\":\"T\",\"state\":\"s\",\"url\":\"u\",\"user\":3,\"a\":4"),
        issue("\"a\":4,\"id\":1,\"number\":2,\"state\":\"s\",\"title\":\"T\",\"url\":\"u\",\"user\":3"),
        "",
        "as those of the profile's sample do",
    );
    // With more members the order is lost, which is said as something that may be so; with two it is chance.
    let lost = |signed: &str, captured: &str| {
        let said = explained(signed.as_bytes(), captured.as_bytes(), "", SECRET);
        assert_eq!(said["cause"]["proven"], false, "{said}");
        said["cause"]["words"]
            .as_str()
            .expect("words")
            .contains("if a tool has sorted them, the order that was signed is lost")
    };
    assert!(lost(
        "{\"f\":1,\"b\":2,\"e\":3,\"a\":4,\"d\":5,\"c\":6}",
        "{\"a\":4,\"b\":2,\"c\":6,\"d\":5,\"e\":3,\"f\":1}"
    ));
    assert!(!lost("{\"x\":1}", "{\"a\":1,\"b\":1}"));
    assert!(!lost("{\"x\":1}", "{\"b\":1,\"a\":1,\"c\":1}"));
}

#[test]
fn texts_in_other_encodings_are_found_out() {
    let text = "{\"id\":\"1\",\"text\":\"caf\u{e9}\"}";
    let latin: Vec<u8> = text.chars().map(|character| u8::try_from(u32::from(character)).expect("Latin-1")).collect();
    assert_cause(text, &latin, "", "is in ISO 8859-1, and what was signed is the same text in UTF-8");
    assert_cause(&latin, text, "", "is UTF-8, and what was signed is the same text in ISO 8859-1");
    let dashes = "{\"id\":\"1\",\"text\":\"5 \u{20ac} \u{2013} \u{178}\"}";
    let windows = b"{\"id\":\"1\",\"text\":\"5 \x80 \x96 \x9f\"}";
    assert_cause(dashes, windows, "", "is in windows-1252");
    assert_cause(windows, dashes, "", "the same text in windows-1252");
    let said = explained(b"{\"text\":\"\xe9\"}", "{\"text\":\"\u{fffd}\"}".as_bytes(), "", SECRET);
    assert!(
        said["cause"]["words"].as_str().is_some_and(|description| description.contains("has the character U+FFFD")),
        "{said}"
    );
}

#[test]
fn byte_order_marks_are_found_out() {
    let marked = "\u{feff}{\"id\":\"1\"}";
    assert_cause(marked, "{\"id\":\"1\"}", "", "has lost the byte order mark (EF BB BF)");
    assert_cause("{\"id\":\"1\"}", marked, "", "begins with a byte order mark that was not signed");
}

#[test]
fn percent_encodings_are_found_out() {
    for (signed, captured) in [
        ("a=x%3Ay&b=1+2", "a=x%3ay&b=1+2"),
        ("a=x%3ay&b=1+2", "a=x%3Ay&b=1%202"),
        ("a=x%3ay&b=%281%29", "a=x%3Ay&b=(1)"),
        ("a=x%3Ay&b=~1*", "a=x:y&b=%7E1%2A"),
    ] {
        assert_cause(signed, captured, "", "its percent-encoding is another (%3a for %3A");
    }
}

#[test]
fn a_query_that_is_encoded_otherwise_is_found_out() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).expect("a file");
        folder.path().join(name)
    };
    file(
        "own.toml",
        "title = \"Own\"\n[auth.hmac]\nsignature = { header = \"X-Signature\", encoding = \"hex\" }\nsigned = \"{query}\\n{body}\"\nambiguous = \
         \"a query has no line break\"\n\
         [event]\nid = { json = \"/id\" }\n"
            .to_owned(),
    );
    let digest = hmac_sha256(SECRET.as_bytes(), b"?to=x%3ay+z\n{\"id\":\"1\"}");
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = |query: &str| format!("POST /hook?{query} HTTP/1.1\nX-Signature: {digits}\n\n{{\"id\":\"1\"}}");
    for (query, secret, proven) in [
        ("to=x%3Ay+z", SECRET, true),
        ("to=x%3ay%20z", SECRET, true),
        ("to=x%3Ay+z", "another", false),
        ("to=y%3Ay+z", SECRET, false),
    ] {
        let path = file("request", request(query));
        let output = doorward()
            .arg("explain")
            .arg(path)
            .args(["--json", "--profile", "own", "--secret", secret, "--directory"])
            .arg(folder.path())
            .output()
            .expect("it runs");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(said["cause"]["proven"], proven, "{said}");
        let description = said["cause"]["words"].as_str().expect("words");
        assert_eq!(description.contains("the query is the same as the one that was signed"), proven, "{description}");
    }
}
