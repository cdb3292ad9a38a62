//! How often requests may come, to a source and from an address, and what those are told that come more often.

use std::io::Write as _;

use doorward::profile::Profiles;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::http::exchange_unix;
use crate::harness::http::receive;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// GitHub does not try again, and is answered 503.
const LIMITED: u16 = 503;
const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
const PER_ADDRESS: &str = "rate_per_address = \"1/h\"\nburst_per_address = 2\n";

#[test]
fn what_comes_beyond_the_burst_is_told_when_there_is_room() {
    let (gateway, upstream) = started("", "rate = \"1/h\"\nburst = 3\n");
    let sent: Vec<_> = ["1", "2", "3"].map(|id| delivery(id).send(gateway.address()).status).into();
    assert_eq!(sent, [200, 200, 200]);
    let answer = delivery("4").send(gateway.address());
    assert_eq!((answer.status, answer.header("content-type")), (LIMITED, Some("application/problem+json")));
    assert!((3500..=3600).contains(&wait(&answer)), "{answer:?}");
    assert_eq!((gateway.refusals("github", "rate_limited"), upstream.ids().len()), (1.0, 3));
    let line = gateway.logged("the refusal", |line| line["reason"] == "rate_limited");
    assert_eq!((&line["level"], &line["status"]), (&"WARN".into(), &LIMITED.into()));
}

#[test]
fn the_rate_comes_back_with_time() {
    let (gateway, upstream) = started("", "rate = \"1/s\"\n");
    let mut ids = (0..).map(|id: u32| id.to_string());
    let refused = ids.find_map(|id| {
        let answer = delivery(&id).send(gateway.address());
        (answer.status != 200).then_some((id, answer))
    });
    let (id, answer) = refused.expect("a refusal");
    assert_eq!((answer.status, wait(&answer)), (LIMITED, 1));
    wait_until("it to be taken", || delivery(&id).send(gateway.address()).status == 200);
    assert_eq!(upstream.ids().last(), Some(&id));
}

#[test]
fn forgeries_do_not_use_up_the_rate_of_genuine_events() {
    let (gateway, upstream) = started("", "rate = \"1/h\"\nburst = 2\n");
    let forged = delivery("0").set("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64)));
    for _ in 0..20 {
        assert_eq!(forged.send(gateway.address()).status, 401);
    }
    assert_eq!(["1", "2", "3"].map(|id| delivery(id).send(gateway.address()).status), [200, 200, LIMITED]);
    assert_eq!(forged.send(gateway.address()).status, LIMITED, "no work is done for it any more");
    assert_eq!(upstream.ids(), ["1", "2"]);
}

#[test]
fn a_request_beyond_a_rate_is_refused_before_its_body_comes() {
    for limit in ["rate = \"1/h\"\n", "rate_per_address = \"1/h\"\n"] {
        let (gateway, _upstream) = started("", limit);
        assert_eq!(delivery("1").send(gateway.address()).status, 200);
        let mut unsent = delivery("2").with("Content-Length", "1000");
        unsent.body.clear();
        let stream = connect(gateway.address());
        (&stream).write_all(&unsent.bytes()).expect("sent");
        assert_eq!(receive(&stream).status, LIMITED, "{limit}");
    }
}

#[test]
fn requests_that_cannot_be_verified_count_where_they_are_delivered() {
    let (gateway, upstream) = started("", "verify = \"observe\"\nrate = \"1/h\"\nburst = 2\n");
    let forged = |id: &str| delivery(id).without("X-Hub-Signature-256").send(gateway.address()).status;
    assert_eq!(["1", "2", "3"].map(forged), [200, 200, LIMITED]);
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn addresses_behind_a_trusted_proxy_have_a_rate_each() {
    let (gateway, upstream) = started(TRUSTED, PER_ADDRESS);
    let send = |id: &str, from: &str| delivery(id).with("X-Forwarded-For", from).send(gateway.address()).status;
    let from = |id: &str, address: &str| [1, 2, 3].map(|at| send(&format!("{id}-{at}"), address));
    assert_eq!(from("a", "203.0.113.9"), [200, 200, LIMITED]);
    assert_eq!(from("b", "203.0.113.10"), [200, 200, LIMITED]);
    // What stands further left was written by the client.
    assert_eq!(send("c", "198.51.100.1, 203.0.113.9"), LIMITED);
    // A network of IPv6 is one client.
    assert_eq!([send("d", "2001:db8::1"), send("e", "2001:db8::2"), send("f", "2001:db8::3:1")], [200, 200, LIMITED]);
    assert_eq!(send("g", "2001:db8:0:1::1"), 200);
    // So are all that cannot be told.
    assert_eq!([send("h", "unknown"), send("i", "_hidden"), send("j", "nobody")], [200, 200, LIMITED]);
    assert_eq!((gateway.refusals("github", "rate_limited"), upstream.ids().len()), (5.0, 9));
}

#[test]
fn clients_of_a_file_are_one_and_those_that_a_load_balancer_names_have_a_rate_each() {
    let listeners = "[server.listeners.file]\nlisten = \"unix:doorward.sock\"\n\
                     [server.listeners.balanced]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]\n";
    let (gateway, _upstream) = started(listeners, PER_ADDRESS);
    let bytes = |id: &str| delivery(id).with("Connection", "close").bytes();
    let by_file = |id: &str| exchange_unix(&gateway.folder().join("doorward.sock"), &bytes(id)).status;
    assert_eq!(["1", "2", "3"].map(by_file), [200, 200, LIMITED]);
    let balanced = |id: &str, from: &str| {
        let header = format!("PROXY TCP4 {from} 10.0.0.1 40000 443\r\n").into_bytes();
        exchange(gateway.address(), &[header, bytes(id)].concat()).status
    };
    for from in ["203.0.113.9", "203.0.113.10"] {
        assert_eq!([4, 5, 6].map(|at| balanced(&format!("{from} {at}"), from)), [200, 200, LIMITED]);
    }
}

#[test]
fn an_address_uses_up_its_rate_with_whatever_it_sends() {
    let (gateway, _upstream) = started("", PER_ADDRESS);
    let forged = delivery("1").without("X-Hub-Signature-256").with("X-Forwarded-For", "203.0.113.1");
    assert_eq!([(), ()].map(|()| forged.send(gateway.address()).status), [401, 401]);
    // It has no say in where it comes from.
    assert_eq!(delivery("2").with("X-Forwarded-For", "203.0.113.2").send(gateway.address()).status, LIMITED);
}

#[test]
fn many_addresses_are_remembered_within_the_bound() {
    let server = format!("{TRUSTED}max_rate_addresses = 8\n");
    let (gateway, _upstream) = started(&server, "rate_per_address = \"1/h\"\n");
    let send = |number: usize| {
        let delivery = Github::delivery(&number.to_string(), "{}").without("X-Hub-Signature-256");
        delivery.with("X-Forwarded-For", &format!("203.0.113.{number}")).send(gateway.address()).status
    };
    assert!((1..=8).all(|number| send(number) == 401));
    assert!((1..=8).all(|number| send(number) == LIMITED), "as many as the bound are all known");
    // One more is let in, and takes the place of the first, which has its rate again soonest.
    assert_eq!((send(9), send(9)), (401, LIMITED));
    assert!((2..=8).all(|number| send(number) == LIMITED));
    assert_eq!(send(1), 401);
}

#[test]
fn other_sources_have_rates_of_their_own() {
    let upstream = Upstream::start();
    let other = |name: &str| Github::source(&upstream.url()).replace("github]", &format!("{name}]"));
    let free = other("free").replace("/webhooks/github", "/free");
    let limits = "rate = \"1/h\"\nrate_per_address = \"1/h\"\n";
    let twin = format!("{}{limits}", other("twin").replace("/webhooks/github", "/twin"));
    let gateway = Gateway::start(&format!("{}{limits}{free}{twin}", Github::source(&upstream.url())));
    let send = |id: &str, path: &str| delivery(id).to(path).send(gateway.address()).status;
    assert_eq!((send("1", "/webhooks/github"), send("2", "/webhooks/github")), (200, LIMITED));
    assert_eq!((send("1", "/twin"), send("2", "/twin")), (200, LIMITED));
    assert_eq!(["1", "2", "3"].map(|id| send(id, "/free")), [200, 200, 200]);
}

#[test]
fn workers_share_a_limit() {
    let (gateway, upstream) = started("[server]\nworkers = 4\n", "rate = \"1/h\"\nburst = 10\n");
    let senders: Vec<_> = (0..60).map(|id| delivery(&id.to_string()).begin(gateway.address())).collect();
    let taken = senders.iter().filter(|sender| receive(sender).status == 200).count();
    assert_eq!((taken, upstream.ids().len(), gateway.refusals("github", "rate_limited")), (10, 10, 50.0));
}

#[test]
fn a_reload_keeps_what_a_source_that_is_the_same_has_taken() {
    let upstream = Upstream::start();
    let source = |limits: &str| format!("{}{limits}", Github::source(&upstream.url()));
    let other = Github::source(&upstream.url()).replace("github]", "other]").replace("/webhooks/github", "/other");
    let gateway = Gateway::start(&format!("{}{other}", source("rate = \"1/h\"\n")));
    let send = |id: &str| delivery(id).send(gateway.address()).status;
    assert_eq!((send("1"), send("2")), (200, LIMITED));
    let changed = other.replace("deliver", "events = [\"push\"]\ndeliver");
    gateway.reconfigure(&format!("{}{changed}", source("rate = \"1/h\"\n")));
    assert_eq!(send("2"), LIMITED);
    gateway.reconfigure(&format!("{}{changed}", source("rate = \"1/h\"\nburst = 2\n")));
    assert_eq!([send("2"), send("3"), send("4")], [200, 200, LIMITED]);
    gateway.reconfigure(&format!("{}{changed}", source("")));
    assert_eq!(send("4"), 200);
}

#[test]
fn the_status_is_one_on_which_the_provider_tries_again() {
    for (said, status) in [
        ("", 503),
        ("[facts]\nretried = \"5xx\"", 503),
        ("[facts]\nretried = [\"408\", \"503\"]", 503),
        ("[facts]\nretried = [\"non-2xx\", \"not 429\"]", 503),
        ("[facts]\nretried = \"non-2xx\"", 429),
        ("[facts]\nretried = [\"429\", \"5xx\"]", 429),
        ("[answers]\nretry = 409\n[facts]\nretried = [\"409\", \"429\"]", 409),
    ] {
        let own = format!(
            "[auth.hmac]\nsignature = {{ header = \"X-Sig\", encoding = \"hex\" }}\nsigned = \"{{body}}\"\n\
             [event]\nid = {{ header = \"X-Id\" }}\n{said}\n"
        );
        let (gateway, _upstream) = start_with_profile(&own, &format!("secrets = [\"plain:{SECRET}\"]\nrate = \"1/h\""));
        let send = |id: &str| {
            let signature = hmac_hex(SECRET, &[id.as_bytes()]);
            request("POST", "/own", &[("X-Id", id), ("X-Sig", &signature)], id).send(gateway.address())
        };
        assert_eq!(send("1").status, 200);
        let answer = send("2");
        assert_eq!(answer.status, status, "{said}");
        assert!(wait(&answer) > 3500, "{answer:?}");
    }
}

#[test]
fn no_shipped_profile_has_events_lost_by_the_status_for_too_many() {
    for (name, profile) in Profiles::shipped().iter() {
        let answers = doorward::source::reply::Answers::new(&profile.answers, profile.facts.retried.as_ref(), &[]);
        let exceeded = doorward::http::admission::RateExceeded::Source(std::time::Duration::from_secs(1));
        let status = doorward::source::reply::refused(exceeded.into(), &answers).status().as_u16();
        let Some(retried) = profile.facts.retried.as_ref().filter(|retried| !retried.is_nothing()) else {
            assert_eq!(status, 503, "{name}");
            continue;
        };
        assert!(retried.contains(status), "{name}: {status}");
    }
}

fn started(server: &str, source: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&format!("{server}{}{source}", Github::source(&upstream.url()))), upstream)
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, id)
}

/// The seconds that a refusal asks to wait.
#[track_caller]
fn wait(answer: &Answer) -> u64 {
    answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("seconds")
}
