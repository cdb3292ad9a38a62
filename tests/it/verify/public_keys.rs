//! Signatures that are made with public keys, and what only looks like one.

use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::provider::signing::base64;
use crate::harness::upstream::Upstream;

const BODY: &[u8] = b"{\"id\":\"1\"}";
const ID: &str = "[event]\nid = { digest = \"body\" }\n";
/// Which of them it is depends on the lengths of numbers that differ from run to run.
const EITHER: &str = "signature_mismatch or signature_malformed";
/// The order of the group of P-256.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

#[test]
fn an_ed25519_signature_is_accepted_in_canonical_form_only() {
    let key = signing::ed25519("ed25519-a");
    let other = signing::ed25519("ed25519-b");
    let genuine = key.sign(BODY).as_ref().to_vec();
    let (r, s) = genuine.split_at(32);
    let identity = [vec![1], vec![0; 31]].concat();
    let order_two = const_hex::decode("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f").expect("hex");
    let wrong = [
        ("S and the order of the group", [r, &plus_order(s)].concat(), "signature_mismatch"),
        ("S with its highest bit", [r, &with_top_bit(s)].concat(), "signature_mismatch"),
        ("S zero", [r, &[0; 32]].concat(), "signature_mismatch"),
        ("R zero", [&[0; 32], s].concat(), "signature_mismatch"),
        ("all zero", vec![0; 64], "signature_mismatch"),
        ("all ones", vec![0xff; 64], "signature_mismatch"),
        ("R the identity, S zero", [identity.as_slice(), &[0; 32]].concat(), "signature_mismatch"),
        ("R of order two, S zero", [order_two.as_slice(), &[0; 32]].concat(), "signature_mismatch"),
        ("halves swapped", [s, r].concat(), "signature_mismatch"),
        ("of another key", other.sign(BODY).as_ref().to_vec(), "signature_mismatch"),
        ("of another body", key.sign(b"{\"id\":\"2\"}").as_ref().to_vec(), "signature_mismatch"),
        ("of a hash of the body", key.sign(&sha256(BODY)).as_ref().to_vec(), "signature_mismatch"),
        ("the public key", key.public_key().as_ref().to_vec(), "signature_malformed"),
        ("HMAC with the public key", signing::hmac_sha256(key.public_key().as_ref(), BODY), "signature_malformed"),
        ("a byte more", [genuine.as_slice(), &[0]].concat(), "signature_malformed"),
        ("a byte less", genuine[..63].to_vec(), "signature_malformed"),
        ("twice", genuine.repeat(2), "signature_malformed"),
        ("nothing", Vec::new(), "signature_malformed"),
    ];
    let profile = scheme("ed25519", "key = { encoding = \"base64\" }\n");
    assert_only(&profile, &base64(key.public_key()), &genuine, &wrong);
}

#[test]
fn a_der_signature_is_accepted_in_canonical_form_only() {
    let key = signing::p256("p256-a");
    let raw = signing::p256_signature(&key, BODY);
    let (r, s) = raw.split_at(32);
    let genuine = signing::der(r, s);
    let inner = &genuine[2..];
    let length = u8::try_from(inner.len()).expect("short");
    let padded = |number: &[u8]| [&[0, 0], number].concat();
    let zero: &[u8] = &[0];
    let order = const_hex::decode(ORDER).expect("hex");
    let wrong = [
        ("a byte behind", [genuine.as_slice(), &[0]].concat(), EITHER),
        ("a byte inside", [&[0x30, length + 1], inner, &[0]].concat(), EITHER),
        ("a long length", [&[0x30, 0x81, length], inner].concat(), EITHER),
        ("an open length", [&[0x30, 0x80], inner, &[0, 0]].concat(), EITHER),
        ("r with zeros", sequence(&padded(r), &unsigned(s)), EITHER),
        ("s with zeros", sequence(&unsigned(r), &padded(s)), EITHER),
        ("r zero", signing::der(&[], s), EITHER),
        ("s zero", signing::der(r, &[]), EITHER),
        ("both zero", signing::der(&[], &[]), EITHER),
        ("r one, s one", signing::der(&[1], &[1]), EITHER),
        ("r empty", sequence(&[], &unsigned(s)), EITHER),
        ("r negative", sequence(&[0xff], &unsigned(s)), EITHER),
        ("s and the order", signing::der(r, &sum(s, &order)), EITHER),
        ("s the order", signing::der(r, &order), EITHER),
        ("r the order", signing::der(&order, s), EITHER),
        ("one number", sequence_of(&[&unsigned(r)]), EITHER),
        ("three numbers", sequence_of(&[&unsigned(r)[..20], &unsigned(s)[..20], zero]), EITHER),
        ("a set", [&[0x31], &genuine[1..]].concat(), EITHER),
        ("raw", raw.clone(), EITHER),
        ("of another key", der_of(&signing::p256("p256-b"), BODY), EITHER),
        ("of another body", der_of(&key, b"{}"), EITHER),
        ("nothing", Vec::new(), EITHER),
    ];
    assert_only(&scheme("ecdsa", ""), &signing::p256_public(&key), &genuine, &wrong);
}

#[test]
fn a_raw_signature_is_accepted_in_canonical_form_only() {
    let key = signing::p256("p256-a");
    let genuine = signing::p256_signature(&key, BODY);
    let (r, s) = genuine.split_at(32);
    let order = const_hex::decode(ORDER).expect("hex");
    let zero: &[u8] = &[0; 32];
    let wrong = [
        ("DER", signing::der(r, s), "signature_malformed"),
        ("r zero", [zero, s].concat(), "signature_mismatch"),
        ("s zero", [r, zero].concat(), "signature_mismatch"),
        ("both zero", vec![0; 64], "signature_mismatch"),
        ("r the order", [order.as_slice(), s].concat(), "signature_mismatch"),
        ("s the order", [r, &order].concat(), "signature_mismatch"),
        ("halves swapped", [s, r].concat(), "signature_mismatch"),
        ("a byte more", [&genuine, zero.get(..1).expect("a byte")].concat(), "signature_malformed"),
        ("a byte less", genuine[1..].to_vec(), "signature_malformed"),
        ("of another key", signing::p256_signature(&signing::p256("p256-b"), BODY), "signature_mismatch"),
    ];
    assert_only(&scheme("ecdsa", "format = \"raw\"\n"), &signing::p256_public(&key), &genuine, &wrong);
}

#[test]
fn an_rsa_signature_is_accepted_in_canonical_form_only() {
    let key = signing::rsa("rsa-a");
    let genuine = signing::rsa_signature(&key, BODY);
    let wrong = [
        ("of another key", signing::rsa_signature(&signing::rsa("rsa-b"), BODY), "signature_mismatch"),
        ("of another body", signing::rsa_signature(&key, b"{}"), "signature_mismatch"),
        ("zero", vec![0; 256], "signature_mismatch"),
        ("one", [vec![0; 255], vec![1]].concat(), "signature_mismatch"),
        ("ones", vec![0xff; 256], "signature_mismatch"),
        ("a zero before", [&[0], genuine.as_slice()].concat(), "signature_mismatch"),
        ("a byte behind", [genuine.as_slice(), &[0]].concat(), "signature_mismatch"),
        ("a byte less", genuine[..255].to_vec(), "signature_malformed"),
        (
            "HMAC with the public key",
            signing::hmac_sha256(signing::rsa_public(&key).as_bytes(), BODY),
            "signature_malformed",
        ),
        ("as long as 8193 bits", vec![1; 1025], "signature_malformed"),
    ];
    assert_only(&scheme("rsa", ""), &signing::rsa_public(&key), &genuine, &wrong);
}

#[test]
fn each_of_several_keys_verifies_and_no_other() {
    let (a, b) = (signing::ed25519("ed25519-a"), signing::ed25519("ed25519-b"));
    let lines = format!("secrets = [\"plain:{}\", \"plain:{}\"]", public(&a), public(&b));
    let (gateway, _upstream) = start_with_profile(&scheme("ed25519", ""), &lines);
    for (number, key) in (1..).zip([a, b]) {
        let body = format!("{{\"id\":{number}}}");
        let signature = base64(key.sign(body.as_bytes()));
        assert_eq!(request("POST", "/own", &[("X-Sig", &signature)], body).send(gateway.address()).status, 200);
        let matches = format!("doorward_secret_matches_total{{secret=\"plain#{number}\",source=\"own\"}}");
        assert_eq!(gateway.metric(&matches), 1.0);
    }
}

#[test]
fn what_is_no_key_for_the_scheme_is_refused_by_check() {
    let ed25519 = public(&signing::ed25519("ed25519-a"));
    let p256 = signing::p256_public(&signing::p256("p256-a"));
    let rsa = signing::rsa_public(&signing::rsa("rsa-a"));
    for (name, wrong) in
        [("ed25519", vec![&p256, &rsa]), ("ecdsa", vec![&ed25519, &rsa]), ("rsa", vec![&ed25519, &p256])]
    {
        for secret in wrong.into_iter().map(String::as_str).chain(["", "word", "AAAA", "MAA=", "0x00"]) {
            let spec = check(&scheme(name, ""), &format!("secrets = [\"plain:{secret}\"]"));
            let spec = spec.expect_err(&format!("{secret:.20} as a key of {name}"));
            assert!(spec.contains("secrets") && (secret.len() < 8 || !spec.contains(secret)), "{name}: {spec}");
        }
    }
}

#[test]
fn a_profile_has_to_say_which_keys_are_public() {
    let both = |ed25519: &str, hmac: &str| {
        format!(
            "[[auth.first]]\n[auth.first.ed25519]\n{ed25519}signature = {{ header = \"X-Ed\", encoding = \"hex\" }}\n\
             signed = \"{{body}}\"\n[[auth.first]]\n[auth.first.hmac]\n{hmac}\
             signature = {{ header = \"X-Mac\", encoding = \"hex\" }}\nsigned = \"{{body}}\"\n{ID}"
        )
    };
    let lines = format!("secrets = [\"plain:{}\", \"plain:word\"]", public(&signing::ed25519("ed25519-a")));
    let spec = check(&both("", ""), &lines).expect_err("anybody could sign with the public key as the secret");
    assert!(spec.contains("only_prefixed"), "{spec}");
    let lines = lines.replace("plain:word", "plain:mac_word");
    assert_eq!(check(&both("", "key = { prefix = \"mac_\", only_prefixed = true }\n"), &lines), Ok(()));
}

/// A profile with this scheme; its signatures are in base64.
fn scheme(name: &str, lines: &str) -> String {
    format!(
        "[auth.{name}]\n{lines}signature = {{ header = \"X-Sig\", encoding = \"base64\" }}\nsigned = \"{{body}}\"\n{ID}"
    )
}

/// The gateway takes the genuine signature, and refuses each of the others for its reason.
#[track_caller]
fn assert_only(profile: &str, key: &str, genuine: &[u8], wrong: &[(&str, Vec<u8>, &str)]) {
    let (gateway, upstream): (Gateway, Upstream) = start_with_profile(profile, &format!("secrets = [\"plain:{key}\"]"));
    let send =
        |signature: &[u8]| request("POST", "/own", &[("X-Sig", &base64(signature))], BODY).send(gateway.address());
    for (what, signature, reason) in wrong {
        let refusals = || reason.split(" or ").map(|reason| gateway.refusals("own", reason)).sum::<f64>();
        let before = refusals();
        assert_eq!(send(signature).status, 401, "{what}");
        assert_eq!(refusals(), before + 1.0, "{what}: {:?}", gateway.log().last());
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(genuine).status, 200);
}

/// What `doorward check` says of a source with this profile.
fn check(profile: &str, lines: &str) -> Result<(), String> {
    let folder = folder_with_profile(profile);
    let path = folder.path().join("doorward.toml");
    let source = format!("[sources.own]\nprofile = \"own\"\npath = \"/own\"\n{lines}\n");
    let deliver = "deliver.upstream = { url = \"http://127.0.0.1:9/\" }\n";
    std::fs::write(&path, format!("profiles = \"profiles\"\n[store]\nurl = \"memory:\"\n{source}{deliver}"))
        .expect("written");
    let output =
        doorward().arg("check").arg("--config").arg(&path).current_dir(folder.path()).output().expect("it runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn public(key: &Ed25519KeyPair) -> String {
    const_hex::encode(key.public_key().as_ref())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}

fn der_of(key: &aws_lc_rs::signature::EcdsaKeyPair, body: &[u8]) -> Vec<u8> {
    let raw = signing::p256_signature(key, body);
    signing::der(&raw[..32], &raw[32..])
}

/// The bytes of a positive number as ASN.1 wants them.
fn unsigned(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    if digits.first().is_some_and(|first| *first >= 0x80) { [&[0], digits.as_slice()].concat() } else { digits }
}

fn sequence(r: &[u8], s: &[u8]) -> Vec<u8> {
    sequence_of(&[r, s])
}

/// A sequence of integers with these very bytes.
fn sequence_of(numbers: &[&[u8]]) -> Vec<u8> {
    let integer = |bytes: &&[u8]| [&[2, u8::try_from(bytes.len()).expect("short")], *bytes].concat();
    let all: Vec<u8> = numbers.iter().flat_map(integer).collect();
    [&[0x30, u8::try_from(all.len()).expect("short")], all.as_slice()].concat()
}

/// The sum of two numbers, highest byte first.
fn sum(one: &[u8], other: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut sum: Vec<u8> = one
        .iter()
        .rev()
        .zip(other.iter().rev())
        .map(|(one, other)| {
            let total = u16::from(*one) + u16::from(*other) + carry;
            carry = total >> 8;
            total.to_le_bytes()[0]
        })
        .collect();
    sum.push(carry.to_le_bytes()[0]);
    sum.reverse();
    sum
}

/// A number, lowest byte first, and the order of the group of Ed25519: the same signature, if that were allowed.
fn plus_order(s: &[u8]) -> Vec<u8> {
    let order = const_hex::decode("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed").expect("hex");
    let reversed: Vec<u8> = s.iter().rev().copied().collect();
    let mut sum = sum(&reversed, &order);
    sum.reverse();
    sum.truncate(32);
    sum
}

fn with_top_bit(s: &[u8]) -> Vec<u8> {
    let mut s = s.to_vec();
    s[31] |= 0x80;
    s
}
