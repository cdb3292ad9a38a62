//! The admin port: probes and metrics, and none of it on the public one.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;
use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::api::queue_with_api;
use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::http::receive;
use crate::harness::provider::github::Github;
use crate::harness::provider::issuer::Issuer;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn probes_answer_ok() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    for path in ["/livez", "/readyz"] {
        let answer = ask(&gateway, "GET", path);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{path}");
    }
}

#[test]
fn other_paths_are_not_found() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    for path in ["/", "/metrics/", "/healthz", "/livez/x", "/webhooks/github", "/../metrics", "/%6detrics", "*"] {
        let answer = ask(&gateway, "GET", path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    assert_eq!(ask(&gateway, "GET", "/healthz").status, 404);
}

#[test]
fn other_methods_are_refused_with_those_that_are_allowed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    for (path, allowed) in [("/livez", "GET, HEAD"), ("/readyz", "GET, HEAD"), ("/metrics", "GET, HEAD")] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = ask(&gateway, method, path);
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        }
    }
    for method in ["GET", "DELETE"] {
        let answer = ask(&gateway, method, "/drain");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
    assert_eq!(ask(&gateway, "GET", "/readyz").status, 200, "nothing was drained");
}

#[test]
fn cross_origin_requests_are_refused_on_every_path() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for page in [
        "Origin: https://pages.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let headers = format!("{bearer}{page}");
        for (method, path) in [
            ("GET", "/livez"),
            ("GET", "/readyz"),
            ("GET", "/metrics"),
            ("GET", "/drain"),
            ("POST", "/drain"),
            ("GET", "/api/v1/events"),
            ("POST", "/api/v1/events/purge"),
            ("GET", "/nowhere"),
        ] {
            assert_eq!(gateway.api_with(method, path, &headers, "").status, 403, "{page}{method} {path}");
        }
    }
    assert_eq!(gateway.admin("/readyz").status, 200, "nothing was drained");
    // Whoever types an address into a browser is no page.
    for site in ["none", "same-origin"] {
        let headers = format!("Sec-Fetch-Site: {site}\r\n");
        assert_eq!(gateway.api_with("GET", "/metrics", &headers, "").status, 200, "{site}");
    }
}

#[test]
fn refused_requests_do_not_flood_the_log() {
    let upstream = Upstream::start();
    let log = "[log]\nunverified_burst = 2\nunverified_rate = 1\n";
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + log));
    let mut sent = 0;
    wait_until("lines to be left out", || {
        for _ in 0..20 {
            assert_eq!(gateway.api_with("GET", "/livez", "Origin: null\r\n", "").status, 403);
        }
        sent += 20;
        gateway.log().iter().any(|event| event["left_out"].as_u64().is_some())
    });
    let lines = gateway.log().iter().filter(|event| event["peer"].is_string()).count();
    assert!(lines > 2 && lines < sent, "{lines} of {sent}");
}

#[test]
fn another_machine_needs_the_token_to_drain() {
    let upstream = Upstream::deciding_by_id();
    let everywhere = |sections: &str| format!("{sections}listen = \"0.0.0.0:0\"\n");
    let gateway = Gateway::start(&everywhere(&queue_with_api(&upstream.url())));
    let Some(address) = gateway.admin_from_elsewhere() else { return };
    let ask = |headers: &str| {
        let request =
            format!("POST /drain HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{headers}content-length: 0\r\n\r\n");
        exchange(address, request.as_bytes())
    };
    for headers in [
        "",
        "Authorization: Bearer another-token\r\n",
        "Authorization: Basic Og==\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
    ] {
        let answer = ask(headers);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{headers}");
    }
    assert_eq!(gateway.admin("/readyz").status, 200, "nothing was drained");
    assert_eq!(ask(&format!("Authorization: Bearer {TOKEN}\r\n")).status, 200);
    assert_eq!(gateway.admin("/readyz").status, 503);

    let open = Gateway::start(&everywhere(&format!("{}[admin]\n", Github::source(&upstream.url()))));
    let address = open.admin_from_elsewhere().expect("the same address");
    let request = "POST /drain HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(exchange(address, request.as_bytes()).status, 403, "without a token nobody may");
    assert_eq!(open.admin("/readyz").status, 200, "nothing was drained");
}

#[test]
fn silent_connections_do_not_keep_probes_out() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(&(Github::source(&upstream.url()) + "[admin]\nmax_connections = 4\nheader_timeout = \"1h\"\n"));
    let silent: Vec<_> = (0..4).map(|_| connect(gateway.admin_address())).collect();
    let started = connect(gateway.admin_address());
    (&started).write_all(b"GET /livez HTTP/1.1\r\nhost:").expect("sent");
    assert_eq!(receive(&silent[0]).status, 408, "it was closed for the one above");
    assert_eq!(ask(&gateway, "GET", "/livez").status, 200);
    assert_eq!(receive(&silent[1]).status, 408, "and this one for the probe, which leaves a place");
    for _ in 0..8 {
        assert_eq!(ask(&gateway, "GET", "/livez").status, 200);
    }
    for stream in &silent[2..] {
        (&mut &*stream).write_all(b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n").expect("sent");
        assert_eq!(receive(stream).status, 200, "there was room");
    }
}

#[test]
fn connections_within_the_limit_are_kept() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[admin]\nmax_connections = 4\n"));
    let kept: Vec<_> = (0..3).map(|_| connect(gateway.admin_address())).collect();
    assert_eq!(ask(&gateway, "GET", "/livez").status, 200);
    for stream in &kept {
        (&mut &*stream).write_all(b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n").expect("sent");
        assert_eq!(receive(stream).status, 200);
    }
}

#[test]
fn a_request_whose_headers_do_not_come_times_out() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[admin]\nheader_timeout = \"100ms\"\n"));
    let started = connect(gateway.admin_address());
    (&started).write_all(b"GET /livez HTTP/1.1\r\n").expect("sent");
    assert_eq!(receive(&started).status, 408);
}

#[test]
fn the_public_port_answers_none_of_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    for path in ["/livez", "/readyz", "/metrics", "/drain"] {
        for method in ["GET", "POST"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(exchange(gateway.address(), request.as_bytes()).status, 404, "{method} {path}");
        }
    }
    assert_eq!(ask(&gateway, "GET", "/readyz").status, 200, "nothing was drained");
}

#[test]
fn every_line_of_the_metrics_is_what_prometheus_reads() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&serde_json::json!({ "keys": [] })));
    let gateway = Gateway::start(&sections(&upstream, &issuer, "memory:"));
    assert_eq!(Github::delivery("one", "{}").send(gateway.address()).status, 200);
    let answer = ask(&gateway, "GET", "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|it| it.starts_with("text/plain; version=0.0.4")));
    let text = answer.text();
    assert!(text.ends_with('\n'));
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
        } else if !line.starts_with("# HELP ") {
            let (name, labels, value) = sample(line);
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            let declared = types.contains_key(&name) || types.get(family).is_some_and(|kind| kind == "histogram");
            assert!(declared, "{line} has no type");
            assert!(labels.iter().all(|(label, _)| is_name(label)), "{line}");
            assert!(!value.is_nan(), "{line}");
        }
    }
}

#[test]
fn build_info_is_a_gauge() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    // By Prometheus' own rules a counter grows, and its name ends in _total.
    assert!(ask(&gateway, "GET", "/metrics").text().contains("# TYPE doorward_build_info gauge\n"));
}

#[test]
fn every_documented_metric_is_measured() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let issuer = Issuer::publishing(&serde_json::json!({ "keys": [] }));
    let gateway = Gateway::start(&sections(&upstream, &issuer, &redis.url()));
    let now = SystemTime::now();
    assert_eq!(offergrid("one", now).send(gateway.address()).status, 200);
    assert_eq!(offergrid("one", now).send(gateway.address()).status, 200);
    assert_eq!(offergrid("old", now - Duration::from_secs(3600)).send(gateway.address()).status, 401);
    wait_until("the keys to be asked for", || issuer.fetches() > 0);
    let kept = connect(gateway.address());
    wait_until("metrics to tell", || {
        let (metrics, version) = (gateway.metrics(), env!("CARGO_PKG_VERSION"));
        let is = |name: &str, value: f64| metrics.get(name) == Some(&value);
        is(r#"doorward_requests_total{outcome="delivered",source="offergrid"}"#, 1.0)
            && is(r#"doorward_requests_total{outcome="duplicate",source="offergrid"}"#, 1.0)
            && is(r#"doorward_requests_total{outcome="refused",source="offergrid"}"#, 1.0)
            && is(r#"doorward_requests_total{outcome="ignored",source="offergrid"}"#, 0.0)
            && is(r#"doorward_refusals_total{reason="timestamp_stale",source="offergrid"}"#, 1.0)
            && is(r#"doorward_request_duration_seconds_count{source="offergrid"}"#, 3.0)
            && is(r#"doorward_upstream_duration_seconds_count{source="offergrid"}"#, 1.0)
            && is(r#"doorward_store_duration_seconds_count{operation="claim"}"#, 2.0)
            && is(r#"doorward_store_duration_seconds_count{operation="commit"}"#, 1.0)
            && is(r#"doorward_timestamp_skew_seconds_count{source="offergrid"}"#, 2.0)
            && is(r#"doorward_secret_matches_total{secret="plain#1",source="offergrid"}"#, 0.0)
            && is(r#"doorward_secret_matches_total{secret="plain#2",source="offergrid"}"#, 2.0)
            && is(r#"doorward_jwks_refreshes_total{outcome="failure",source="pitchpoint"}"#, 1.0)
            && is("doorward_open_connections", 1.0)
            && is("doorward_in_flight_requests", 0.0)
            && is(&format!("doorward_build_info{{version=\"{version}\"}}"), 1.0)
    });
    drop(kept);
}

#[test]
fn nothing_that_a_sender_writes_becomes_a_label() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&serde_json::json!({ "keys": [] })));
    let gateway = Gateway::start(&sections(&upstream, &issuer, "memory:"));
    let address = gateway.address();
    // Whatever can be refused for a reason that has not been counted yet adds a series for that reason.
    assert_eq!(Github::delivery("0", "0").send(address).status, 200);
    assert_eq!(Github::delivery("0", "0").to("/nowhere").send(address).status, 404);
    assert_eq!(Github::delivery("0", "0").without("X-Hub-Signature-256").send(address).status, 401);
    let series = || gateway.metrics().into_keys().collect::<BTreeSet<_>>();
    let before = series();
    for number in 0..20 {
        let odd = format!("odd\"\\,{number}");
        let delivery = Github::delivery(&odd, odd.as_bytes()).set("X-GitHub-Event", &odd).with("X-Odd", &odd);
        assert_eq!(delivery.send(address).status, 200);
        assert_eq!(delivery.clone().to(&format!("/nowhere/{number}?{number}")).send(address).status, 404);
        assert_eq!(delivery.without("X-Hub-Signature-256").with("User-Agent", &odd).send(address).status, 401);
    }
    assert_eq!(series(), before);
}

/// Three sources, so that everything that is measured has something to measure.
fn sections(upstream: &Upstream, issuer: &Issuer, store: &str) -> String {
    let (github, upstream, issuer) = (Github::source(&upstream.url()), upstream.url(), issuer.url());
    let offergrid = github
        .replace("[sources.github]\nprofile = \"github\"", "[sources.offergrid]\nprofile = \"offergrid\"")
        .replace("/webhooks/github", "/webhooks/offergrid")
        .replace("secrets = [", "secrets = [\"plain:the next one\", ");
    format!(
        "{github}{offergrid}[sources.pitchpoint]\nprofile = \"pitchpoint\"\npath = \"/pitchpoint\"\n\
         params = {{ issuer = \"{issuer}\", audience = \"test\" }}\ndeliver.upstream = {{ url = \"{upstream}\" }}\n\
         [store]\nurl = \"{store}\"\ntimeout = \"5s\"\n"
    )
}

fn ask(gateway: &Gateway, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    exchange(gateway.admin_address(), request.as_bytes())
}

/// Name, labels and value of a line, by the grammar of the text format.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = series.split_once('{') else {
        assert!(is_name(series), "{line}");
        return (series.to_owned(), Vec::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut rest = labels.strip_suffix('}').expect("a closing brace");
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"").expect("a label");
        let (text, after) = quoted.split_once('"').expect("a closing quote");
        assert!(!text.contains('\\'), "no value of ours needs escaping: {line}");
        pairs.push((label.to_owned(), text.to_owned()));
        rest = after.trim_start_matches(',');
    }
    (name.to_owned(), pairs, value)
}

fn is_name(text: &str) -> bool {
    let letter = |character: char| character.is_ascii_alphabetic() || character == '_';
    text.starts_with(letter) && text.chars().all(|character| letter(character) || character.is_ascii_digit())
}
