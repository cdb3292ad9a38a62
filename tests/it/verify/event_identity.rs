//! Identities that a signature covers or does not cover: what was captured is not taken again as another event.

use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use serde_json::json;

use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::provider::signing::hmac_hex;
use crate::verify::tokens::bound;
use crate::verify::tokens::digest_of;
use crate::verify::tokens::encode;

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const BY_CONTENT: &str = r#"{"received":true,"duplicate":true,"replay_guard":"content"}"#;
const DELIVERED: &str = r#"{"ok":true}"#;
const ID: &str = "[event]\nid = { header = \"X-Id\" }\n";

#[test]
fn a_nonce_is_good_for_one_event() {
    let profile = "[auth.hmac]\nsignature = { header = \"X-Mac\", encoding = \"hex\" }\nsigned = \"{header:X-Nonce}.{body}\"\n\
                   ambiguous = \"no nonce has a dot\"\n\
                   [event]\nid = { header = \"X-Id\" }\nnonce = { header = \"X-Nonce\" }\n";
    let (gateway, upstream) = start_with_profile(profile, &with_secret());
    let send = |id: &str, nonce: &str, body: &str| {
        let mac = hmac_hex(SECRET, &[nonce.as_bytes(), b".", body.as_bytes()]);
        let headers = [("X-Mac", mac.as_str()), ("X-Id", id), ("X-Nonce", nonce)];
        request("POST", "/own", &headers, body).send(gateway.address()).text()
    };
    assert_eq!(send("1", "n1", "{}"), DELIVERED);
    let by_nonce = BY_CONTENT.replace("content", "nonce");
    assert_eq!(send("2", "n1", "{}"), by_nonce, "the nonce under another id");
    assert_eq!(send("2", "n1", "[]"), by_nonce, "with another body");
    assert_eq!(send("1", "n2", "{}"), DUPLICATE, "the id with another nonce");
    assert_eq!(send("2", "n3", "{}"), DELIVERED, "a nonce of its own");
    assert_eq!(send("n4", "n4", "{}"), DELIVERED);
    assert_eq!(send("5", "5", "{}"), DELIVERED);
    assert_eq!(send("6", "2", "{}"), DELIVERED, "a nonce that is another event's id");
    assert_eq!(upstream.ids(), ["1", "2", "n4", "5", "6"]);
}

#[test]
fn ids_of_several_parts_do_not_run_into_each_other() {
    let profile = "[auth.hmac]\nsignature = { header = \"X-Mac\", encoding = \"hex\" }\nsigned = \"{header:X-N}.{body}\"\n\
                   ambiguous = \"no number has a dot\"\n\
                   [event]\nid = { all = [{ json = \"/a\" }, { json = \"/b\" }, { json = \"/c\" }] }\n";
    let (gateway, upstream) = start_with_profile(profile, &with_secret());
    let send = |number: usize, parts: [&str; 3]| {
        let body = json!({ "a": parts[0], "b": parts[1], "c": parts[2] }).to_string();
        let n = number.to_string();
        let mac = hmac_hex(SECRET, &[n.as_bytes(), b".", body.as_bytes()]);
        request("POST", "/own", &[("X-Mac", &mac), ("X-N", &n)], body).send(gateway.address())
    };
    let different = [
        ["a:b", "c", "d"],
        ["a", "b:c", "d"],
        ["a", "b", "c:d"],
        ["a:b:c", "d", "e"],
        ["a", "b", "c"],
        ["ab", "c", "d"],
        ["a", "bc", "d"],
    ];
    for (number, parts) in different.into_iter().enumerate() {
        assert_eq!(send(number, parts).text(), DELIVERED, "{parts:?}");
    }
    assert_eq!(upstream.ids()[..2], ["a:b:c:d", "a:b:c:d"], "they look alike, and are two events");
    assert_eq!(send(99, ["a:b", "c", "d"]).text(), DUPLICATE);
    for unusable in [["a\u{1f}b", "c", "d"], ["a", "", "d"], ["a", "b\n", "d"]] {
        assert_eq!(send(99, unusable).status, 400, "{unusable:?}");
    }
}

#[test]
fn a_captured_request_is_not_taken_again_under_another_id() {
    let ed25519 = signing::ed25519("ed25519-a");
    let p256 = signing::p256("p256-a");
    let rsa = signing::rsa("rsa-a");
    let hex = |bytes: &[u8]| const_hex::encode(bytes);
    let raw = "format = \"raw\"\n";
    let public = const_hex::encode(aws_lc_rs::signature::KeyPair::public_key(&ed25519).as_ref());
    for (scheme, lines, key, signature) in [
        ("hmac", "", SECRET.to_owned(), hmac_hex(SECRET, &[b"{}"])),
        ("ed25519", "", public, hex(ed25519.sign(b"{}").as_ref())),
        ("ecdsa", raw, signing::p256_public(&p256), hex(&signing::p256_signature(&p256, b"{}"))),
        ("rsa", "", signing::rsa_public(&rsa), hex(&signing::rsa_signature(&rsa, b"{}"))),
    ] {
        let profile = format!(
            "[auth.{scheme}]\n{lines}signature = {{ header = \"X-Sig\", encoding = \"hex\" }}\nsigned = \"{{body}}\"\n{ID}"
        );
        let (gateway, upstream) = start_with_profile(&profile, &format!("secrets = [\"plain:{key}\"]"));
        let send = |id: &str| {
            request("POST", "/own", &[("X-Sig", &signature), ("X-Id", id)], "{}").send(gateway.address()).text()
        };
        assert_eq!([send("1"), send("2")], [DELIVERED, BY_CONTENT], "{scheme}");
        assert_eq!(upstream.ids(), ["1"], "{scheme}");
    }
}

#[test]
fn an_ecdsa_signature_that_somebody_negated_is_the_same_event() {
    let key = signing::p256("p256-a");
    let profile = format!(
        "[auth.ecdsa]\nformat = \"raw\"\nsignature = {{ header = \"X-Id\", encoding = \"hex\" }}\nsigned = \"{{body}}\"\n{ID}"
    );
    let (gateway, upstream) =
        start_with_profile(&profile, &format!("secrets = [\"plain:{}\"]", signing::p256_public(&key)));
    let signature = signing::p256_signature(&key, b"{}");
    let send = |signature: &[u8]| {
        request("POST", "/own", &[("X-Id", &const_hex::encode(signature))], "{}").send(gateway.address()).text()
    };
    assert_eq!(send(&signature), DELIVERED);
    assert_eq!(send(&signing::negated(&signature)), BY_CONTENT);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_captured_token_that_binds_the_body_is_not_taken_again_under_another_id() {
    let (gateway, upstream) = start_with_profile(&bound(), &with_secret());
    let claims = json!({ "iat": doorward::base::time::Moment::now().unix(), "digest": digest_of("{}") });
    let token = encode(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &claims);
    let send = |id: &str| {
        let headers = [("X-Id", id), ("Authorization", &format!("Bearer {token}"))];
        request("POST", "/own", &headers, "{}").send(gateway.address()).text()
    };
    assert_eq!([send("1"), send("1"), send("2")], [DELIVERED, DUPLICATE, BY_CONTENT]);
    assert_eq!(upstream.ids(), ["1"]);
}

#[test]
fn plaids_token_is_the_same_event_when_somebody_negated_its_signature() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = signing::p256("p256-a");
    let pem = signing::pem(&signing::p256_public(&key));
    let (gateway, upstream) = crate::harness::gateway::one_source::start_shipped(
        "plaid",
        &format!("secrets = [\"plain:{}\"]", pem.replace('\n', "\\n")),
    );
    let claims = json!({ "iat": doorward::base::time::Moment::now().unix(), "request_body_sha256": digest_of("{}") });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "ES256", "typ": "JWT" })), part(claims));
    let signature = signing::p256_signature(&key, signed.as_bytes());
    let send = |signature: &[u8]| {
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        request("POST", "/plaid", &[("Plaid-Verification", &token)], "{}").send(gateway.address()).text()
    };
    assert_eq!(
        [send(&signature), send(&signature), send(&signing::negated(&signature))],
        [DELIVERED, DUPLICATE, BY_CONTENT]
    );
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_token_that_is_sent_along_tells_no_events_apart() {
    let (gateway, upstream) = start_with_profile(
        &format!("[auth.token]\nfrom = {{ header = \"X-Token\" }}\n{ID}"),
        "secrets = [\"plain:word\"]",
    );
    let send =
        |id: &str| request("POST", "/own", &[("X-Token", "word"), ("X-Id", id)], "{}").send(gateway.address()).text();
    assert_eq!([send("1"), send("1"), send("2")], [DELIVERED, DUPLICATE, DELIVERED]);
    assert_eq!(upstream.ids(), ["1", "2"]);
}

#[test]
fn a_digit_moved_from_the_time_to_the_body_makes_no_new_event() {
    let profile = "[auth.hmac]\nsignature = { header = \"X-Sig\", encoding = \"hex\" }\nsigned = \"{timestamp}{body}\"\n\
                   ambiguous = \"what is signed counts once\"\n\
                   [timestamp]\nfrom = { header = \"X-Time\" }\nformat = \"unix\"\npolicy = \"record\"\n";
    for id in ["{ digest = \"body\" }", "{ first = [{ json = \"/id\" }, { digest = \"body\" }] }"] {
        let (gateway, upstream) = start_with_profile(&format!("{profile}[event]\nid = {id}\n"), &with_secret());
        let now = doorward::base::time::Moment::now().unix().to_string();
        let signature = hmac_hex(SECRET, &[now.as_bytes(), b"{}"]);
        let send = |time: &str, body: &str| {
            request("POST", "/own", &[("X-Sig", &signature), ("X-Time", time)], body).send(gateway.address())
        };
        assert_eq!(send(&now, "{}").text(), DELIVERED);
        for digits in [9, 8, 1] {
            let (time, moved) = now.split_at(digits);
            // A time of long ago.
            assert_eq!(send(time, &format!("{moved}{{}}")).status, 401, "{time}");
        }
        assert_eq!(upstream.received().len(), 1);
    }
}

#[test]
fn discord_and_sendgrid_take_no_digit_of_the_time_for_the_bodys() {
    let key = signing::ed25519("ed25519-a");
    let public = const_hex::encode(aws_lc_rs::signature::KeyPair::public_key(&key).as_ref());
    let (gateway, upstream) =
        crate::harness::gateway::one_source::start_shipped("discord", &format!("secrets = [\"plain:{public}\"]"));
    let signature = const_hex::encode(key.sign(b"1767348000{\"type\":1}"));
    let headers = [("X-Signature-Ed25519", signature.as_str()), ("X-Signature-Timestamp", "176734800")];
    assert_eq!(request("POST", "/discord", &headers, "0{\"type\":1}").send(gateway.address()).status, 401);
    assert_eq!(upstream.connections(), 0);

    let key = signing::p256("p256-a");
    let (gateway, upstream) = crate::harness::gateway::one_source::start_shipped(
        "sendgrid",
        &format!("secrets = [\"plain:{}\"]", signing::p256_public(&key)),
    );
    let raw = signing::p256_signature(&key, b"1767348000[{}]");
    let signature = signing::base64(signing::der(&raw[..32], &raw[32..]));
    let headers = [
        ("X-Twilio-Email-Event-Webhook-Signature", signature.as_str()),
        ("X-Twilio-Email-Event-Webhook-Timestamp", "176734800"),
    ];
    assert_eq!(request("POST", "/sendgrid", &headers, "0[{}]").send(gateway.address()).status, 401);
    assert_eq!(upstream.connections(), 0);
}

/// Neither `null` nor an object in the place of the list hides a second item, of which no signature is verified.
#[test]
fn adyen_takes_no_more_than_the_item_that_is_signed() {
    let key = "ab".repeat(16);
    let (gateway, upstream) =
        crate::harness::gateway::one_source::start_shipped("adyen", &format!("secrets = [\"plain:{key}\"]"));
    let item = |reference: &str| {
        let signed = format!("{reference}::M:R:1:EUR:AUTHORISATION:true");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[0xab; 16]);
        let signature = signing::base64(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
        json!({ "NotificationRequestItem": {
            "pspReference": reference, "merchantAccountCode": "M", "merchantReference": "R",
            "amount": { "value": 1, "currency": "EUR" }, "eventCode": "AUTHORISATION", "success": "true",
            "additionalData": { "hmacSignature": signature },
        } })
    };
    let send = |items: serde_json::Value| {
        let body = json!({ "live": "false", "notificationItems": items }).to_string();
        request("POST", "/adyen", &[("Content-Type", "application/json")], body).send(gateway.address()).status
    };
    let (genuine, mut forged) = (item("P1"), item("P2"));
    forged["NotificationRequestItem"]["amount"]["value"] = json!(1000);
    for items in [
        json!([genuine, forged]),
        json!([genuine, null]),
        json!([genuine, null, forged]),
        json!({ "0": genuine, "x": forged }),
        json!({ "x": forged, "0": genuine }),
    ] {
        assert_eq!(send(items.clone()), 401, "{items}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(json!([genuine])), 200);
}

/// Two names of one header that say different types are none: the app may read the other one.
#[test]
fn a_type_under_two_names_is_the_same_under_both() {
    let lines = format!("{}\nevents = [\"push\"]", with_secret());
    let (gateway, upstream) = crate::harness::gateway::one_source::start_shipped("gitea", &lines);
    let send = |id: &str, types: &[(&str, &str)]| {
        let body = format!("{{\"id\":{id}}}");
        let mac = hmac_hex(SECRET, &[body.as_bytes()]);
        let headers = [&[("X-Gitea-Signature", mac.as_str()), ("X-Gitea-Delivery", id)], types].concat();
        request("POST", "/gitea", &headers, body).send(gateway.address()).text()
    };
    let ignored = r#"{"received":true,"ignored":true}"#;
    assert_eq!(send("1", &[("X-Gitea-Event", "push"), ("X-Gogs-Event", "delete")]), ignored);
    assert_eq!(send("2", &[("X-Gitea-Event", "delete"), ("X-Gogs-Event", "push")]), ignored);
    assert_eq!(send("3", &[("X-Gitea-Event", "push"), ("X-Gogs-Event", "push")]), DELIVERED);
    assert_eq!(upstream.ids(), ["3"]);
}

fn with_secret() -> String {
    format!("secrets = [\"plain:{SECRET}\"]")
}
