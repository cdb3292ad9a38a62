//! Signed times: one that is as far from now as events are remembered is refused, whatever the profile says of it.

use std::time::Duration;

use doorward::base::time::Format;
use doorward::base::time::Moment;
use doorward::explain::Case;
use doorward::explain::explain;
use doorward::profile::Profiles;
use doorward::sign::Id;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::provider::SECRET;
use crate::harness::provider::any_profile::Provider;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;
use crate::verify::tokens::bound;
use crate::verify::tokens::digest_of;
use crate::verify::tokens::encode;

/// How long the gateways of these tests remember events, in seconds.
const TTL: i64 = 3600;

#[test]
fn a_signed_time_of_any_format_counts_though_it_is_only_recorded() {
    for format in ["unix", "unix-ms", "unix-float", "rfc3339", "rfc3339-lenient", "http-date"] {
        let location = "header = \"X-Time\"";
        let gateway = gateway(&profile("{timestamp}|{body}", location, format, "policy = \"record\""));
        let format: Format = serde_json::from_value(json!(format)).expect("a format");
        let statuses = ages().map(|age| {
            let time = format.write(Moment::from_unix(Moment::now().unix() - age));
            let mac = hmac_hex(SECRET, &[time.as_bytes(), b"|{}"]);
            let id = age.to_string();
            request("POST", "/own", &[("X-Mac", &mac), ("X-Time", &time), ("X-Id", &id)], "{}")
                .send(gateway.address())
                .status
        });
        assert_eq!(statuses, [200, 200, 200, 401, 401], "{format:?}");
        assert_eq!(gateway.refusals("own", "timestamp_stale"), 1.0, "{format:?}");
        assert_eq!(gateway.refusals("own", "timestamp_future"), 1.0, "{format:?}");
    }
}

#[test]
fn a_time_in_a_signed_body_is_a_signed_time() {
    let gateway = gateway(&profile("{body}", "json = \"/at\"", "unix", "policy = \"record\""));
    let send = |body: String| {
        let mac = hmac_hex(SECRET, &[body.as_bytes()]);
        request("POST", "/own", &[("X-Mac", &mac), ("X-Id", &body)], body.as_str()).send(gateway.address()).status
    };
    let statuses = ages().map(|age| send(json!({ "at": Moment::now().unix() - age }).to_string()));
    assert_eq!(statuses, [200, 200, 200, 401, 401]);
    // Without a time nobody could tell how old it is: it would be good for ever.
    assert_eq!([send("{}".to_owned()), send(json!({ "at": "yesterday" }).to_string())], [401, 401]);
    assert_eq!(gateway.refusals("own", "timestamp_missing"), 1.0);
    assert_eq!(gateway.refusals("own", "timestamp_malformed"), 1.0);
}

#[test]
fn a_time_that_nobody_signs_is_only_recorded() {
    let gateway = gateway(&profile("{body}", "header = \"X-Time\"", "unix", "policy = \"record\""));
    let now = Moment::now().unix();
    for (number, time) in ["0".to_owned(), (now + 2 * TTL).to_string(), "yesterday".to_owned()].iter().enumerate() {
        let body = number.to_string();
        let mac = hmac_hex(SECRET, &[body.as_bytes()]);
        let headers = [("X-Mac", mac.as_str()), ("X-Time", time), ("X-Id", &body)];
        assert_eq!(request("POST", "/own", &headers, body.as_str()).send(gateway.address()).status, 200, "{time}");
    }
}

#[test]
fn a_tolerance_that_is_longer_than_events_are_remembered_ends_with_them() {
    for tolerance in ["\"5h\"", "{ future = \"5h\" }", "{ past = \"5h\" }"] {
        let tolerance = format!("tolerance = {tolerance}");
        let gateway = gateway(&profile("{timestamp}.{body}", "header = \"X-Time\"", "unix", &tolerance));
        let statuses = ages().map(|age| {
            let time = (Moment::now().unix() - age).to_string();
            let mac = hmac_hex(SECRET, &[time.as_bytes(), b".{}"]);
            let id = age.to_string();
            request("POST", "/own", &[("X-Mac", &mac), ("X-Time", &time), ("X-Id", &id)], "{}")
                .send(gateway.address())
                .status
        });
        assert_eq!(statuses, [200, 200, 200, 401, 401], "{tolerance}");
    }
}

#[test]
fn a_token_for_one_body_is_refused_when_its_event_may_be_forgotten() {
    let without_max_age: String =
        bound().lines().filter(|line| !line.starts_with("max_age")).collect::<Vec<_>>().join("\n");
    let gateway = gateway(&without_max_age);
    let send = |age: i64| {
        let now = Moment::now().unix();
        let claims = json!({ "iat": now - age, "exp": now + 10 * TTL, "digest": digest_of("{}") });
        let token = encode(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &claims);
        let headers = [("Authorization", format!("Bearer {token}")), ("X-Id", age.to_string())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request("POST", "/own", &headers, "{}").send(gateway.address()).status
    };
    assert_eq!([send(0), send(TTL - 60), send(TTL)], [200, 200, 401]);
    assert_eq!(gateway.refusals("own", "token_expired"), 1.0);
}

/// No shipped profile takes a signed time that is as old as events are remembered.
#[test]
fn no_shipped_profile_takes_what_nobody_remembers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut recorded = 0;
    for (name, profile) in Profiles::shipped().iter().filter(|(_, profile)| profile.signs_timestamp()) {
        let provider = Provider::new(name, profile);
        let signed = Moment::from_unix(1_767_348_000);
        let Ok(request) = provider.sign(Id::Fresh(1), None, signed) else { continue };
        let reason = |age: i64| {
            let case = Case {
                ttl: Duration::from_secs(TTL.unsigned_abs()),
                ..provider.case(&request, Moment::from_unix(signed.unix() + age))
            };
            let explained = runtime.block_on(explain(&case)).unwrap_or_else(|error| panic!("{name}: {error}"));
            explained.verdict.map(drop).map_err(|refusal| refusal.row().reason)
        };
        assert_eq!(reason(0), Ok(()), "{name}");
        assert_eq!(reason(TTL), Err("timestamp_stale"), "{name}");
        recorded += usize::from(reason(TTL - 1).is_ok());
    }
    assert!(recorded >= 8, "only {recorded} profiles record a signed time");
}

#[test]
fn explain_judges_as_a_gateway_with_the_usual_ttl_or_another_one() {
    const SIGNED: i64 = 1_767_348_000;
    let zoom = ["--profile", "zoom", "--secret", "a-secret-of-zoom"];
    let signed =
        doorward().arg("sign").args(zoom).args(["--json", "--at", &SIGNED.to_string()]).output().expect("signed");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("request.json");
    std::fs::write(&file, signed.stdout).expect("written");
    let explained = |after: i64, more: &[&str]| {
        let at = (SIGNED + after).to_string();
        let output =
            doorward().arg("explain").args(zoom).args(["--at", &at]).args(more).arg(&file).output().expect("it runs");
        let spec = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), spec.contains("refused: timestamp_stale"))
    };
    let (accepted, refused) = ((Some(0), false), (Some(1), true));
    assert_eq!([explained(96 * 3600 - 1, &[]), explained(96 * 3600, &[])], [accepted, refused]);
    let ttl = ["--ttl", "1h"];
    assert_eq!([explained(3599, &ttl), explained(3600, &ttl)], [accepted, refused]);
}

/// Fresh, nearly too old, nearly too far ahead, too old and too far ahead.
fn ages() -> [i64; 5] {
    [0, TTL - 60, 60 - TTL, TTL, -TTL - 60]
}

fn profile(signed: &str, location: &str, format: &str, more: &str) -> String {
    format!(
        "[auth.hmac]\nsignature = {{ header = \"X-Mac\", encoding = \"hex\" }}\nsigned = \"{signed}\"\n\
         [timestamp]\nfrom = {{ {location} }}\nformat = \"{format}\"\n{more}\n[event]\nid = {{ header = \"X-Id\" }}\n"
    )
}

/// A gateway with this profile that remembers events for [`TTL`].
#[track_caller]
fn gateway(profile: &str) -> Own {
    let upstream = Upstream::start();
    let sections = format!(
        "profiles = \"profiles\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\nsecrets = [\"plain:{SECRET}\"]\n\
         deliver.upstream = {{ url = \"{}\" }}\n[store]\nttl = \"{TTL}s\"\n",
        upstream.url()
    );
    Own { gateway: Gateway::start_in(folder_with_profile(profile), &sections), _upstream: upstream }
}

struct Own {
    gateway: Gateway,
    _upstream: Upstream,
}

impl std::ops::Deref for Own {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}
