//! Files that are not there, never end, are too large or never stay the same, while the gateway runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use doorward::base::limits::Limits;
use doorward::base::limits::Reload;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::gateway::reload::exchange_file;
use crate::harness::gateway::reload::quick_looks;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const OTHER: &str = "another secret of theirs";
const MIB: usize = 1024 * 1024;

/// A GitHub source whose secret is in this file.
fn with_secret_in(file: &str, upstream: &Upstream) -> String {
    Github::source(&upstream.url()).replace(&format!("plain:{SECRET}"), &format!("file:{file}"))
}

fn status(gateway: std::net::SocketAddr, id: &str, secret: &str) -> u16 {
    let signed = format!("sha256={}", hmac_hex(secret, &[id.as_bytes()]));
    Github::delivery(id, id).set("X-Hub-Signature-256", &signed).send(gateway).status
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
}

/// That a reload is refused, with these words.
#[track_caller]
fn refused(gateway: &Gateway, words: &str) {
    let answer = gateway.ask_to_reload();
    assert!(answer.status == 422 && answer.text().contains(words), "{}", answer.text());
}

#[test]
fn a_folder_of_included_files_that_is_gone_is_a_problem() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (sources, away) = (folder.path().join("sources.d"), folder.path().join("away"));
    fs::create_dir(&sources).expect("a folder");
    fs::write(sources.join("github.toml"), Github::source(&upstream.url())).expect("written");
    let gateway = Gateway::start_in(folder, "include = [\"sources.d/*.toml\", \"more.d/*.toml\"]\n");
    fs::rename(&sources, &away).expect("renamed");
    refused(&gateway, "\\\"sources.d/*.toml\\\" matches no file any more");
    assert_eq!(status(gateway.address(), "1", SECRET), 200);
    // As long as it is.
    refused(&gateway, "matches no file any more");
    fs::rename(&away, &sources).expect("renamed");
    assert_eq!(gateway.ask_to_reload().status, 200);
    exchange_file(&gateway.folder().join("doorward.toml"), "# none\n");
    assert_eq!(gateway.ask_to_reload().status, 200, "without the pattern, it is meant");
}

#[test]
fn a_folder_that_cannot_be_read_is_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::write(closed.join("a.toml"), Github::source("http://127.0.0.1:9/")).expect("written");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o300)).expect("closed");
    fs::write(folder.path().join("doorward.toml"), "include = [\"closed/*.toml\"]\n").expect("written");
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(doorward().get_program()).arg("check");
    let output = command.current_dir(folder.path()).output().expect("it runs");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("doorward.toml:1: include: ") && said.contains("cannot be searched"), "{said}");
}

#[test]
fn a_pipe_holds_up_neither_a_reload_nor_the_end() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, SECRET).expect("written");
    let gateway = Gateway::start_in(folder, &with_secret_in("secret", &upstream));
    fs::remove_file(&secret).expect("removed");
    pipe(&secret);
    refused(&gateway, "it is a pipe or a device");
    assert_eq!(status(gateway.address(), "1", SECRET), 200);
    gateway.signal("TERM");
    assert!(gateway.wait().status.success());
}

#[test]
fn a_pipe_is_read_at_the_start_and_its_secret_kept() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    pipe(&secret);
    let writer = std::thread::spawn(move || fs::write(secret, SECRET));
    let sections = with_secret_in("secret", &upstream);
    let gateway = Gateway::start_in(folder, &sections);
    writer.join().expect("it ends").expect("written");
    for number in 1..3 {
        let answer = gateway.reconfigure(&format!("{sections}{}", "max_body = \"1MiB\"\n".repeat(number % 2)));
        assert!(!answer["changed"].as_array().expect("names").is_empty(), "{answer}");
        assert_eq!(status(gateway.address(), &number.to_string(), SECRET), 200);
    }
}

#[test]
fn a_reload_that_does_not_end_fails() {
    let upstream = Upstream::start();
    let reload = Reload { read_within: Duration::from_nanos(1), ..quick_looks().reload };
    let gateway = InProcessGateway::start(&Github::source(&upstream.url()), Limits { reload, ..Limits::default() });
    wait_until("a failure", || gateway.metric("doorward_config_reloads_total{outcome=\"failure\"}") > 0.0);
    assert!(gateway.metric("doorward_config_last_reload_successful") == 0.0);
    let said = gateway.api("/api/v1/generation").text();
    assert!(said.contains("its files were not read within"), "{said}");
    assert_eq!(status(gateway.address(), "1", SECRET), 200);
}

#[test]
fn a_file_that_never_stays_the_same_does_not_hold_up_the_others() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, SECRET).expect("written");
    let reload =
        Reload { look_every: Duration::from_millis(20), settle_within: Duration::from_secs(1), ..Reload::default() };
    let sections = with_secret_in(secret.to_str().expect("a name"), &upstream);
    let gateway = InProcessGateway::start(&sections, Limits { reload, ..Limits::default() });
    let config = gateway.folder().join("doorward.toml");
    let good = fs::read_to_string(&config).expect("a configuration");
    exchange_file(&secret, OTHER);
    let mut number = 0;
    wait_until("the new secret", || {
        number += 1;
        exchange_file(&config, &format!("{good}# {number}\n"));
        status(gateway.address(), &number.to_string(), OTHER) == 200
    });
    assert_eq!(status(gateway.address(), "old", SECRET), 401);
}

#[test]
fn files_have_a_size_up_to_which_they_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let checked = |name: &str, content: &[u8], sections: &str| {
        fs::write(folder.path().join(name), content).expect("written");
        let sections = format!("{sections}[store]\nurl = \"memory:\"\n");
        fs::write(folder.path().join("doorward.toml"), sections).expect("written");
        let output = doorward().arg("check").current_dir(folder.path()).output().expect("it runs");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        (output.status.code(), said)
    };
    let source = Github::source("http://127.0.0.1:9/").replace(&format!("plain:{SECRET}"), "file:secret");
    for (name, limit, sections) in [
        ("secret", MIB, source.as_str()),
        (
            "more.toml",
            16 * MIB,
            &Github::source("http://127.0.0.1:9/").replacen('[', "include = [\"more.toml\"]\n[", 1),
        ),
    ] {
        let mut content = vec![b'x'; limit];
        content[0] = b'#';
        let (_, said) = checked(name, &content, sections);
        assert!(!said.contains("it has more than"), "{said}");
        content.push(b'x');
        let (code, said) = checked(name, &content, sections);
        assert!(code == Some(78) && said.contains(&format!("it has more than {} MiB", limit / MIB)), "{said}");
    }
}

#[test]
fn a_profile_that_is_gone_is_not_replaced_by_the_shipped_one() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("profiles/github.toml");
    fs::create_dir(folder.path().join("profiles")).expect("a folder");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/providers/github.toml");
    fs::copy(shipped, &own).expect("copied");
    let sections = format!("profiles = \"profiles\"\n{}", Github::source(&upstream.url()));
    let gateway = Gateway::start_in(folder, &sections);
    fs::remove_file(&own).expect("removed");
    refused(&gateway, "profiles/github.toml");
    assert_eq!(gateway.generation()["generation"], 1);
    let without = Github::source(&upstream.url());
    gateway.reconfigure(&without);
}

#[test]
fn what_a_secret_has_proved_is_not_said_of_the_one_that_takes_its_place() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, SECRET).expect("written");
    let sections = with_secret_in("secret", &upstream);
    let gateway = Gateway::start_in(folder, &sections);
    let matches = || gateway.api_with("GET", "/api/v1/secrets", "", "").json()["sources"][0]["secrets"][0].clone();
    assert_eq!(status(gateway.address(), "1", SECRET), 200);
    gateway.reconfigure(&format!("{sections}max_body = \"1MiB\"\n"));
    assert_eq!(matches()["matches"], 1, "it is the same one in another source");
    exchange_file(&secret, OTHER);
    assert_eq!(gateway.ask_to_reload().status, 200);
    assert_eq!(matches()["matches"], 0);
    assert_eq!(status(gateway.address(), "2", OTHER), 200);
    assert_eq!(matches()["matches"], 1);
    let name = "doorward_secret_matches_total{secret=\"file:secret\",source=\"github\"}";
    assert!(gateway.metric(name) == 2.0, "a counter counts on");
}
