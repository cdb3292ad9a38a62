//! The commands, as somebody at a terminal or a script sees them.

use std::net::TcpListener;
use std::process::Command;
use std::process::Output;

use doorward::profile::Profiles;
use serde_json::Value;

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::doorward;

fn shipped() -> Vec<String> {
    Profiles::shipped().names().map(str::to_owned).collect()
}

#[test]
fn the_demo_shows_every_provider_as_it_should_be() {
    let output = run(doorward().args(["demo", "--once"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let refused = "401 refused";
    let expected = [
        ("provider", ["genuine", "same again", "forged", "stale", "app got"]),
        ("Offergrid", ["200 delivered", "200 duplicate", refused, refused, "1 event"]),
        ("OmniSales", ["200 delivered", "200 duplicate", refused, refused, "1 event"]),
        ("Pitchpoint Solutions", ["200 delivered", "200 duplicate", "403 refused", "403 refused", "1 event"]),
        ("LocallyGrown", ["200 delivered", "200 duplicate", refused, "signs no time", "1 event"]),
        ("Stripe", ["200 delivered", "200 duplicate", refused, refused, "1 event"]),
        ("Mailgun", ["200 delivered", "200 duplicate", refused, "signs no time", "1 event"]),
        ("Cimplify", ["200 delivered", "200 duplicate", refused, "signs no time", "1 event"]),
    ];
    let table: Vec<Vec<_>> = text.lines().take(expected.len()).map(cells).collect();
    for (row, (provider, rest)) in table.iter().zip(&expected) {
        assert_eq!((row[0], &row[1..]), (*provider, rest.as_slice()), "{text}");
    }
    assert_eq!(table.len(), expected.len());
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(doorward().args(["demo", "--once"]).env("TMPDIR", folder.path()).current_dir(folder.path()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn profiles_are_listed_with_what_they_need() {
    let output = run(doorward().arg("profiles"));
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let names: Vec<_> = text.lines().skip(1).map(|line| cells(line)[0]).collect();
    assert_eq!(names, shipped());
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    assert!(line("stripe").ends_with("secrets"), "{text}");
    let pitchpoint = line("pitchpoint");
    assert!(pitchpoint.contains("params.issuer") && pitchpoint.contains("params.audience"), "{text}");
    assert!(!pitchpoint.contains("params.jwks_url"), "it has a default: {text}");
}

#[test]
fn profiles_are_listed_for_scripts() {
    let output = run(doorward().args(["profiles", "--json"]));
    assert_eq!(output.status.code(), Some(0));
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<_> = list.as_array().expect("an array").iter().map(|profile| profile["name"].as_str()).collect();
    assert_eq!(names, shipped().iter().map(|name| Some(name.as_str())).collect::<Vec<_>>());
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_profile_is_shown_with_a_source_to_start_from() {
    for name in shipped() {
        let output = run(doorward().args(["profiles", &name]));
        assert_eq!(output.status.code(), Some(0), "{name}");
        let text = stdout(&output);
        let file = std::fs::read_to_string(format!("{}/config/providers/{name}.toml", env!("CARGO_MANIFEST_DIR")));
        assert!(text.contains(file.expect("a profile").trim_end()), "{text}");
        assert!(text.contains(&format!("[sources.{name}]")), "{text}");
    }
    let output = run(doorward().args(["profiles", "stripe", "--json"]));
    let profile: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&profile["name"], &profile["title"]), (&Value::from("stripe"), &Value::from("Stripe")));
    assert_eq!(profile["tolerance_seconds"], 300);
}

#[test]
fn the_source_that_a_profile_shows_is_a_good_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["cimplify", "github", "mailgun", "pitchpoint", "standard-webhooks", "stripe"] {
        let text = stdout(&run(doorward().args(["profiles", name])));
        let source = text.lines().skip_while(|line| !line.starts_with("[sources.")).take_while(|line| !line.is_empty());
        let source = source.collect::<Vec<_>>().join("\n").replace("issuer = \"…\"", "issuer = \"https://a.example\"");
        let config = folder.path().join("doorward.toml");
        std::fs::write(&config, source).expect("written");
        let variable = format!("{}_SECRET", name.to_uppercase().replace('-', "_"));
        let output = run(doorward().arg("check").arg("--config").arg(&config).env(variable, "c2VjcmV0"));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    }
}

#[test]
fn a_profile_that_does_not_exist_is_answered_with_the_nearest() {
    let output = run(doorward().args(["profiles", "strpe"]));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("did you mean stripe?"), "{}", stderr(&output));
    let output = run(doorward().args(["profiles", "nothing-like-it"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(shipped().iter().all(|name| stderr(&output).contains(name)), "{}", stderr(&output));
}

#[test]
fn profiles_of_ones_own_are_listed_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let profile = "title = \"Own\"\n[auth.hmac]\nsignature = { header = \"X-Signature\", encoding = \"hex\" }\n\
                   signed = \"{body}\"\n[event]\nid = { json = \"/id\" }\n";
    std::fs::write(folder.path().join("own.toml"), profile).expect("written");
    let output = run(doorward().args(["profiles", "--directory"]).arg(folder.path()));
    assert!(stdout(&output).lines().any(|line| line.starts_with("own ")), "{}", stdout(&output));
    std::fs::write(folder.path().join("broken.toml"), "title = \"Broken\"\n").expect("written");
    let output = run(doorward().args(["profiles", "--directory"]).arg(folder.path()));
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("broken.toml"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_is_answered_with_2() {
    for arguments in [
        &[][..],
        &["serv"],
        &["serve", "--confg", "x"],
        &["check", "extra"],
        &["demo", "--twice"],
        &["profiles", "stripe", "github"],
        &["serve", "--config"],
    ] {
        let output = run(doorward().args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn help_and_version_are_given() {
    for command in [&["--help"][..], &["help"], &["serve", "--help"], &["profiles", "--help"]] {
        let output = run(doorward().args(command));
        assert_eq!((output.status.code(), stdout(&output).contains("Usage: doorward")), (Some(0), true), "{command:?}");
    }
    let output = run(doorward().arg("--version"));
    assert_eq!(stdout(&output), format!("doorward {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let free = "127.0.0.1:0";
    for (listen, admin, workers) in [(address.as_str(), free, 1), (&address, free, 2), (free, &address, 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "[server]\nlisten = \"{listen}\"\nworkers = {workers}\n[admin]\nlisten = \"{admin}\"\n\
             [store]\nurl = \"memory:\"\n"
        );
        std::fs::write(folder.path().join("doorward.toml"), config).expect("written");
        let output = run(doorward().arg("serve").current_dir(folder.path()));
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(&format!("cannot listen on {address}")), "{}", stderr(&output));
    }
}

#[test]
fn a_running_gateway_shares_its_address_with_no_other() {
    let gateway = Gateway::start("[server]\nworkers = 2\n");
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "[server]\nlisten = \"{}\"\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = \"memory:\"\n",
        gateway.address()
    );
    std::fs::write(folder.path().join("doorward.toml"), config).expect("written");
    let output = run(doorward().arg("serve").current_dir(folder.path()));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(&gateway.address().to_string()), "{}", stderr(&output));
}

#[test]
fn a_database_in_use_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("events.db");
    let store = format!("[store]\nurl = \"sqlite:{}\"\n", database.display());
    let _gateway = Gateway::start(&format!("{store}{}", Github::source("http://127.0.0.1:9/")));
    let config = folder.path().join("doorward.toml");
    let addresses = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, format!("{store}{addresses}")).expect("written");
    let output = run(doorward().arg("serve").arg("--config").arg(&config));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("events.db"), "{}", stderr(&output));
}

fn run(command: &mut Command) -> Output {
    command.output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// The cells of a line of a table, which stand two spaces or more apart.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}
