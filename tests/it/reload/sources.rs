//! Sources that come, change and go while requests are under way.

use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::reload::exchange_file;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::http::receive;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::provider::issuer::Issuer;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// A GitHub source of this name at `/NAME`.
fn source(name: &str, upstream: &Upstream) -> String {
    Github::source(&upstream.url())
        .replace("github]", &format!("{name}]"))
        .replace("/webhooks/github", &format!("/{name}"))
}

#[test]
fn sources_come_change_and_go_and_those_that_are_the_same_notice_nothing() {
    let (same, other) = (Upstream::start(), Upstream::start());
    let before = format!("{}{}{}", source("same", &same), source("changes", &other), source("goes", &other));
    let gateway = Gateway::start(&before);
    let stream = connect(gateway.address());
    let send = |name: &str, id: &str| Github::delivery(id, id).to(&format!("/{name}")).send_on(&stream).status;
    for name in ["same", "changes", "goes"] {
        assert_eq!(send(name, name), 200);
    }
    let change = |text: String| text.replace("deliver", "events = [\"nothing\"]\ndeliver");
    let after = format!("{}{}{}", source("same", &same), change(source("changes", &other)), source("comes", &other));
    let answer = gateway.reconfigure(&after);
    let names = (&answer["added"], &answer["changed"], &answer["removed"]);
    assert_eq!(names, (&json!(["comes"]), &json!(["changes"]), &json!(["goes"])));
    // The connection of before goes by the new configuration.
    assert_eq!((send("same", "2"), send("comes", "3"), send("goes", "4")), (200, 200, 404));
    assert_eq!(send("changes", "5"), 200);
    assert!(gateway.outcomes("changes", "ignored") == 1.0);
    assert_eq!(other.ids(), ["changes", "goes", "3"]);
    assert_eq!((same.ids().len(), same.connections()), (2, 1), "its connections are kept");
    let again = Github::delivery("same", "same").to("/same").send_on(&stream);
    assert_eq!(again.text(), DUPLICATE, "what was finished is known");
    let again = Github::delivery("changes", "changes").to("/changes").send_on(&stream);
    assert_eq!(again.status, 200);
    assert_eq!(other.ids().len(), 3);
    // Back again, it is the source that it was.
    gateway.reconfigure(&before);
    let again = Github::delivery("goes", "goes").to("/goes").send_on(&stream);
    assert_eq!(again.text(), DUPLICATE);
}

#[test]
fn a_request_in_flight_ends_on_the_configuration_that_it_began_with() {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Hold } else { Reply::Status(200, "") });
    let gateway = Gateway::start(&source("goes", &upstream));
    let waiting = Github::delivery("1", "1").to("/goes").begin(gateway.address());
    upstream.wait_for(1);
    // Its head has come; its body comes when its source is gone.
    let unfinished = Github::delivery("2", "2").to("/goes").bytes();
    let begun = connect(gateway.address());
    std::io::Write::write_all(&mut &begun, &unfinished[..unfinished.len() - 1]).expect("sent");
    wait_until("both to be in flight", || gateway.metric("doorward_in_flight_requests") == 2.0);
    gateway.reconfigure(&source("comes", &upstream));
    assert_eq!(Github::delivery("3", "3").to("/goes").send(gateway.address()).status, 404);
    assert_eq!(Github::delivery("4", "4").to("/comes").send(gateway.address()).status, 200);
    std::io::Write::write_all(&mut &begun, &unfinished[unfinished.len() - 1..]).expect("sent");
    assert_eq!(receive(&begun).status, 200);
    upstream.release();
    assert_eq!(receive(&waiting).status, 200);
    assert_eq!(upstream.ids(), ["1", "4", "2"]);
    assert!(gateway.outcomes("goes", "delivered") == 2.0, "they count for their source");
}

#[test]
fn proxies_are_trusted_as_the_present_configuration_says() {
    let upstream = Upstream::start();
    let sections = |trusted: &str| {
        let source = source("inside", &upstream).replace("deliver", "allow = [\"203.0.113.7\"]\ndeliver");
        format!("{source}[server]\ntrusted_proxies = [{trusted}]\n")
    };
    let gateway = Gateway::start(&sections(""));
    let stream = connect(gateway.address());
    let send = |id: &str| {
        let forwarded = Github::delivery(id, id).to("/inside").with("X-Forwarded-For", "203.0.113.7");
        forwarded.send_on(&stream).status
    };
    assert_eq!(send("1"), 403);
    assert_eq!(gateway.reconfigure(&sections("\"127.0.0.0/8\""))["restart_needed"], json!([]));
    assert_eq!(send("2"), 200);
    gateway.reconfigure(&sections("\"198.51.100.1\""));
    assert_eq!(send("3"), 403);
    assert_eq!(upstream.ids(), ["2"]);
}

#[test]
fn key_sets_are_fetched_by_the_sources_that_are_there_and_no_others() {
    let (first, second) = (Issuer::publishing(&Issuer::fixture_keys()), Issuer::publishing(&Issuer::fixture_keys()));
    let upstream = Upstream::start();
    let source = |name: &str, issuer: &Issuer| {
        format!(
            "[sources.{name}]\nprofile = \"pitchpoint\"\npath = \"/{name}\"\nparams = {{ issuer = \"i\", audience = \"a\", \
             jwks_url = \"{}\" }}\ndeliver.upstream = {{ url = \"{}\" }}\n",
            issuer.url(),
            upstream.url()
        )
    };
    let gateway = Gateway::start(&source("a", &first));
    let age = |name: &str| gateway.metrics().contains_key(&format!("doorward_jwks_age_seconds{{source=\"{name}\"}}"));
    wait_until("the keys", || age("a"));
    gateway.reconfigure(&(source("a", &first) + &source("b", &first)));
    assert!(age("a") && age("b"), "they share what was fetched");
    gateway.reconfigure(&source("a", &second));
    wait_until("the other keys", || age("a") && second.fetches() == 1);
    assert!(!age("b"));
    let refreshes = gateway.metric("doorward_jwks_refreshes_total{outcome=\"success\",source=\"a\"}");
    assert_eq!(refreshes, 2.0, "those of both");
    assert_eq!(first.fetches(), 1);
}

#[test]
fn a_source_whose_secret_is_missing_is_left_out_alone_until_it_is_there() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let missing = source("missing", &upstream).replace(&format!("plain:{SECRET}"), "file:secret");
    let sections = |more: &str| format!("{more}{missing}{}", source("there", &upstream));
    assert!(Gateway::try_spawn(folder.path(), &sections("")).is_err(), "the default is to refuse");
    let gateway = Gateway::start_in(folder, &sections("on_problem = \"skip-source\"\n"));
    let send = |name: &str, id: &str| Github::delivery(id, id).to(&format!("/{name}")).send(gateway.address());
    assert_eq!(send("there", "1").status, 200);
    let answer = send("missing", "2");
    assert!(answer.status == 503 && answer.asks_to_come_again(), "{answer:?}");
    assert!(gateway.refusals("missing", "source_left_out") == 1.0);
    assert!(gateway.metric("doorward_sources_left_out") == 1.0);
    assert_eq!(gateway.generation()["left_out"], json!(["missing"]));
    // It is no reason to refuse changes of the others.
    let more = source("more", &upstream);
    let answer = gateway.reconfigure(&(sections("on_problem = \"skip-source\"\n") + &more));
    assert_eq!(answer["added"], json!(["more"]));
    std::fs::write(gateway.folder().join("secret"), SECRET).expect("written");
    wait_until("the secret to be found", || send("missing", "3").status == 200);
    assert!(gateway.metric("doorward_sources_left_out") == 0.0);
    // From now on it is a problem as that of any other source.
    std::fs::remove_file(gateway.folder().join("secret")).expect("removed");
    assert_eq!(gateway.ask_to_reload().status, 422);
    assert_eq!(send("missing", "4").status, 200);
}

/// So many sources in an included file, and one that changes with each reload.
fn many(count: usize, upstream: &Upstream) -> (Gateway, impl Fn(usize) -> Duration) {
    let all: String = (0..count).map(|number| source(&format!("s{number}"), upstream)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("d")).expect("a folder");
    std::fs::write(folder.path().join("d/all.toml"), &all).expect("written");
    let sections = format!("include = [\"d/*\"]\n{}", source("changes", upstream));
    let gateway = Gateway::start_in(folder, &sections);
    let (config, admin) = (gateway.folder().join("doorward.toml"), gateway.admin_address());
    let good = std::fs::read_to_string(&config).expect("a configuration");
    let reload = move |round: usize| {
        exchange_file(&config, &good.replace(SECRET, &format!("{SECRET} {round}")));
        let begun = Instant::now();
        let request =
            b"POST /api/v1/reload HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let answer = exchange(admin, request);
        assert_eq!(answer.json()["changed"], json!(["changes"]), "{}", answer.text());
        begun.elapsed()
    };
    (gateway, reload)
}

#[test]
fn five_hundred_sources_are_reloaded_at_once() {
    let upstream = Upstream::start();
    let (gateway, reload) = many(500, &upstream);
    let fastest = (0..10).map(reload).min().expect("some");
    eprintln!("500 sources are reloaded in {fastest:?}");
    // Without optimisation, on whatever machine.
    assert!(fastest < Duration::from_secs(5), "{fastest:?}");
    assert_eq!(Github::delivery("1", "1").to("/s499").send(gateway.address()).status, 200);
}

#[test]
fn reloads_take_no_memory_in_the_long_run() {
    let upstream = Upstream::start();
    let (gateway, reload) = many(40, &upstream);
    let memory: Vec<_> = (0..4)
        .map(|hundred| {
            let _longest = (0..100).map(|round| reload(hundred * 100 + round)).max();
            gateway.metric("process_resident_memory_bytes")
        })
        .collect();
    eprintln!("memory after 100, 200, 300 and 400 reloads: {memory:?}");
    assert!(memory[3] < memory[1] * 1.05 + 1e6, "{memory:?}");
}
