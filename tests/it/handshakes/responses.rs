//! The probes of providers, each answered byte for byte as its provider wants it.

use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::http::Answer;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::provider::signing::base64;
use crate::harness::upstream::Upstream;

const NOSNIFF: (&str, &str) = ("x-content-type-options", "nosniff");
const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn metas_challenge_is_given_back() {
    let (gateway, upstream) = start_shipped("meta", &with_secret("params = { verify_token = \"mein Wort\" }"));
    let target = "/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=mein+Wort";
    assert_answer(&get(target).send(gateway.address()), 200, &[TEXT], "1158201444");
    assert_shaken(&gateway, &upstream, "meta", 1);
}

#[test]
fn slacks_challenge_is_given_back_when_it_is_signed() {
    let (gateway, upstream) = start_shipped("slack", &with_secret(""));
    let body = r#"{"token":"Jhj5","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    assert_answer(&slack(body).send(gateway.address()), 200, &[TEXT], challenge);
    assert_shaken(&gateway, &upstream, "slack", 1);
}

#[test]
fn zooms_token_is_given_back_with_its_hash() {
    let (gateway, upstream) = start_shipped("zoom", &with_secret(""));
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let time = doorward::base::time::Moment::now().unix().to_string();
    let signature = signing::hmac_sha256(SECRET.as_bytes(), format!("v0:{time}:{body}").as_bytes());
    let signature = format!("v0={}", const_hex::encode(signature));
    let headers = [("x-zm-signature", signature.as_str()), ("x-zm-request-timestamp", &time)];
    let hash = const_hex::encode(signing::hmac_sha256(SECRET.as_bytes(), b"qgg8vlvZRS6UYooatFL8Aw"));
    let expected = format!(r#"{{"encryptedToken":"{hash}","plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#);
    assert_answer(&request("POST", "/zoom", &headers, body).send(gateway.address()), 200, &[JSON], &expected);
    assert_shaken(&gateway, &upstream, "zoom", 1);
}

#[test]
fn xs_token_is_answered_with_its_hash() {
    let (gateway, upstream) = start_shipped("x", &with_secret(""));
    // As X sends it: a UUID in base64, and a nonce that does not count.
    let token = "M2RkODJkZmMtYjlkYi00NmQ4LTk0MGUtM2JjYzkwM2Q4MjQ0";
    let answer = get(&format!("/x?crc_token={token}&nonce=MTc2OTUxODI5MjkxNA")).send(gateway.address());
    let hash = base64(signing::hmac_sha256(SECRET.as_bytes(), token.as_bytes()));
    assert_answer(&answer, 200, &[JSON], &format!(r#"{{"response_token":"sha256={hash}"}}"#));
    assert_shaken(&gateway, &upstream, "x", 1);
}

#[test]
fn braintrees_challenge_is_answered_with_its_hash_under_the_public_key() {
    let (gateway, upstream) =
        start_shipped("braintree", &with_secret("params = { public_key = \"integration_public_key\" }"));
    let challenge = "20f9f8ed05f77439fe955c977e4c8a53";
    let answer = get(&format!("/braintree?bt_challenge={challenge}")).send(gateway.address());
    let hash = const_hex::encode(signing::hmac_sha1(&braintree_key(), challenge.as_bytes()));
    assert_answer(&answer, 200, &[TEXT], &format!("integration_public_key|{hash}"));
    assert_shaken(&gateway, &upstream, "braintree", 1);
}

#[test]
fn discords_ping_is_answered_without_a_body() {
    let key = signing::ed25519("ed25519-a");
    let (gateway, upstream) = start_shipped("discord", &format!("secrets = [\"plain:{}\"]", public(&key)));
    let body = r#"{"version":1,"application_id":"1234560123453231555","type":0}"#;
    let now = doorward::base::time::Moment::now().unix();
    let (time, another) = (now.to_string(), (now + 1).to_string());
    let signature = const_hex::encode(key.sign(format!("{time}{body}").as_bytes()));
    let headers = [("X-Signature-Ed25519", signature.as_str()), ("X-Signature-Timestamp", &time)];
    let ping = request("POST", "/discord", &headers, body);
    assert_bodiless(&gateway, &ping, "HTTP/1.1 204 No Content", &[]);
    assert_shaken(&gateway, &upstream, "discord", 1);
    let wrong = ping.set("X-Signature-Timestamp", &another).send(gateway.address());
    assert_eq!((wrong.status, wrong.header("content-type")), (401, Some("application/problem+json")));
}

#[test]
fn twitchs_challenge_is_given_back() {
    let (gateway, upstream) = start_shipped("twitch", &with_secret(""));
    let time = doorward::base::time::Moment::now().rfc3339().to_string();
    let body = r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"type":"channel.follow"}}"#;
    let signed = [b"e76c6bd4".as_slice(), time.as_bytes(), body.as_bytes()].concat();
    let signature = format!("sha256={}", const_hex::encode(signing::hmac_sha256(SECRET.as_bytes(), &signed)));
    let headers = [
        ("Twitch-Eventsub-Message-Id", "e76c6bd4"),
        ("Twitch-Eventsub-Message-Type", "webhook_callback_verification"),
        ("Twitch-Eventsub-Message-Timestamp", &time),
        ("Twitch-Eventsub-Message-Signature", &signature),
    ];
    let answer = request("POST", "/twitch", &headers, body).send(gateway.address());
    assert_answer(&answer, 200, &[TEXT], "pogchamp-kappa-360noscope-vohiyo");
    assert_shaken(&gateway, &upstream, "twitch", 1);
}

#[test]
fn oktas_challenge_is_given_back_in_json() {
    let (gateway, upstream) = start_shipped("okta", &with_secret(""));
    let ask = |challenge| get("/okta").with("X-Okta-Verification-Challenge", challenge).send(gateway.address());
    assert_answer(&ask("Ny1sMqbwjDYdXQ"), 200, &[JSON], r#"{"verification":"Ny1sMqbwjDYdXQ"}"#);
    assert_answer(&ask(r#"","a":"\"#), 200, &[JSON], r#"{"verification":"\",\"a\":\"\\"}"#);
    assert_shaken(&gateway, &upstream, "okta", 2);
}

#[test]
fn head_requests_of_trello_and_intercom_are_answered() {
    for (name, lines) in [("trello", "params = { url = \"https://hooks.example/trello\" }"), ("intercom", "")] {
        let (gateway, upstream) = start_shipped(name, &with_secret(lines));
        let head = request("HEAD", &format!("/{name}"), &[], "");
        assert_bodiless(&gateway, &head, "HTTP/1.1 200 OK", &[]);
        assert_shaken(&gateway, &upstream, name, 1);
    }
}

#[test]
fn an_allowed_origin_of_cloudevents_is_granted() {
    let (gateway, upstream) =
        start_shipped("cloudevents", &with_secret("params = { origin = \"eventgrid.azure.net\" }"));
    let options = request("OPTIONS", "/cloudevents", &[("WebHook-Request-Origin", "eventgrid.azure.net")], "")
        .with("WebHook-Request-Callback", "http://127.0.0.1:9/callback")
        .with("WebHook-Request-Rate", "120");
    let headers = [("allow", "POST"), ("webhook-allowed-origin", "eventgrid.azure.net"), ("webhook-allowed-rate", "*")];
    assert_bodiless(&gateway, &options, "HTTP/1.1 200 OK", &headers);
    assert_shaken(&gateway, &upstream, "cloudevents", 1);
}

#[test]
fn microsofts_token_is_given_back_as_text_whatever_it_looks_like() {
    let (gateway, upstream) = start_shipped("microsoft-graph", &with_secret(""));
    let ask = |token: &str| request("POST", &format!("/microsoft-graph?validationToken={token}"), &[], "");
    let answer = ask("Validation%3A+Testing%20%26+%C3%A9").send(gateway.address());
    assert_answer(&answer, 200, &[TEXT], "Validation: Testing & \u{e9}");
    let answer = ask("%3Cscript%3Ealert(1)%3C%2Fscript%3E").with("Accept", "text/html").send(gateway.address());
    assert_answer(&answer, 200, &[TEXT], "<script>alert(1)</script>");
    assert_shaken(&gateway, &upstream, "microsoft-graph", 2);
}

#[test]
fn event_grids_code_is_given_back() {
    let (gateway, upstream) = start_shipped("azure-event-grid", &with_secret(""));
    let body = r#"[{"id":"2d1781af","topic":"/s/x","subject":"","data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6","validationUrl":"http://127.0.0.1:9/validate"},"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","eventTime":"2018-01-25T22:12:19.4556811Z","metadataVersion":"1","dataVersion":"1"}]"#;
    let headers = [("aeg-event-type", "SubscriptionValidation")];
    let target = "/azure-event-grid?code=It%27s+a+Secret+to+Everybody";
    let answer = request("POST", target, &headers, body).send(gateway.address());
    assert_answer(&answer, 200, &[JSON], r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#);
    assert_shaken(&gateway, &upstream, "azure-event-grid", 1);
}

#[test]
fn woocommerces_ping_is_answered_without_a_signature() {
    let (gateway, upstream) = start_shipped("woocommerce", &with_secret(""));
    assert_bodiless(&gateway, &request("POST", "/woocommerce", &[], "webhook_id=1"), "HTTP/1.1 200 OK", &[]);
    assert_shaken(&gateway, &upstream, "woocommerce", 1);
}

#[test]
fn slacks_check_of_the_certificate_is_answered_without_a_signature() {
    let (gateway, upstream) = start_shipped("slack", &with_secret(""));
    let check = request("POST", "/slack", &[], "ssl_check=1&token=Xdyb2LdSvq5eQhUOcM6WjSzk");
    assert_bodiless(&gateway, &check, "HTTP/1.1 200 OK", &[]);
    assert_shaken(&gateway, &upstream, "slack", 1);
}

#[test]
fn bitbuckets_test_of_the_connection_is_answered_without_a_signature() {
    let (gateway, upstream) = start_shipped("bitbucket", &with_secret(""));
    let headers = [("X-Request-Id", "d872ad25-24fe-4278-a73a-2a10ed6b653d"), ("X-Event-Key", "diagnostics:ping")];
    for body in [r#"{"test": true}"#, "{}", ""] {
        assert_bodiless(&gateway, &request("POST", "/bitbucket", &headers, body), "HTTP/1.1 200 OK", &[]);
    }
    assert_shaken(&gateway, &upstream, "bitbucket", 3);
}

#[test]
fn xeros_empty_deliveries_are_answered_by_their_signatures() {
    let (gateway, upstream) = start_shipped("xero", &with_secret(""));
    let body = r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}"#;
    let signature = base64(signing::hmac_sha256(SECRET.as_bytes(), body.as_bytes()));
    let right = request("POST", "/xero", &[("x-xero-signature", &signature)], body);
    assert_bodiless(&gateway, &right, "HTTP/1.1 200 OK", &[]);
    let wrong = right.set("x-xero-signature", &base64([0; 32])).send(gateway.address());
    assert_eq!(wrong.status, 401);
    assert_shaken(&gateway, &upstream, "xero", 1);
}

/// A status, these headers and no others, and a body.
#[track_caller]
fn assert_answer(answer: &Answer, status: u16, headers: &[(&str, &str)], body: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body));
    let length = body.len().to_string();
    let mut expected = vec![("connection", "close"), ("content-length", &length), NOSNIFF];
    expected.extend(headers);
    expected.sort_unstable();
    let mut given: Vec<_> = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    given.retain(|(name, _)| *name != "date");
    given.sort_unstable();
    assert_eq!(given, expected);
}

/// The same without a body: nothing comes after the head.
#[track_caller]
fn assert_bodiless(gateway: &Gateway, delivery: &Delivery, status: &str, headers: &[(&str, &str)]) {
    let text = delivery.send_for_bytes(gateway.address());
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, "");
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some(status));
    let mut given: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    given.retain(|(name, value)| *name != "date" && (*name, *value) != ("content-length", "0"));
    given.sort_unstable();
    let mut expected = vec![("connection", "close"), NOSNIFF];
    expected.extend(headers);
    expected.sort_unstable();
    assert_eq!(given, expected);
}

/// So many handshakes were counted and logged as what they are, and nothing went further.
#[track_caller]
fn assert_shaken(gateway: &Gateway, upstream: &Upstream, source: &str, count: u32) {
    assert_eq!(gateway.outcomes(source, "handshake"), f64::from(count));
    let others = ["delivered", "queued", "duplicate", "ignored"].map(|outcome| gateway.outcomes(source, outcome));
    assert_eq!(others, [0.0; 4]);
    assert_eq!(gateway.metric(r#"doorward_store_duration_seconds_count{operation="claim"}"#), 0.0);
    assert_eq!(upstream.connections(), 0);
    let event = gateway.logged("the handshake", |event| event["outcome"] == "handshake");
    assert_eq!((&event["level"], &event["source"]), (&"INFO".into(), &source.into()));
    assert!(event["status"].as_u64().is_some_and(|status| (200..300).contains(&status)), "{event}");
    assert_eq!((event.get("event_id"), event.get("reason")), (None, None));
}

fn with_secret(lines: &str) -> String {
    format!("secrets = [\"plain:{SECRET}\"]\n{lines}")
}

fn get(target: &str) -> Delivery {
    request("GET", target, &[], "")
}

/// A genuine request of Slack.
fn slack(body: &str) -> Delivery {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs().to_string();
    let mac = signing::hmac_sha256(SECRET.as_bytes(), format!("v0:{time}:{body}").as_bytes());
    let signature = format!("v0={}", const_hex::encode(mac));
    request("POST", "/slack", &[("X-Slack-Request-Timestamp", &time), ("X-Slack-Signature", &signature)], body)
}

/// Braintree's key is the SHA-1 of the secret.
fn braintree_key() -> Vec<u8> {
    use sha1::Digest as _;
    sha1::Sha1::digest(SECRET.as_bytes()).to_vec()
}

fn public(key: &aws_lc_rs::signature::Ed25519KeyPair) -> String {
    use aws_lc_rs::signature::KeyPair as _;
    const_hex::encode(key.public_key().as_ref())
}
