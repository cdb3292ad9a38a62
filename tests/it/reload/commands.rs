//! What is read again because somebody asks for it: SIGHUP, `doorward reload`, the API.

use std::process::Output;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::reload::exchange_file;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

fn reload(gateway: &Gateway) -> Output {
    let url = format!("http://{}", gateway.admin_address());
    doorward().args(["reload", "--url", &url]).current_dir(gateway.folder()).output().expect("it runs")
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn the_command_says_what_has_changed_or_every_problem() {
    let upstream = Upstream::start();
    let one = Github::source(&upstream.url());
    let gateway = Gateway::start(&one);
    let two = one.replace("github]", "other]").replace("/webhooks/github", "/other");
    gateway.configure(&format!("{one}{two}[log]\nlevel = \"debug\"\n"));
    let (code, text) = said(&reload(&gateway));
    assert_eq!(code, Some(0), "{text}");
    for words in ["generation 2 is in use", "added    other", "next start only: log.level"] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(Github::delivery("1", "1").to("/other").send(gateway.address()).status, 200);

    let bad = "[sever]\n[sources.github]\nprofile = \"githup\"\npath = \"here\"\nsecrets = [\"file:/nowhere\"]\n";
    exchange_file(&gateway.folder().join("doorward.toml"), bad);
    let (code, text) = said(&reload(&gateway));
    assert_eq!(code, Some(78), "{text}");
    for words in
        ["sever", "did you mean \"github\"?", "\"here\" is not a path", "cannot read /nowhere", "nothing has changed"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(gateway.generation()["generation"], 2);
    assert_eq!(Github::delivery("2", "2").to("/other").send(gateway.address()).status, 200);
    assert_eq!((gateway.reloads("success"), gateway.reloads("failure")), (1.0, 1.0));
}

#[test]
fn the_command_finds_the_gateway_by_its_configuration_and_ends_with_1_where_there_is_none() {
    let upstream = Upstream::start();
    let port = crate::harness::free_port();
    let gateway =
        Gateway::start(&format!("{}[admin]\nlisten = \"127.0.0.1:{port}\"\n", Github::source(&upstream.url())));
    let command = || doorward().arg("reload").current_dir(gateway.folder()).output().expect("it runs");
    assert_eq!(said(&command()).0, Some(0));
    exchange_file(&gateway.folder().join("doorward.toml"), "[admin");
    assert_eq!(said(&command()).0, Some(78), "the file that says where the gateway is cannot be read");
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = doorward().args(["reload", "--url", "http://127.0.0.1:9"]).current_dir(folder.path()).output();
    assert_eq!(said(&nobody.expect("it runs")).0, Some(1));
}

#[test]
fn a_hangup_has_the_configuration_read_again_and_ends_nothing() {
    let upstream = Upstream::start();
    let one = Github::source(&upstream.url());
    let gateway = Gateway::start(&one);
    gateway.configure(&one.replace("/webhooks/github", "/moved"));
    gateway.signal("HUP");
    gateway.wait_for_reloads("success", 1.0);
    assert_eq!(Github::delivery("1", "1").to("/moved").send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("2", "2").send(gateway.address()).status, 404);
    exchange_file(&gateway.folder().join("doorward.toml"), "[sever]\n");
    gateway.signal("HUP");
    gateway.wait_for_reloads("failure", 1.0);
    let logged = gateway.logged("the problem", |line| line["key"] == "sever");
    assert_eq!((&logged["level"], logged["place"].is_string()), (&"ERROR".into(), true));
    assert_eq!(Github::delivery("3", "3").to("/moved").send(gateway.address()).status, 200);
}

#[test]
fn what_takes_effect_at_the_next_start_only_is_named_and_the_rest_is_used() {
    let upstream = Upstream::start();
    let source = Github::source(&upstream.url());
    let fixed = |max_body: &str, more: &str, token: &str| {
        format!("{source}[server]\nmax_body = \"{max_body}\"\n{more}\n[admin]\ntoken = \"plain:{token}\"\n")
    };
    let gateway = Gateway::start(&fixed("1MiB", "", "the-first-token-of-theirs"));
    let answer =
        gateway.reconfigure(&fixed("10B", "workers = 7\nheader_timeout = \"9s\"", "the-other-token-of-theirs"));
    assert_eq!(answer["restart_needed"], serde_json::json!(["server.header_timeout", "server.workers"]));
    assert!(gateway.metric("doorward_config_restart_needed") == 1.0);
    assert_eq!(gateway.generation()["restart_needed"], answer["restart_needed"]);
    assert_eq!(Github::delivery("1", "more than ten bytes").send(gateway.address()).status, 413);
    let by = |token: &str| {
        gateway.api_with("GET", "/api/v1/events", &format!("Authorization: Bearer {token}\r\n"), "").status
    };
    assert_eq!((by("the-first-token-of-theirs"), by("the-other-token-of-theirs")), (401, 404));
    let answer = gateway.reconfigure(&fixed("10B", "", "the-other-token-of-theirs"));
    assert_eq!(answer["restart_needed"], serde_json::json!([]));
    assert!(gateway.metric("doorward_config_restart_needed") == 0.0, "it is as at the start again");
}

#[test]
fn a_token_is_rotated_through_a_file_while_the_other_one_is_still_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "the-first-token-of-theirs").expect("written");
    let gateway = Gateway::start_in(folder, "[admin]\ntoken = [\"file:token\", \"plain:the-token-that-stays\"]\n");
    let status = |token: &str| {
        gateway.api_with("GET", "/api/v1/events", &format!("Authorization: Bearer {token}\r\n"), "").status
    };
    let all = || ["the-first-token-of-theirs", "the-token-that-stays", "the-next-token-of-theirs"].map(status);
    assert_eq!(all(), [404, 404, 401], "404 without a queue");
    exchange_file(&gateway.folder().join("token"), "the-next-token-of-theirs");
    wait_until("the next one to be read", || all() == [401, 404, 404]);
}

#[test]
fn the_secrets_are_listed_with_what_they_have_proved() {
    let upstream = Upstream::start();
    let two = Github::source(&upstream.url()).replace("secrets = [", "secrets = [\"plain:the old one of theirs\", ");
    let gateway = Gateway::start(&two);
    let url = format!("http://{}", gateway.admin_address());
    let secrets = |more: &[&str]| {
        let mut command = doorward();
        said(
            &command
                .args(["secrets", "--url", &url])
                .args(more)
                .current_dir(gateway.folder())
                .output()
                .expect("it runs"),
        )
    };
    let known = |name: &str| gateway.metric(&format!("{name}{{secret=\"plain#2\",source=\"github\"}}"));
    let began = known("doorward_secret_last_match_timestamp_seconds");
    assert!(began > 1.7e9, "since when it is known");
    wait_until("a second to pass", || {
        assert_eq!(Github::delivery("1", "1").send(gateway.address()).status, 200);
        known("doorward_secret_last_match_timestamp_seconds") > began
    });
    let event = gateway.metric("doorward_source_last_event_timestamp_seconds{source=\"github\"}");
    assert!(event > began);
    let (code, text) = secrets(&[]);
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines[0].starts_with("github plain#1 no match for "), "{text}");
    assert!(lines[1].starts_with("github plain#2 in use, idle for "), "{text}");
    wait_until("the old one to be idle for long enough", || {
        assert_eq!(Github::delivery("1", "1").send(gateway.address()).status, 200);
        secrets(&["--idle", "2s"]).1.lines().next().is_some_and(|line| line.ends_with(": may go"))
    });
    let (_, json) = secrets(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["sources"][0]["secrets"][0]["matches"], 0);
}

#[test]
fn a_page_whose_name_is_pointed_here_reads_nothing_of_the_configuration() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let asked = |host: &str| {
        let head = format!("GET /api/v1/secrets HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        crate::harness::http::exchange(gateway.admin_address(), head.as_bytes()).status
    };
    for host in ["localhost", "LOCALHOST:9090", "127.0.0.1", "127.0.0.1:9090", "[::1]:9090"] {
        assert_eq!(asked(host), 200, "{host}");
    }
    for host in ["pages.example", "pages.example:9090", "127.0.0.1.pages.example", "localhost.pages.example", "1", ""] {
        assert_eq!(asked(host), 403, "{host}");
    }
}
