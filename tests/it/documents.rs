//! What the README lists is what the code has.

use std::collections::BTreeSet;

use doorward::profile::Profiles;
use doorward::source::refusal::Refusal;

use crate::harness::authority::Authority;
use crate::harness::cases::Cases;
use crate::harness::gateway::Gateway;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

const README: &str = include_str!("../../README.md");

#[test]
fn the_table_of_reasons_is_complete() {
    let table = column("| reason | status | |", 0);
    assert_eq!(table, Refusal::REASONS.iter().map(|reason| (*reason).to_owned()).collect());
}

#[test]
fn the_table_of_providers_is_complete() {
    let table = rows("| profile | provider | scheme | a source needs |");
    for (name, profile) in Profiles::shipped().iter() {
        let row = table.iter().find(|row| row[0] == format!("`{name}`"));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the README's table of providers"));
        assert_eq!(row[1], profile.title);
        assert_eq!(row[3].contains("`secrets`"), profile.needs_secrets(), "{name}");
        let ambiguous = profile.ambiguities().next();
        let ambiguous = ambiguous.map(|why| format!("; ambiguous: {why}")).unwrap_or_default();
        assert_eq!(row[2], format!("{}{ambiguous}", profile.auth.scheme()));
        for (param, _) in profile.params.iter().filter(|(_, param)| param.default.is_none()) {
            assert!(row[3].contains(&format!("`params.{param}`")), "{name} needs {param}");
        }
    }
    assert_eq!(table.len(), Profiles::shipped().iter().count());
}

#[test]
fn the_table_of_metrics_is_complete() {
    let upstream = Upstream::start();
    let pitchpoint = "[sources.pitchpoint]\nprofile = \"pitchpoint\"\npath = \"/p\"\n\
                      params = { issuer = \"http://127.0.0.1:9\", audience = \"a\" }\n\
                      deliver.upstream = { url = \"http://127.0.0.1:9/\" }\n";
    let watched = format!(
        "[sources.watched]\nprofile = \"github\"\npath = \"/w\"\nsecrets = [\"plain:x\"]\nverify = \"observe\"\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        upstream.url()
    );
    let queued = "[sources.queued]\nprofile = \"github\"\npath = \"/q\"\nsecrets = [\"plain:x\"]\n\
                  deliver.queue = { url = \"http://127.0.0.1:9/\" }\n[store]\nurl = \"sqlite:store.db\"\n";
    let listeners = "[server.listeners.a]\nlisten = \"127.0.0.1:0\"\n[server.listeners.b]\nlisten = \"127.0.0.1:0\"\n\
                     tls.certificates = [{ certificate = \"server.pem\", key = \"server.key\" }]\n";
    let sources = format!("{}{pitchpoint}{watched}{queued}{listeners}", Github::source(&upstream.url()));
    let authority = Authority::new();
    let gateway = authority.gateway(&sources);
    assert_eq!(Github::delivery("1", "{}").to("/w").send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("2", "{}").to("/nowhere").send(gateway.address()).status, 404);
    crate::harness::wait_until("the first fetch of keys", || {
        gateway.admin("/metrics").text().contains("doorward_jwks_refreshes_total{")
    });
    let text = gateway.admin("/metrics").text();
    let seen: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("doorward_"))
        .map(str::to_owned)
        .collect();
    let mut listed = column("| metric | labels | |", 0);
    // Has no value before the first fetch succeeds.
    assert!(listed.remove("doorward_jwks_age_seconds"));
    // Of a store in Redis.
    assert!(listed.remove("doorward_outcomes_refused_total"));
    assert_eq!(listed, seen);
}

/// What cannot be brought about here is looked for where it is said.
#[test]
fn what_the_probes_say_according_to_the_readme_is_what_the_source_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = [
        "server/admin.rs",
        "base/supervisor/mod.rs",
        "base/supervisor/heartbeat.rs",
        "store/mod.rs",
        "store/sqlite/mailbox.rs",
        "store/sqlite/writer.rs",
        "store/dedupe_log/mod.rs",
    ];
    let source: String =
        files.iter().map(|file| std::fs::read_to_string(folder.join(file)).expect("a file of the source")).collect();
    for row in rows("| they say | `/readyz` | `/livez` | until |") {
        let said: Vec<_> = row[0].split('`').skip(1).step_by(2).collect();
        assert!(!said.is_empty(), "{row:?}");
        for words in said {
            assert!(source.contains(words), "nothing says {words:?}");
        }
    }
}

#[test]
fn the_quick_start_proves_what_it_says() {
    let upstream = Upstream::start();
    let source = fenced("toml").replace("http://127.0.0.1:3000/", &upstream.url());
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::spawn(folder.path(), &source, &[("GITHUB_SECRET", SECRET)]);
    let curl = README.split("```sh").find(|block| block.trim_start().starts_with("curl -i")).expect("the proof");
    let curl = curl.split("```").next().expect("its end").replace("127.0.0.1:8080", &gateway.address().to_string());
    let run = |script: &str| {
        let output = std::process::Command::new("bash").arg("-c").arg(script).output().expect("bash and curl");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(run(&curl).contains("200 OK"), "the first time, the app answers");
    assert!(run(&curl).contains(r#"{"received":true,"duplicate":true}"#), "the second time, the gateway does");
    assert!(run(&curl.replace("Hello", "Hullo")).contains("401 Unauthorized"));
    assert_eq!(upstream.received().len(), 1);
    assert_eq!(upstream.received()[0].body, b"Hello, World!");
}

#[test]
fn the_commands_that_sign_and_send_work_as_they_are_written() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let source = fenced("toml").replace("http://127.0.0.1:3000/", &upstream.url());
    let gateway = Gateway::spawn(folder.path(), &source, &[("GITHUB_SECRET", SECRET)]);
    let section = README.split("## Signing and sending").nth(1).and_then(|rest| rest.split("\n## ").next());
    let mut printed = String::new();
    for block in section.expect("the section").split("```sh").skip(1) {
        let script = block.split("```").next().expect("its end");
        let script =
            script.replace("cargo run -q --", "cargo run --").replace("cargo run --", env!("CARGO_BIN_EXE_doorward"));
        let script = script.replace("127.0.0.1:8080", &gateway.address().to_string());
        let mut bash = std::process::Command::new("bash");
        let output =
            bash.args(["-e", "-o", "pipefail", "-c", &script]).current_dir(&folder).env("GITHUB_SECRET", SECRET);
        let output = output.output().expect("bash, curl and openssl");
        assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
        printed.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    assert_eq!(printed.matches("200 OK").count(), 2, "{printed}");
    assert!(printed.contains("secrets = ['plain:"), "{printed}");
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn the_explanation_in_the_readme_is_what_is_said() {
    let section = README.split("## When a webhook is refused").nth(1).expect("the section");
    let mut blocks = section.split("```");
    let script = blocks.nth(1).and_then(|block| block.strip_prefix("sh\n")).expect("the commands");
    let expected = blocks.nth(1).expect("what they print");
    let folder = tempfile::tempdir().expect("a folder");
    let mut bash = std::process::Command::new("bash");
    let script = script.replace("cargo run -q --", env!("CARGO_BIN_EXE_doorward"));
    let output = bash.args(["-e", "-c", &script]).current_dir(&folder).env("GITHUB_SECRET", SECRET).output();
    let output = output.expect("bash");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(printed.contains(expected.trim_matches('\n')), "{printed}");
}

#[test]
fn the_profiles_in_the_readme_are_profiles() {
    let blocks = README.split("```toml").filter_map(|block| block.split("```").next());
    let profiles: Vec<_> = blocks.filter(|block| block.contains("title = ")).collect();
    assert_eq!(profiles.len(), 2);
    for text in profiles {
        let profile = doorward::profile::Profile::parse(text).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(profile.lints().is_empty(), "{text}");
    }
}

/// What is said of a mistake names everything that would be right there.
#[test]
fn the_grammar_in_the_readme_is_complete() {
    let spans: BTreeSet<_> = rows("| section | what it says |").into_iter().flatten().collect();
    let words: BTreeSet<_> = spans
        .iter()
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .flat_map(|span| span.split(|character: char| !character.is_ascii_alphanumeric() && !"_-+".contains(character)))
        .collect();
    let mut seen = 0;
    for (profile, said) in Cases::of("profiles").iter() {
        let message = said.lines().nth(4).unwrap_or_default();
        let right =
            message.split_once(", expected ").filter(|_| message.starts_with("unknown ")).map(|(_, right)| right);
        let names = right.into_iter().flat_map(|right| right.split('`').skip(1).step_by(2));
        let variables = message.split_once("a template takes ").map(|(_, variables)| variables);
        let variables = variables.into_iter().flat_map(|variables| variables.split('{').skip(1));
        let variables = variables.filter_map(|variable| variable.split(['}', ':']).next());
        for name in names.chain(variables) {
            // The algorithms of tokens are the registered ones.
            let registered =
                name.ends_with(|digit: char| digit.is_ascii_digit()) && name.starts_with(char::is_uppercase);
            let known = words.contains(name)
                || registered
                || ["EdDSA", "POST", "GET", "HEAD", "OPTIONS", "enforce"].contains(&name);
            assert!(known, "the README's grammar does not have {name} ({profile})");
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} names were found");
}

/// The first block of this language.
fn fenced(language: &str) -> String {
    let after = README.split(&format!("```{language}\n")).nth(1).expect("a block");
    after.split("```").next().expect("its end").to_owned()
}

/// The rows of the table with this head, cell by cell.
fn rows(head: &str) -> Vec<Vec<String>> {
    let lines = README.lines().skip_while(|line| *line != head).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> =
        lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect();
    assert!(!rows.is_empty(), "there is no table {head}");
    rows
}

fn column(head: &str, at: usize) -> BTreeSet<String> {
    rows(head).iter().map(|row| row[at].trim_matches('`').to_owned()).collect()
}
