//! Secrets and tokens that are sent along, in the forms that no shipped profile has.

use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;

const ID: &str = "[event]\nid = { header = \"X-Id\" }\n";

#[test]
fn a_token_is_compared_exactly_wherever_it_stands() {
    let locations = [
        ("header = \"X-Token\"", header as fn(&str) -> Delivery),
        ("header = \"X-Token\", prefix = \"Token \"", |token| header(&format!("Token {token}"))),
        ("query = \"token\"", |token| request("POST", &format!("/own?token={token}"), &[("X-Id", "1")], "")),
        ("form = \"token\"", |token| request("POST", "/own", &[("X-Id", "1")], format!("a=1&token={token}"))),
        ("json = \"/token\"", |token| request("POST", "/own", &[("X-Id", "1")], json!({ "token": token }).to_string())),
        ("header = \"X-Token\", item = \"t\"", |token| header(&format!("a=1, t={token}, b=2"))),
    ];
    for (location, send) in locations {
        let (gateway, upstream) =
            start_with_profile(&format!("[auth.token]\nfrom = {{ {location} }}\n{ID}"), "secrets = [\"plain:s3cret\"]");
        for wrong in ["", "s3cre", "s3crets", "S3CRET", "s3cre%00", "s3cret;s3cret", "xs3cret", "s3cr%C3%A9t"] {
            assert_eq!(send(wrong).send(gateway.address()).status, 401, "{location}: {wrong}");
        }
        assert_eq!(upstream.connections(), 0, "{location}");
        assert_eq!(send("s3cret").send(gateway.address()).status, 200, "{location}");
    }
}

#[test]
fn a_token_that_is_there_twice_is_none() {
    let lines = "secrets = [\"plain:s\"]";
    let with = |location: &str| start_with_profile(&format!("[auth.token]\nfrom = {{ {location} }}\n{ID}"), lines);
    let headers = &[("X-Id", "1")];
    let (gateway, _upstream) = with("query = \"token\"");
    for query in ["token=s&token=s", "token=s&token=x", "token=s&%74oken=x", "token=x&token=s", "token=s&token"] {
        assert_eq!(
            request("POST", &format!("/own?{query}"), headers, "").send(gateway.address()).status,
            401,
            "{query}"
        );
    }
    let (gateway, _upstream) = with("form = \"token\"");
    for form in ["token=s&token=s", "token=s&token=x", "token=s&tok%65n=", "token=s&token"] {
        assert_eq!(request("POST", "/own", headers, form).send(gateway.address()).status, 401, "{form}");
    }
    let (gateway, _upstream) = with("header = \"X-Token\", item = \"t\"");
    let answer = header("t=s,t=x").send(gateway.address());
    assert_eq!(answer.status, 401, "every value has to be right");
}

#[test]
fn a_token_in_an_odd_json_value_is_none() {
    let (gateway, upstream) =
        start_with_profile(&format!("[auth.token]\nfrom = {{ json = \"/t\" }}\n{ID}"), "secrets = [\"plain:17\"]");
    let bodies = [
        (r#"{"t":["17"]}"#, 401),
        (r#"{"t":{"t":"17"}}"#, 401),
        (r#"{"t":17.0}"#, 401),
        (r#"{"t":1.7e1}"#, 401),
        (r#"{"t":true}"#, 401),
        (r#"{"t":null}"#, 401),
        (r#"{"T":"17"}"#, 401),
        (r#"["17"]"#, 401),
        (r#"{"t":"17 "}"#, 401),
        (r#"{"t":"17","t":"17"}"#, 400),
        (r#"{"t":"17","\u0074":"x"}"#, 400),
        (r#"{"t":"17""#, 400),
        ("t=17", 400),
        ("", 400),
    ];
    for (body, status) in bodies {
        let answer = request("POST", "/own", &[("X-Id", "1")], body).send(gateway.address());
        assert_eq!(answer.status, status, "{body}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn credentials_are_compared_whole() {
    let (gateway, upstream) =
        start_with_profile(&format!("[auth.basic]\n{ID}"), "secrets = [\"plain:user:pass:word\"]");
    let send = |value: String| {
        request("POST", "/own", &[("X-Id", "1"), ("Authorization", &value)], "").send(gateway.address())
    };
    let wrong = [
        "user:pass",
        "user:pass:wor",
        "user:pass:words",
        "USER:pass:word",
        "user",
        ":",
        "",
        "user:pass:word\0",
        "user\0:pass:word",
    ];
    for credentials in wrong {
        assert_eq!(send(format!("Basic {}", signing::base64(credentials))).status, 401, "{credentials:?}");
    }
    let right = signing::base64("user:pass:word");
    let unpadded = right.trim_end_matches('=').to_owned();
    for value in [
        right.clone(),
        format!("Basic{right}"),
        format!("Bearer {right}"),
        format!("Basic {right}, Basic {right}"),
        format!("Basic {right} x"),
        format!("Basic {unpadded}!"),
        "Basic user:pass:word".to_owned(),
        "Basic".to_owned(),
    ] {
        assert_eq!(send(value.clone()).status, 401, "{value}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(format!("bAsIc {right}")).status, 200);
}

#[test]
fn each_algorithm_verifies_its_own_tokens_and_no_others() {
    let tokens = tokens();
    for (name, secret, _) in &tokens {
        let (gateway, upstream) = jwt(name, "", secret);
        for (other, _, token) in tokens.iter().filter(|(other, _, _)| other != name) {
            assert_eq!(bearer(token).send(gateway.address()).status, 401, "a {other} token for {name}");
        }
        assert_eq!(upstream.connections(), 0, "{name}");
        let (_, _, own) = tokens.iter().find(|(other, _, _)| other == name).expect("its own");
        assert_eq!(bearer(own).send(gateway.address()).status, 200, "{name}: {:?}", gateway.log());
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    for (name, secret, token) in tokens().iter().filter(|(name, _, _)| !name.starts_with("HS")) {
        let (gateway, upstream) = jwt(name, "", secret);
        let claims: Value = payload(token);
        let pem = secret.replace("\\n", "\n");
        for key in [pem.as_bytes(), pem.trim().as_bytes(), secret.as_bytes()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let forged = encode(algorithm, &EncodingKey::from_secret(key), &claims);
                assert_eq!(bearer(&forged).send(gateway.address()).status, 401, "{name}");
                // The same under the name of the right algorithm.
                let parts: Vec<_> = forged.split('.').collect();
                let head = token.split('.').next().expect("a head");
                let renamed = format!("{head}.{}.{}", parts[1], parts[2]);
                assert_eq!(bearer(&renamed).send(gateway.address()).status, 401, "{name}");
            }
        }
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn a_token_without_a_signature_is_none() {
    for (name, secret, token) in &tokens() {
        let (gateway, upstream) = jwt(name, "", secret);
        let parts: Vec<_> = token.split('.').collect();
        for algorithm in ["none", "None", "NONE", "", name, "hs256"] {
            let head = base64url(json!({ "alg": algorithm, "typ": "JWT" }).to_string());
            for signature in ["", "AA", parts[2]] {
                let forged = format!(
                    "{head}.{}.{signature}",
                    base64url(json!({ "sub": "x", "aud": "us", "exp": 4_000_000_000_u64 }).to_string())
                );
                assert_eq!(bearer(&forged).send(gateway.address()).status, 401, "{name}: {algorithm} {signature:.5}");
            }
        }
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn required_claims_have_to_be_there_with_their_very_values() {
    let lines = "[auth.jwt.claims]\nemail = \"{email}\"\nverified = true\nlevel = 3\n";
    let profile =
        format!("[params.email]\nabout = \"e\"\n[auth.jwt]\nalgorithm = \"HS256\"\naudience = \"us\"\n{lines}{ID}");
    let (gateway, upstream) = start_with_profile(
        &profile,
        &format!("secrets = [\"plain:{SECRET}\"]\nparams = {{ email = \"a@b.example\" }}"),
    );
    let right = json!({ "aud": "us", "exp": 4_000_000_000_u64, "email": "a@b.example", "verified": true, "level": 3 });
    let send = |claims: &Value| bearer(&encode(Algorithm::HS256, &shared(), claims)).send(gateway.address()).status;
    for (name, value) in [
        ("email", json!("A@b.example")),
        ("email", json!(["a@b.example"])),
        ("email", Value::Null),
        ("email", json!("{email}")),
        ("verified", json!("true")),
        ("verified", json!(1)),
        ("verified", json!(false)),
        ("verified", Value::Null),
        ("level", json!("3")),
        ("level", json!(3.5)),
        ("level", json!([3])),
        ("aud", json!("them")),
        ("aud", json!([])),
        ("aud", json!({ "us": true })),
        ("exp", json!("4000000000")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", Value::Null),
        ("nbf", json!(3_999_999_999_u64)),
        ("nbf", json!("now")),
    ] {
        let mut claims = right.clone();
        claims[name] = value.clone();
        assert_eq!(send(&claims), 401, "{name}: {value}");
    }
    for name in ["email", "verified", "level", "aud", "exp"] {
        let mut claims = right.clone();
        claims.as_object_mut().expect("an object").remove(name);
        assert_eq!(send(&claims), 401, "{name} is missing");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(&right), 200);
}

#[test]
fn a_token_that_binds_the_body_is_good_for_no_other() {
    let (gateway, upstream) = start_with_profile(&bound(), &format!("secrets = [\"plain:{SECRET}\"]"));
    let send = |digest: Value, body: &str| {
        let claims = json!({ "iat": doorward::base::time::Moment::now().unix(), "digest": digest });
        let token = encode(Algorithm::HS256, &shared(), &claims);
        request("POST", "/own", &[("X-Id", "1"), ("Authorization", &format!("Bearer {token}"))], body)
            .send(gateway.address())
            .status
    };
    let digest = digest_of("{}");
    assert_eq!(send(json!(digest), "[]"), 401);
    assert_eq!(send(json!(digest), "{} "), 401);
    for wrong in [
        json!(""),
        json!(digest[..62]),
        json!(format!("{digest}00")),
        json!(format!("0x{digest}")),
        json!([digest]),
        json!(null),
    ] {
        assert_eq!(send(wrong.clone(), "{}"), 401, "{wrong}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(json!(digest.to_uppercase()), "{}"), 200);
}

/// A profile whose tokens bind the body, and not the id beside it.
pub(super) fn bound() -> String {
    format!(
        "[auth.jwt]\nalgorithm = \"HS256\"\nmax_age = \"5m\"\nbody = {{ claim = \"digest\", encoding = \"hex\" }}\n{ID}"
    )
}

pub(super) fn digest_of(body: &str) -> String {
    use sha2::Digest as _;
    const_hex::encode(sha2::Sha256::digest(body))
}

/// One token of each algorithm with the secret that verifies it, as it stands in TOML.
fn tokens() -> Vec<(&'static str, String, String)> {
    let claims = json!({ "aud": "us", "exp": 4_000_000_000_u64 });
    let pem = |spki: &str| signing::pem(spki).replace('\n', "\\n");
    let rsa = pem(&signing::rsa_public(&signing::rsa("rsa-a")));
    let p256 = pem(&signing::p256_public(&signing::p256("p256-a")));
    let ed25519 = json!({
        "kty": "OKP", "crv": "Ed25519", "x": base64url(signing::ed25519("ed25519-a").public_key().as_ref())
    });
    let file = |name: &str| {
        std::fs::read(format!("{}/tests/fixtures/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))).expect("a key")
    };
    let with_rsa = |algorithm| encode(algorithm, &EncodingKey::from_rsa_pem(&file("rsa-a")).expect("a key"), &claims);
    let with_p256 = encode(Algorithm::ES256, &EncodingKey::from_ec_pem(&file("p256-a")).expect("a key"), &claims);
    let with_ed = encode(Algorithm::EdDSA, &EncodingKey::from_ed_pem(&file("ed25519-a")).expect("a key"), &claims);
    let with_secret = |algorithm| encode(algorithm, &shared(), &claims);
    vec![
        ("RS256", rsa.clone(), with_rsa(Algorithm::RS256)),
        ("RS384", rsa.clone(), with_rsa(Algorithm::RS384)),
        ("RS512", rsa.clone(), with_rsa(Algorithm::RS512)),
        ("PS256", rsa.clone(), with_rsa(Algorithm::PS256)),
        ("PS384", rsa.clone(), with_rsa(Algorithm::PS384)),
        ("PS512", rsa, with_rsa(Algorithm::PS512)),
        ("ES256", p256, with_p256),
        ("EdDSA", ed25519.to_string(), with_ed),
        ("HS256", SECRET.to_owned(), with_secret(Algorithm::HS256)),
        ("HS384", SECRET.to_owned(), with_secret(Algorithm::HS384)),
        ("HS512", SECRET.to_owned(), with_secret(Algorithm::HS512)),
    ]
}

/// A gateway that takes tokens of one algorithm for the audience `us`.
fn jwt(algorithm: &str, lines: &str, secret: &str) -> (Gateway, crate::harness::upstream::Upstream) {
    let profile = format!("[auth.jwt]\nalgorithm = \"{algorithm}\"\naudience = \"us\"\n{lines}{ID}");
    start_with_profile(&profile, &format!("secrets = [\"plain:{}\"]", secret.replace('"', "\\\"")))
}

fn header(token: &str) -> Delivery {
    let token: String = token.bytes().map(char::from).collect();
    request("POST", "/own", &[("X-Id", "1"), ("X-Token", &token)], "")
}

fn bearer(token: &str) -> Delivery {
    request("POST", "/own", &[("X-Id", "1"), ("Authorization", &format!("Bearer {token}"))], "{}")
}

fn shared() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

pub(super) fn encode(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).expect("a token")
}

fn payload(token: &str) -> Value {
    use base64::Engine as _;
    let text = token.split('.').nth(1).expect("claims");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
