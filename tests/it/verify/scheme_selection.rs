//! Several schemes together: which of them decides.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::provider::signing::hmac_hex;

const ID: &str = "[event]\nid = { header = \"X-Id\" }\n";
const SIGNED: &str = "hmac]\nkey = { prefix = \"mac_\", only_prefixed = true }\n\
                      signature = { header = \"X-Mac\", encoding = \"hex\" }\nsigned = \"{body}\"\n";
const SENT: &str = "token]\nfrom = { header = \"X-Token\" }\n";
const BOTH_KEYS: &str = "secrets = [\"plain:mac_key\", \"plain:word\"]";

#[test]
fn the_first_scheme_that_applies_decides_and_no_other() {
    let (mac, wrong) = (hmac_hex("key", &[b"{}"]), "0".repeat(64));
    // By header: signature and token, and the end of it when the signature comes first or last in the profile.
    let cases: [(&[(_, &str)], _); 12] = [
        (&[("X-Mac", &mac)], [200, 200]),
        (&[("X-Token", "word")], [200, 200]),
        (&[("X-Mac", &mac), ("X-Token", "word")], [200, 200]),
        (&[("X-Mac", &wrong), ("X-Token", "word")], [401, 200]),
        (&[("X-Mac", ""), ("X-Token", "word")], [401, 200]),
        (&[("X-Mac", "not hex"), ("X-Token", "word")], [401, 200]),
        (&[("X-Mac", &mac), ("X-Token", "ward")], [200, 401]),
        (&[("X-Mac", &mac), ("X-Token", "")], [200, 401]),
        (&[("X-Mac", &wrong), ("X-Token", "ward")], [401, 401]),
        (&[("X-Token", "key")], [401, 401]),
        (&[("X-Token", "mac_key")], [401, 401]),
        (&[], [401, 401]),
    ];
    let strong = start_with_profile(
        &format!("[[auth.first]]\n[auth.first.{SIGNED}[[auth.first]]\n[auth.first.{SENT}{ID}"),
        BOTH_KEYS,
    );
    let weak = start_with_profile(
        &format!("[[auth.first]]\n[auth.first.{SENT}[[auth.first]]\n[auth.first.{SIGNED}{ID}"),
        BOTH_KEYS,
    );
    for (at, (headers, [with_strong, with_weak])) in cases.into_iter().enumerate() {
        let id = at.to_string();
        let delivery = request("POST", "/own", headers, "{}").with("X-Id", &id);
        assert_eq!(delivery.send(strong.0.address()).status, with_strong, "{headers:?}");
        assert_eq!(delivery.send(weak.0.address()).status, with_weak, "{headers:?}");
    }
}

#[test]
fn a_scheme_without_a_key_is_switched_off() {
    let profile = format!("[[auth.first]]\n[auth.first.{SIGNED}[[auth.first]]\n[auth.first.{SENT}{ID}");
    let (gateway, _upstream) = start_with_profile(&profile, "secrets = [\"plain:mac_key\"]");
    let send = |headers: &[(&str, &str)]| {
        request("POST", "/own", headers, "{}").with("X-Id", "1").send(gateway.address()).status
    };
    assert_eq!(send(&[("X-Token", "word")]), 401);
    assert_eq!(send(&[("X-Token", "")]), 401);
    assert_eq!(send(&[("X-Token", "mac_key")]), 401);
    assert_eq!(send(&[("X-Mac", &hmac_hex("key", &[b"{}"]))]), 200);
}

#[test]
fn entries_of_one_list_are_judged_by_the_first_kind_that_is_there() {
    let member = |item: &str, hash: &str| {
        format!(
            "[[auth.first]]\n[auth.first.hmac]\nhash = \"{hash}\"\nsignature = {{ header = \"X-Sig\", item = \"{item}\", encoding = \"hex\" }}\n\
             signed = \"{{body}}\"\n"
        )
    };
    let (gateway, upstream) =
        start_with_profile(&(member("v2", "sha256") + &member("v1", "sha1") + ID), &with_secret());
    let strong = hmac_hex(SECRET, &[b"{}"]);
    let weak = const_hex::encode(signing::hmac_sha1(SECRET.as_bytes(), b"{}"));
    let send =
        |list: String| request("POST", "/own", &[("X-Sig", &list), ("X-Id", "1")], "{}").send(gateway.address()).status;
    for list in [
        format!("v2={},v1={weak}", "0".repeat(64)),
        format!("v1={weak},v2={}", "0".repeat(64)),
        format!("v2=,v1={weak}"),
        format!("v1={weak},v2=x"),
        format!("v2={weak}"),
        format!("v1={strong}"),
        format!("V1={weak}"),
        "v3=1".to_owned(),
        String::new(),
    ] {
        assert_eq!(send(list.clone()), 401, "{list}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(format!("v1={weak}")), 200);
    assert_eq!(send(format!("v1=0,v2={strong}")), 200);
}

#[test]
fn a_condition_chooses_the_scheme_and_nothing_else_does() {
    let member = |version: &str, hash: &str| {
        format!(
            "[[auth.first]]\nwhen = [{{ json = \"/version\", equals = \"{version}\" }}]\n[auth.first.hmac]\nhash = \"{hash}\"\n\
             signature = {{ header = \"X-Sig\", encoding = \"hex\" }}\nsigned = \"{{body}}\"\n"
        )
    };
    let (gateway, upstream) = start_with_profile(&(member("2", "sha256") + &member("1", "sha1") + ID), &with_secret());
    let send = |body: &str, signature: &str| {
        request("POST", "/own", &[("X-Sig", signature), ("X-Id", body)], body).send(gateway.address()).status
    };
    let sha1 = |body: &str| const_hex::encode(signing::hmac_sha1(SECRET.as_bytes(), body.as_bytes()));
    let sha256 = |body: &str| hmac_hex(SECRET, &[body.as_bytes()]);
    let (one, two) = (r#"{"version":"1"}"#, r#"{"version":"2"}"#);
    assert_eq!([send(two, &sha1(two)), send(one, &sha256(one))], [401, 401]);
    for neither in ["{}", r#"{"version":"3"}"#, r#"{"version":null}"#, r#"{"version":["2"]}"#, r#"{"version":2.0}"#] {
        assert_eq!([send(neither, &sha1(neither)), send(neither, &sha256(neither))], [401, 401], "{neither}");
    }
    let twice = r#"{"version":"2","version":"1"}"#;
    assert_eq!([send(twice, &sha1(twice)), send(twice, &sha256(twice))], [400, 400]);
    assert_eq!(upstream.connections(), 0);
    assert_eq!([send(one, &sha1(one)), send(two, &sha256(two))], [200, 200]);
}

#[test]
fn all_schemes_have_to_hold() {
    let (gateway, upstream) =
        start_with_profile(&format!("[[auth.all]]\n[auth.all.{SIGNED}[[auth.all]]\n[auth.all.{SENT}{ID}"), BOTH_KEYS);
    let (mac, wrong) = (hmac_hex("key", &[b"{}"]), "0".repeat(64));
    let send = |headers: &[(&str, &str)]| {
        request("POST", "/own", headers, "{}").with("X-Id", "1").send(gateway.address()).status
    };
    let bad: &[&[(&str, &str)]] = &[
        &[],
        &[("X-Mac", &mac)],
        &[("X-Token", "word")],
        &[("X-Mac", &wrong), ("X-Token", "word")],
        &[("X-Mac", ""), ("X-Token", "word")],
        &[("X-Mac", &mac), ("X-Token", "ward")],
        &[("X-Mac", &mac), ("X-Token", "")],
    ];
    for headers in bad {
        assert_eq!(send(headers), 401, "{headers:?}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(&[("X-Mac", &mac), ("X-Token", "word")]), 200);
}

#[test]
fn a_member_of_all_cannot_say_when_it_applies() {
    let when = "when = [{ header = \"X-Mac\", present = true }]\n";
    let text = format!("title = \"Own\"\n[[auth.all]]\n{when}[auth.all.{SIGNED}[[auth.all]]\n[auth.all.{SENT}{ID}");
    let refused = doorward::profile::Profile::parse(&text).expect_err("only one of them would be looked at");
    assert!(refused.contains("always has to hold"), "{refused}");
}

#[test]
fn an_optional_scheme_counts_where_there_is_a_secret_for_it() {
    let profile = format!("[[auth.all]]\n[auth.all.{SIGNED}[[auth.all]]\noptional = true\n[auth.all.basic]\n{ID}");
    let mac = hmac_hex("key", &[b"{}"]);
    let right = format!("Basic {}", signing::base64("user:word"));
    let send = |gateway: &Gateway, login: Option<&str>| {
        let delivery = request("POST", "/own", &[("X-Mac", &mac), ("X-Id", "1")], "{}");
        let delivery = match login {
            Some(login) => delivery.with("Authorization", login),
            None => delivery,
        };
        delivery.send(gateway.address()).status
    };
    let (without, _upstream) = start_with_profile(&profile, "secrets = [\"plain:mac_key\"]");
    assert_eq!([send(&without, None), send(&without, Some("Basic x"))], [200, 200]);
    let (with, _upstream) = start_with_profile(&profile, "secrets = [\"plain:mac_key\", \"plain:user:word\"]");
    assert_eq!([send(&with, None), send(&with, Some("Basic x")), send(&with, Some(&right))], [401, 401, 200]);
}

fn with_secret() -> String {
    format!("secrets = [\"plain:{SECRET}\"]")
}
