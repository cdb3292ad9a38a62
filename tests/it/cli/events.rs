//! `doorward events`, as somebody at a terminal or a script sees it.

use std::process::Output;

use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::api::queue_with_api;
use crate::harness::gateway::doorward;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

/// Runs a command against a gateway, by its address and token.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let url = format!("http://{}", gateway.admin_address());
    let mut command = doorward();
    command.arg("events").args(arguments).args(["--url", &url, "--token", "env:TOKEN"]).env("TOKEN", TOKEN);
    command.output().expect("it runs")
}

/// The list for people.
pub fn list(gateway: &Gateway) -> String {
    said(&run(gateway, &["list"]))
}

#[track_caller]
pub fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn complained(output: &Output) -> String {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&said(output)).expect("JSON")
}

#[test]
fn events_are_listed_shown_replayed_and_purged() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    assert_eq!(said(&run(&gateway, &["list"])), "no events\n");
    gateway.take(&["fine-1", "dead-1", "dead-2"]);
    gateway.wait_for_events("dead", 2);
    gateway.wait_for_events("delivered", 1);

    let text = said(&run(&gateway, &["list"]));
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = text.lines().map(cells).collect();
    assert_eq!(rows[0], ["SOURCE", "NUMBER", "DESTINATION", "STATE", "TYPE", "ID", "ATTEMPTS", "RECEIVED", "REASON"]);
    assert_eq!(
        (&rows[1][2..7], rows.len()),
        (&["default", "dead", "push", "dead-2", "1"].map(str::to_owned)[..], 4),
        "{text}"
    );
    let column = |line: &str, word: &str| line.find(word).unwrap_or_else(|| panic!("{word} in {line}"));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(column(lines[0], "TYPE"), column(lines[3], "push"), "{text}");
    let dead = json_of(&run(&gateway, &["list", "--state", "dead", "--from", "1h", "--json"]));
    assert_eq!(dead.as_array().expect("an array").len(), 2);
    assert_eq!(json_of(&run(&gateway, &["list", "--until", "1h", "--json"])), json!([]));
    let limited = run(&gateway, &["list", "--limit", "2", "--json"]);
    assert_eq!(json_of(&limited).as_array().expect("an array").len(), 2);
    assert!(String::from_utf8_lossy(&run(&gateway, &["list", "--limit", "1"]).stderr).contains("there are more"));

    let name = format!("github/{}", dead[0]["number"].as_str().expect("a number"));
    let text = said(&run(&gateway, &["show", &name]));
    for words in
        ["state         dead\n", "answer        422\n", "no such order\n", "x-github-event: push\n", "\ndead-2\n"]
    {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(json_of(&run(&gateway, &["show", &name, "--json"]))["request"]["body"], "dead-2");

    assert_eq!(said(&run(&gateway, &["replay", &name, "--destination", "default"])), "replayed 1 event\n");
    upstream.wait_for(4);
    gateway.wait_for_events("dead", 2);
    assert_eq!(json_of(&run(&gateway, &["replay", "--source", "github", "--json"])), json!({ "events": 2 }));
    upstream.wait_for(6);
    gateway.wait_for_events("dead", 2);
    assert_eq!(said(&run(&gateway, &["purge", "--state", "dead"])), "purged 2 events\n");
    assert_eq!(said(&run(&gateway, &["purge", "--all"])), "purged 1 event\n");
    assert_eq!(said(&run(&gateway, &["list"])), "no events\n");
}

#[test]
fn control_characters_of_bodies_are_escaped() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    assert_eq!(Github::delivery("fine", "\u{1b}[2Jbody\u{7}\nnext").send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("binary", b"\xff\x1b").send(gateway.address()).status, 200);
    gateway.wait_for_events("delivered", 2);
    let events = json_of(&run(&gateway, &["list", "--json"]));
    for (at, words) in [(1, "\\u{1b}[2Jbody\\u{7}\nnext\n"), (0, "(2 bytes that are no text; --json has them)\n")] {
        let name = format!("github/{}", events[at]["number"].as_str().expect("a number"));
        let text = said(&run(&gateway, &["show", &name]));
        assert!(text.ends_with(words) && !text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn the_configuration_says_where_the_gateway_is_and_who_may_ask() {
    let upstream = Upstream::start();
    let port = crate::harness::free_port();
    let (folder, address) = (tempfile::tempdir().expect("a folder"), format!("0.0.0.0:{port}"));
    let sections = queue_with_api(&upstream.url()).replace("[admin]", &format!("[admin]\nlisten = \"{address}\""));
    let sections = sections.replace(&format!("plain:{TOKEN}"), "env:TOKEN");
    let _gateway = Gateway::spawn(folder.path(), &sections, &[("TOKEN", TOKEN)]);
    let config = folder.path().join("doorward.toml");
    // What is wrong outside of [admin] is not this command's.
    let text =
        std::fs::read_to_string(&config).expect("a file").replace("url = \"sqlite:store.db\"", "url = \"nowhere\"");
    std::fs::write(&config, text).expect("written");
    let list = |token: &str| {
        let mut command = doorward();
        command.args(["events", "list"]).current_dir(folder.path()).env("TOKEN", token).output().expect("it runs")
    };
    assert_eq!(said(&list(TOKEN)), "no events\n");
    let wrong = complained(&list("another one, that is wrong".replace(' ', "-").as_str()));
    assert!(wrong.contains("not the token"), "{wrong}");
}

#[test]
fn errors_say_what_is_wrong() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    let unknown = complained(&run(&gateway, &["show", "github/1-0"]));
    assert!(unknown.contains("no event 1-0 of github"), "{unknown}");
    let unknown = complained(&run(&gateway, &["list", "--source", "gihub"]));
    assert!(unknown.contains("github"), "{unknown}");
    let open = complained(&run(&gateway, &["purge", "--state", "queued"]));
    assert!(open.contains("none is purged"), "{open}");
    let folder = tempfile::tempdir().expect("a folder");
    let plain = |arguments: &[&str]| {
        doorward().arg("events").args(arguments).current_dir(folder.path()).output().expect("it runs")
    };
    let missing = complained(&plain(&["list"]));
    assert!(missing.contains("doorward.toml") && missing.contains("--url"), "{missing}");
    let nobody = Upstream::nowhere();
    std::fs::write(folder.path().join("doorward.toml"), format!("[admin]\nlisten = \"{nobody}\"\n")).expect("written");
    let no_token = complained(&plain(&["list"]));
    assert!(no_token.contains("admin.token"), "{no_token}");
    let down = complained(&plain(&["list", "--token", "plain:x"]));
    assert!(down.contains(&nobody.to_string()) && down.contains("is the gateway running"), "{down}");
    let no_api = complained(&plain(&["list", "--token", "plain:x", "--url", &format!("http://{}", gateway.address())]));
    assert!(no_api.contains(&format!("(404 from http://{}", gateway.address())), "{no_api}");
    for arguments in [
        &["purge"][..],
        &["replay"],
        &["purge", "--all", "--state", "dead"],
        &["replay", "github/1-0", "--all"],
        &["replay", "github"],
        &["show", "github/../x"],
        &["list", "--state", "broken"],
        &["list", "--from", "yesterday"],
        &["list", "--limit", "0"],
    ] {
        assert_eq!(plain(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
