//! The commands, as somebody at a terminal or a script sees them.

use std::net::TcpListener;
use std::process::Command;
use std::process::Output;

use doorward::profile::Profiles;
use serde_json::Value;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::provider::github::Github;
use crate::harness::recorded;

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
        ("LocallyGrown", ["200 delivered", "200 duplicate", refused, "no tolerance", "1 event"]),
        ("Stripe", ["200 delivered", "200 duplicate", refused, refused, "1 event"]),
        ("Mailgun", ["200 delivered", "200 duplicate", refused, "no tolerance", "1 event"]),
        ("Cimplify", ["200 delivered", "200 duplicate", refused, "no tolerance", "1 event"]),
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
    let rows: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(cells).collect();
    assert_eq!(rows[0], ["NAME", "PROVIDER", "SCHEME", "A SOURCE NEEDS"]);
    assert_eq!(rows[1..].iter().map(|row| row[0].to_owned()).collect::<Vec<_>>(), shipped());
    let row = |name: &str| rows.iter().find(|row| row[0] == name).expect("a row").clone();
    assert_eq!(row("stripe"), ["stripe", "Stripe", "HMAC-SHA256", "secrets"]);
    assert_eq!(row("pitchpoint")[3], "params.audience, params.issuer", "jwks_url has a default: {text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
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
}

#[test]
fn a_profile_is_explained_in_words() {
    for (name, words) in [
        (
            "stripe",
            &["HMAC-SHA256 over {timestamp}.{body}", "v1=…", "at most 5m old", "body /id; signed", "3 days"][..],
        ),
        ("github", &["header x-github-delivery; not signed, so that", "waits       10s", "beware"]),
        ("pitchpoint", &["a JWT signed with RS256", "params.jwks_url", "403 for a request that is not authentic"]),
        ("paddle", &["addresses   34.232.58.13", "# allow = [", "200 is what the app has to answer"]),
        ("slack", &["handshake   Slack asks once", "answered with 200 and the text {json:/challenge}"]),
        ("gitlab", &["The first of these that applies decides", "the secret itself in header x-gitlab-token"]),
        ("adyen", &["All of these have to hold", "where the source has a secret for it"]),
        ("discord", &["public key  the application's public key", "secrets = [\"plain:…\"]"]),
        ("aws-sns", &["Besides, body /TopicArn", "is fetched from the address in body /SigningCertURL"]),
        ("dropbox", &["event id    nothing: each request counts as one"]),
        ("zendesk", &["409 for what is to be sent again"]),
        ("twilio", &["params.url = \"…\"   # the webhook's address", "auth.hmac.hash is SHA-1"]),
    ] {
        let text = stdout(&run(doorward().args(["profiles", name])));
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(&word), "{name} does not say {word:?}:\n{text}");
        }
    }
}

#[test]
fn a_profile_is_described_for_scripts() {
    let described = |name: &str| -> Value {
        serde_json::from_slice(&run(doorward().args(["profiles", name, "--json"])).stdout).expect("JSON")
    };
    let stripe = described("stripe");
    assert_eq!((&stripe["name"], &stripe["title"]), (&Value::from("stripe"), &Value::from("Stripe")));
    assert_eq!((&stripe["tolerance_seconds"], &stripe["horizon_seconds"]), (&Value::from(300), &Value::from(259_200)));
    assert_eq!((&stripe["retried"], &stripe["lints"]), (&Value::from("non-2xx"), &serde_json::json!([])));
    assert_eq!(described("telegram")["addresses"], serde_json::json!(["149.154.160.0/20", "91.108.4.0/22"]));
    let discord = &described("discord")["secrets"][0];
    assert_eq!((&discord["scheme"], &discord["public"]), (&Value::from("Ed25519"), &Value::from(true)));
    assert_eq!(discord["about"], "the application's public key");
    assert_eq!(described("trello")["lints"][0]["key"], "auth.hmac.hash");
}

/// Each with the secret and the parameters of a recorded delivery.
#[test]
fn the_source_that_a_profile_shows_is_a_good_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("doorward.toml");
    for name in shipped() {
        let recorded = accepted(&name);
        let secret = recorded["secrets"][0].as_str().unwrap_or_default();
        let text = stdout(&run(doorward().args(["profiles", &name])));
        let source = text.lines().skip_while(|line| !line.starts_with("[sources.")).take_while(|line| !line.is_empty());
        let mut source = source.collect::<Vec<_>>().join("\n").replace("plain:…", &format!("plain:{secret}"));
        for (param, value) in recorded["params"].as_object().into_iter().flatten() {
            source = source.replace(&format!("params.{param} = \"…\""), &format!("params.{param} = {value}"));
        }
        let keys = folder.path().join("keys");
        std::fs::write(&keys, secret).expect("written");
        let source = source.replace(&format!("/etc/doorward/{name}.jwks"), &keys.display().to_string());
        std::fs::write(&config, source).expect("written");
        let variable = format!("{}_SECRET", name.to_uppercase().replace('-', "_"));
        let output = run(doorward().arg("check").arg("--config").arg(&config).env(variable, secret));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        assert!(!stderr(&output).contains("plain secret"), "{name}: {}", stderr(&output));
    }
}

/// A delivery of this provider that is accepted.
fn accepted(profile: &str) -> Value {
    let mut accepted = recorded::deliveries(profile).into_iter().filter(|(name, _)| name.starts_with("accepted-"));
    accepted.next().expect("an accepted delivery").1
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
