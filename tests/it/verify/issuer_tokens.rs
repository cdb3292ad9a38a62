//! Tokens against the keys that a live issuer publishes.

use std::time::SystemTime;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::issuer::Issuer;
use crate::harness::upstream::Upstream;

const AUDIENCE: &str = "tenant";

#[test]
fn a_token_of_the_issuer_is_taken() {
    let (gateway, upstream, issuer) = started();
    let token = Issuer::token("pitchpoint-a", "pps-2024-a", &claims(&issuer));
    let answer = delivery("1", &token).send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"ok":true}"#));
    let received = upstream.received().remove(0);
    assert_eq!(received.header("doorward-event-id"), Some("1"));
    assert_eq!(received.header("doorward-event-type"), Some("orders/placed"));
    assert_eq!(received.header("authorization"), Some(format!("Bearer {token}").as_str()));
}

#[test]
fn each_published_key_verifies_its_own_tokens() {
    let (gateway, upstream, issuer) = started();
    for (key, kid) in [("pitchpoint-a", "pps-2024-a"), ("pitchpoint-b", "pps-2024-b")] {
        let token = Issuer::token(key, kid, &claims(&issuer));
        assert_eq!(delivery(kid, &token).send(gateway.address()).status, 200, "{kid}");
    }
    assert_eq!(upstream.ids(), ["pps-2024-a", "pps-2024-b"]);
}

#[test]
fn one_token_serves_many_events_and_keys_are_fetched_once() {
    let (gateway, upstream, issuer) = started();
    let token = Issuer::token("pitchpoint-a", "pps-2024-a", &claims(&issuer));
    for number in 0..5 {
        assert_eq!(delivery(&number.to_string(), &token).send(gateway.address()).status, 200);
    }
    assert_eq!((upstream.ids().len(), issuer.fetches()), (5, 1));
}

#[test]
fn every_wrong_token_is_refused_alike() {
    let (gateway, upstream, issuer) = started();
    let mut first = None;
    for (what, reason, token) in wrong_tokens(&issuer) {
        let answer = delivery("1", &token).send(gateway.address());
        assert_eq!(answer.status, 403, "{what}");
        let label = format!("doorward_refusals_total{{reason=\"{reason}\",source=\"pitchpoint\"}}");
        assert!(gateway.metric(&label) > 0.0, "{what}: {:?}", refusals(&gateway));
        let headers: Vec<_> = answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
        let seen = (headers, answer.text());
        assert_eq!(&seen, first.get_or_insert_with(|| seen.clone()), "{what}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_request_without_a_bearer_token_is_refused_like_one_with_a_wrong_one() {
    let (gateway, upstream, issuer) = started();
    let token = Issuer::token("pitchpoint-a", "pps-2024-a", &claims(&issuer));
    let forged = delivery("1", &Issuer::token("pitchpoint-forger", "pps-2024-a", &claims(&issuer)));
    let expected = forged.send(gateway.address()).text();
    let without = delivery("1", "").without("Authorization");
    let wrong = [
        without.clone(),
        without.clone().with("Authorization", ""),
        without.clone().with("Authorization", "Bearer"),
        without.clone().with("Authorization", &token),
        without.clone().with("Authorization", &format!("Basic {token}")),
        without.clone().with("Authorization", &format!("Token {token}")),
        without.clone().with("X-Authorization", &format!("Bearer {token}")),
        without.with("Cookie", &format!("access_token={token}")),
    ];
    for delivery in wrong {
        let answer = delivery.send(gateway.address());
        assert_eq!((answer.status, answer.text()), (403, expected.clone()), "{delivery:?}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_remembered_token_does_not_vouch_for_other_claims() {
    let (gateway, upstream, issuer) = started();
    let mut claims = claims(&issuer);
    let token = Issuer::token("pitchpoint-a", "pps-2024-a", &claims);
    assert_eq!(delivery("1", &token).send(gateway.address()).status, 200);
    // The head and signature of a token that was just verified, over other claims.
    claims["sub"] = json!("somebody else");
    let other = Issuer::token("pitchpoint-forger", "pps-2024-a", &claims);
    let parts: Vec<_> = token.split('.').collect();
    let spliced = format!("{}.{}.{}", parts[0], other.split('.').nth(1).expect("claims"), parts[2]);
    assert_eq!(delivery("2", &spliced).send(gateway.address()).status, 403);
    assert_eq!(upstream.ids(), ["1"]);
}

fn started() -> (Gateway, Upstream, Issuer) {
    let upstream = Upstream::start();
    let issuer = Issuer::publishing(&Issuer::fixture_keys());
    let gateway = Gateway::start(&format!(
        "[sources.pitchpoint]\nprofile = \"pitchpoint\"\npath = \"/webhooks/pitchpoint\"\n\
         params = {{ issuer = \"{}\", audience = \"{AUDIENCE}\" }}\ndeliver.upstream = {{ url = \"{}\" }}\n",
        issuer.url(),
        upstream.url()
    ));
    (gateway, upstream, issuer)
}

fn delivery(id: &str, token: &str) -> Delivery {
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", &format!("Bearer {token}")),
        ("X-Pps-Webhook-Id", id),
        ("X-Pps-Topic", "orders/placed"),
        ("X-Pps-Triggered-At", "2024-01-1T10:00:00.7777748Z"),
    ];
    Delivery {
        method: "POST".to_owned(),
        path: "/webhooks/pitchpoint".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: b"{\"orderId\":\"5d1f6a\"}".to_vec(),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn claims(issuer: &Issuer) -> Value {
    json!({ "iss": issuer.url(), "aud": AUDIENCE, "iat": now() - 10, "exp": now() + 3600 })
}

/// A token for each way to be wrong, with the reason that operators should see.
fn wrong_tokens(issuer: &Issuer) -> Vec<(&'static str, &'static str, String)> {
    let right = claims(issuer);
    let with = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = right.clone();
        claims.as_object_mut().expect("claims").remove(name);
        claims
    };
    let signed = |claims: &Value| Issuer::token("pitchpoint-a", "pps-2024-a", claims);
    let genuine = signed(&right);
    let pem = public_pem();
    let modulus = Issuer::fixture_keys()["keys"][0]["n"].as_str().expect("a modulus").to_owned();
    let slash = json!(format!("{}/", issuer.url()));
    vec![
        ("no signature at all", "token_algorithm", unsigned("none", &right, "")),
        ("no signature at all, loudly", "token_algorithm", unsigned("NONE", &right, "")),
        ("none, with the signature kept", "token_algorithm", unsigned("none", &right, tail(&genuine))),
        ("the public key as a secret", "token_algorithm", symmetric(pem.as_bytes(), &right)),
        ("the public key trimmed", "token_algorithm", symmetric(pem.trim().as_bytes(), &right)),
        ("the modulus as a secret", "token_algorithm", symmetric(modulus.as_bytes(), &right)),
        ("RS256 said of a hash with the public key", "token_signature", mislabelled(pem.as_bytes(), &right)),
        (
            "another key of the same algorithm",
            "token_signature",
            Issuer::token("pitchpoint-forger", "pps-2024-a", &right),
        ),
        ("another published key", "token_signature", Issuer::token("pitchpoint-b", "pps-2024-a", &right)),
        ("a key for encryption", "token_key_use", Issuer::token("pitchpoint-enc", "pps-2024-enc", &right)),
        ("an unknown key", "token_unknown_key", Issuer::token("pitchpoint-a", "pps-2099", &right)),
        ("another issuer", "token_issuer", signed(&with("iss", json!("https://securetoken.google.com/other")))),
        ("almost the issuer", "token_issuer", signed(&with("iss", slash))),
        ("no issuer", "token_issuer", signed(&without("iss"))),
        ("a list of issuers", "token_issuer", signed(&with("iss", json!([issuer.url()])))),
        ("another audience", "token_audience", signed(&with("aud", json!("other")))),
        ("no audience", "token_audience", signed(&without("aud"))),
        ("a list without ours", "token_audience", signed(&with("aud", json!(["other", "tenant2"])))),
        ("expired", "token_expired", signed(&with("exp", json!(now() - 60)))),
        ("without end", "token_expired", signed(&without("exp"))),
        ("an end in words", "token_expired", signed(&with("exp", json!("tomorrow")))),
        ("not yet valid", "token_not_yet_valid", signed(&with("nbf", json!(now() + 120)))),
        ("cut by a letter", "token_malformed", genuine[..genuine.len() - 1].to_owned()),
        ("two parts", "token_malformed", genuine[..genuine.rfind('.').expect("a dot")].to_owned()),
        ("four parts", "token_malformed", format!("{genuine}.x")),
        ("a word", "token_malformed", "secret".to_owned()),
        ("far too long", "token_malformed", format!("{genuine}{}", "A".repeat(20_000))),
    ]
}

fn tail(token: &str) -> &str {
    token.rsplit('.').next().expect("a signature")
}

/// The public half of the published key, as other programs keep it.
fn public_pem() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/pitchpoint-a.pem");
    let text = std::fs::read_to_string(path).expect("a key");
    let base64: String =
        text.lines().skip_while(|line| !line.starts_with("-----")).filter(|line| !line.starts_with('-')).collect();
    let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(&STANDARD.decode(base64).expect("base64")).expect("a key");
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

fn symmetric(secret: &[u8], claims: &Value) -> String {
    let header = Header { kid: Some("pps-2024-a".to_owned()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).expect("a token")
}

fn unsigned(algorithm: &str, claims: &Value, signature: &str) -> String {
    let header = json!({ "alg": algorithm, "kid": "pps-2024-a", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(&header), part(claims))
}

/// A hash with the secret under a header that names another algorithm.
fn mislabelled(secret: &[u8], claims: &Value) -> String {
    let token = unsigned("RS256", claims, "");
    let signed = token.trim_end_matches('.');
    let secret = std::str::from_utf8(secret).expect("text");
    let hash = const_hex::decode(crate::harness::provider::signing::hmac_hex(secret, &[signed.as_bytes()]))
        .expect("hexadecimal");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hash))
}

fn refusals(gateway: &Gateway) -> Vec<(String, f64)> {
    gateway.metrics().into_iter().filter(|(name, _)| name.starts_with("doorward_refusals_total")).collect()
}
