//! What becomes of the query of a request: it is told, goes on where it is signed or wanted, and takes no secret along.

use std::path::Path;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::Message;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing;
use crate::harness::upstream::Upstream;

const BASE: &str = "https://hooks.example/twilio";

#[test]
fn path_and_query_are_told_as_they_were_sent() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    for (number, (target, told)) in [
        ("/webhooks/github", "/webhooks/github"),
        ("/webhooks/github?", "/webhooks/github?"),
        ("/webhooks/github?a=%2f+&b;c&&d=%zz?/'", "/webhooks/github?a=%2f+&b;c&&d=%zz?/'"),
        ("/webhooks/github?a={b}|^`~", "/webhooks/github?a={b}|^`~"),
        ("/webhooks/github?caf\u{e9}", "/webhooks/github?caf\u{c3}\u{a9}"),
        ("http://elsewhere.example:99/webhooks/github?a=1", "/webhooks/github?a=1"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = number.to_string();
        let delivery = Github::delivery(&body, body.clone()).to(target).with("Doorward-Target", "/spoofed");
        let answer = delivery.send(gateway.address());
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let received = upstream.received().pop().expect("a request");
        let all: Vec<_> = received.headers.iter().filter(|(name, _)| name == "doorward-target").collect();
        assert_eq!(all, [&("doorward-target".to_owned(), told.to_owned())]);
        assert_eq!(path(&received), "/app", "nobody has signed it, and nobody asked for it");
    }
}

#[test]
fn a_query_that_is_signed_goes_on() {
    let (gateway, upstream) =
        start_shipped("twilio", &format!("secrets = [\"plain:{SECRET}\"]\nparams = {{ url = \"{BASE}\" }}"));
    assert_eq!(twilio("?order=4711&tenant=a%20b&;c=%2F+", "a=1").send(gateway.address()).status, 200);
    let received = upstream.received().remove(0);
    assert_eq!(path(&received), "/app?order=4711&tenant=a%20b&;c=%2F+");
    assert_eq!(received.header("doorward-target"), Some("/twilio?order=4711&tenant=a%20b&;c=%2F+"));
    assert_eq!(twilio("", "a=2").send(gateway.address()).status, 200);
    assert_eq!(twilio("?", "a=3").send(gateway.address()).status, 200);
    assert_eq!(upstream.received().iter().skip(1).map(path).collect::<Vec<_>>(), ["/app", "/app"]);
    let forged = twilio("?order=1", "a=4").to("/twilio?order=2").send(gateway.address());
    assert_eq!((forged.status, upstream.received().len()), (401, 3));
}

#[test]
fn a_query_goes_on_where_the_source_says_so_and_only_there() {
    let upstream = Upstream::start();
    let source = |name: &str, profile: &str, said: &str| {
        format!(
            "[sources.{name}]\nprofile = \"{profile}\"\npath = \"/{name}\"\nsecrets = [\"plain:{SECRET}\"]\n\
             deliver.upstream = {{ url = \"{}\"{said} }}\n",
            upstream.url()
        )
    };
    let sections = [
        source("wanted", "github", ", forward_query = true"),
        source("unwanted", "github", ", forward_query = false"),
        source("twilio", "twilio", ", forward_query = false") + &format!("params = {{ url = \"{BASE}\" }}\n"),
    ];
    let gateway = Gateway::start(&sections.concat());
    let github = |name: &str| Github::delivery(name, name).to(&format!("/{name}?a=1"));
    for delivery in [github("wanted"), github("unwanted"), twilio("?a=1", "b=2")] {
        assert!(delivery.send(gateway.address()).status < 300, "{}", delivery.path);
    }
    assert_eq!(upstream.received().iter().map(path).collect::<Vec<_>>(), ["/app?a=1", "/app", "/app"]);
}

#[test]
fn an_unverified_query_goes_on_only_where_the_source_says_so() {
    for (said, expected) in [("", "/app"), (", forward_query = true", "/app?a=1"), (", forward_query = false", "/app")]
    {
        let upstream = Upstream::start();
        let sections = format!(
            "[sources.twilio]\nprofile = \"twilio\"\npath = \"/twilio\"\nsecrets = [\"plain:{SECRET}\"]\n\
             params = {{ url = \"{BASE}\" }}\nverify = \"observe\"\ndeliver.upstream = {{ url = \"{}\"{said} }}\n",
            upstream.url()
        );
        let gateway = Gateway::start(&sections);
        let forged = twilio("?a=2", "b=1").to("/twilio?a=1").with("Doorward-Verified", "true");
        assert!(forged.send(gateway.address()).status < 300);
        let received = upstream.received().remove(0);
        assert_eq!((path(&received), received.header("doorward-verified")), (expected.to_owned(), Some("false")));
        assert_eq!(received.header("doorward-target"), Some("/twilio?a=1"));
    }
}

/// Either scheme is enough, and one of them says nothing of the query.
#[test]
fn a_query_that_only_one_of_two_schemes_signs_does_not_go_on() {
    let scheme = |combination: &str, header: &str, signed: &str| {
        format!(
            "[[auth.{combination}]]\n[auth.{combination}.hmac]\nsignature = {{ header = \"{header}\", encoding = \"hex\" }}\n\
             signed = \"{signed}\"\nambiguous = \"it is a test\"\n"
        )
    };
    let event = "[event]\nid = { digest = \"body\" }\n";
    for (combination, second, expected) in [
        ("first", "{body}", "/app"),
        ("all", "{body}", "/app?a=1"),
        ("first", "{sha256_hex:query}.{body}", "/app?a=1"),
        ("first", "{crc32:query}.{body}", "/app"),
        ("first", "{query:a}.{body}", "/app"),
    ] {
        let (one, other) = (scheme(combination, "X-A", "{query}{body}"), scheme(combination, "X-B", second));
        // A text that has one reading must not be called ambiguous.
        let other = if second == "{body}" { other.replace("ambiguous = \"it is a test\"\n", "") } else { other };
        let profiles = [format!("{one}{other}{event}"), format!("{one}{}{event}", scheme(combination, "X-B", second))];
        let profile =
            profiles.iter().find(|text| doorward::profile::Profile::parse(&format!("title = \"Own\"\n{text}")).is_ok());
        let profile = profile.unwrap_or_else(|| panic!("{combination} {second} is no profile"));
        let (gateway, upstream) = start_with_profile(profile, &format!("secrets = [\"plain:{SECRET}\"]"));
        let mac = signing::hmac_hex(SECRET, &[b"?a=1{}"]);
        let text = match second {
            "{body}" => "{}".to_owned(),
            "{query:a}.{body}" => "1.{}".to_owned(),
            "{crc32:query}.{body}" => format!("{}.{{}}", crc32fast::hash(b"?a=1")),
            _ => format!("{}.{{}}", const_hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"?a=1"))),
        };
        let other = signing::hmac_hex(SECRET, &[text.as_bytes()]);
        let both = [("X-A", mac.as_str()), ("X-B", other.as_str())];
        let answer = request("POST", "/own?a=1", &both, "{}").send(gateway.address());
        assert_eq!(answer.status, 200, "{combination} {second}: {}", answer.text());
        assert_eq!(path(&upstream.received().remove(0)), expected, "{combination} {second}");
    }
}

#[test]
fn a_parameter_of_the_address_has_the_value_that_it_has_there() {
    let upstream = Upstream::start();
    let url = format!("{}?tenant=ours&a.b=1", upstream.url());
    let gateway =
        Gateway::start(&Github::delivering(&format!("upstream = {{ url = \"{url}\", forward_query = true }}")));
    for (number, (query, expected)) in [
        ("tenant=theirs&c=%20", "&c=%20"),
        ("c=1&TENANT=x&%74enant=x&tenant[]=x&tenant=", "&c=1"),
        ("x=1;tenant=theirs", ""),
        ("a_b=2&a%2eb=2&c+=%zz&", "&c+=%zz&"),
        ("", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let id = number.to_string();
        let delivery = Github::delivery(&id, id.clone()).to(&format!("/webhooks/github?{query}"));
        assert_eq!(delivery.send(gateway.address()).status, 200, "{query}");
        let received = upstream.received().pop().expect("a request");
        assert_eq!(path(&received), format!("/app?tenant=ours&a.b=1{expected}"), "{query}");
        assert_eq!(received.header("doorward-target"), Some(format!("/webhooks/github?{query}").as_str()));
    }
}

const TOKEN_IN_QUERY: &str = "[auth.token]\nfrom = { query = \"my key\" }\n[event]\nid = { json = \"/id\" }\n";

#[test]
fn a_secret_in_the_query_is_not_forwarded() {
    let hush = "hush-4711-hush-4711-hush";
    let upstream = Upstream::start();
    for deliver in
        ["upstream = { url = \"URL\", forward_query = true }", "queue = { url = \"URL\", forward_query = true }"]
    {
        let folder = folder_with_profile(TOKEN_IN_QUERY);
        let gateway = start(folder.path(), &deliver.replace("URL", &upstream.url()), hush);
        for (number, (query, left)) in [
            (format!("my+key={hush}"), ""),
            (format!("a=%20&my%20key={hush}&b"), "?a=%20&b"),
            (format!("a;MY_KEY={hush}&%6dy+key={hush}&b=my+key"), "?b=my+key"),
        ]
        .into_iter()
        .enumerate()
        {
            let before = upstream.received().len();
            let delivery = request("POST", &format!("/own?{query}"), &[], format!(r#"{{"id":{number}}}"#));
            assert_eq!(delivery.send(gateway.address()).status, 200, "{query}");
            upstream.wait_for(before + 1);
            let received = upstream.received().pop().expect("a request");
            assert_eq!(path(&received), format!("/app{left}"), "{deliver}");
            assert_eq!(received.header("doorward-target"), Some(format!("/own{left}").as_str()));
            assert!(!format!("{received:?}").contains(hush), "{received:?}");
        }
    }
}

#[test]
fn a_queued_event_keeps_its_query_and_has_it_again_when_it_is_replayed() {
    let upstream = Upstream::start();
    let deliver = format!("queue = {{ url = \"{}?own=1\" }}", upstream.url());
    let sections = format!(
        "[sources.twilio]\nprofile = \"twilio\"\npath = \"/twilio\"\nsecrets = [\"plain:{SECRET}\"]\n\
         params = {{ url = \"{BASE}\" }}\ndeliver.{deliver}\n\
         [store]\nurl = \"sqlite:store.db\"\n[admin]\ntoken = \"plain:{TOKEN}\"\n"
    );
    let gateway = Gateway::start(&sections);
    assert_eq!(twilio("?order=4711&own=2", "a=1").send(gateway.address()).status, 204);
    gateway.wait_for_events("delivered", 1);
    let number = gateway.events("")[0]["number"].as_str().expect("a number").to_owned();
    let shown = gateway.api("GET", &format!("/api/v1/events/twilio/{number}"), "");
    assert!(shown.text().contains("/twilio?order=4711&own=2"), "{}", shown.text());
    let folder = gateway.kill().folder.expect("its folder");
    let gateway = Gateway::start_in(folder, &sections);
    gateway.api("POST", &format!("/api/v1/events/twilio/{number}/replay"), "");
    upstream.wait_for(2);
    assert_eq!(upstream.received().iter().map(path).collect::<Vec<_>>(), ["/app?own=1&order=4711"; 2]);
}

fn start(folder: &Path, deliver: &str, hush: &str) -> Gateway {
    let sections = format!(
        "profiles = \"profiles\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\nsecrets = [\"env:HUSH\"]\n\
         deliver.{deliver}\n[store]\nurl = \"sqlite:store.db\"\n"
    );
    Gateway::spawn(folder, &sections, &[("HUSH", hush)])
}

/// A form with one field, as Twilio sends and signs it.
fn twilio(query: &str, form: &str) -> Delivery {
    let signed = format!("{BASE}{query}{}", form.replace('=', ""));
    let signature = signing::base64(signing::hmac_sha1(SECRET.as_bytes(), signed.as_bytes()));
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Twilio-Signature", signature.as_str())];
    request("POST", &format!("/twilio{query}"), &headers, form)
}

/// What was asked for.
fn path(message: &Message) -> String {
    message.start.split(' ').nth(1).unwrap_or_default().to_owned()
}
