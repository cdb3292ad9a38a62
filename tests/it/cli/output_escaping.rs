//! What others wrote is escaped where it is shown: on a terminal and in a log.

use std::fs::File;
use std::process::Child;
use std::process::Output;
use std::process::Stdio;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::free_port;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::doorward;
use crate::harness::http::connect;
use crate::harness::provider::SECRET;
use crate::harness::provider::offergrid::offergrid_signed;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// Colours, a title, C1, a bell, text that runs backwards, what has no width, and a line that is none of ours.
const HOSTILE: &str =
    "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}31m\u{7f}\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}\u{2028}\u{61c}end";
/// The same without controls, which an id and a type may not have.
const BACKWARDS: &str = "evt\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}\u{2028}\u{61c}end";

fn is_hostile(character: char) -> bool {
    character.is_control() && character != '\n' || "\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{61c}".contains(character)
}

/// Asserts that a text has what was written, visibly.
#[track_caller]
fn assert_tame(text: &str) {
    assert!(!text.contains(is_hostile), "{text:?}");
    assert!(text.contains("202e") && text.contains("gnp.exe") && text.contains("end"), "{text}");
}

#[track_caller]
fn printed(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).expect("UTF-8")
}

fn body() -> String {
    json!({ "id": BACKWARDS, "event": BACKWARDS, "data": HOSTILE }).to_string()
}

fn hostile_upstream() -> Upstream {
    Upstream::with(|_, _| Reply::Status(422, HOSTILE))
}

fn sections(upstream: &Upstream) -> String {
    format!(
        "[sources.offergrid]\nprofile = \"offergrid\"\npath = \"/webhooks/offergrid\"\nsecrets = [\"plain:{SECRET}\"]\n\
         deliver.queue = {{ url = \"{}\" }}\n[store]\nurl = \"sqlite:store.db\"\n[admin]\ntoken = \"plain:{TOKEN}\"\n",
        upstream.url()
    )
}

#[test]
fn queued_events_are_escaped() {
    let upstream = hostile_upstream();
    let gateway = Gateway::start(&sections(&upstream));
    let hostile = offergrid_signed(body(), SystemTime::now()).with("X-Note", "\u{9b}31m\tnote");
    assert_eq!(hostile.send(gateway.address()).status, 200);
    gateway.wait_for_events("dead", 1);
    let events = |arguments: &[&str]| {
        let url = format!("http://{}", gateway.admin_address());
        let mut command = doorward();
        command.arg("events").args(arguments).args(["--url", &url, "--token", "env:TOKEN"]).env("TOKEN", TOKEN);
        printed(&command.output().expect("it runs"))
    };
    let name = format!("offergrid/{}", gateway.events("")[0]["number"].as_str().expect("a number"));
    for arguments in [&["list", "--json"][..], &["show", &name], &["show", &name, "--json"]] {
        assert_tame(&events(arguments).replace('\t', " "));
    }
    assert!(!events(&["list"]).contains(is_hostile));
    let listed: Value = serde_json::from_str(&events(&["list", "--json"])).expect("JSON");
    assert_eq!(listed[0]["answer"]["body"], HOSTILE);
    assert_tame(&gateway.api("GET", "/api/v1/events", "").text());
}

/// A gateway whose log goes to a file.
struct Logged {
    child: Child,
    folder: TempDir,
}

impl Logged {
    fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("UTF-8")
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_log_is_escaped_in_either_format() {
    let upstream = hostile_upstream();
    for format in ["json", "text"] {
        let (folder, listen) = (tempfile::tempdir().expect("a folder"), free_port());
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{listen}\"\n[log]\nformat = \"{format}\"\n{}listen = \"127.0.0.1:0\"\n",
            sections(&upstream)
        );
        std::fs::write(folder.path().join("doorward.toml"), config).expect("written");
        let log = File::create(folder.path().join("log")).expect("a file");
        let child = doorward().arg("serve").current_dir(folder.path()).stdout(Stdio::null()).stderr(log).spawn();
        let gateway = Logged { child: child.expect("it starts"), folder };
        wait_until("the gateway to listen", || gateway.text().contains("ready"));
        let address = ([127, 0, 0, 1], listen).into();
        drop(connect(address));
        assert_eq!(offergrid_signed(body(), SystemTime::now()).send(address).status, 200);
        wait_until("the lines", || gateway.text().contains("given up") && gateway.text().contains("queued"));
        let log = gateway.text();
        assert_tame(&log);
        let lines = log.lines().filter(|line| line.contains("202e")).collect::<Vec<_>>();
        assert_eq!(lines.len(), 2, "each event is one line: {log}");
        if format == "json" {
            for line in lines {
                let event: Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(event["event_id"], BACKWARDS);
            }
        }
    }
}

#[test]
fn answers_to_send_are_escaped() {
    let upstream = hostile_upstream();
    for more in [&[][..], &["--json"]] {
        let mut command = doorward();
        command.args(["send", "--profile", "github", "--secret", "env:SECRET", "--to", &upstream.url()]);
        let output = command.args(more).env("SECRET", SECRET).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        assert_tame(&printed(&output));
    }
}

#[test]
fn explanations_of_captures_are_escaped() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("capture");
    let explain = |capture: &[u8], profile: &str, more: &[&str]| {
        std::fs::write(&file, capture).expect("written");
        let mut command = doorward();
        command.args(["explain", "--profile", profile, "--secret", "env:SECRET"]).args(more).arg(&file);
        printed(&command.env("SECRET", SECRET).output().expect("it runs"))
    };
    let genuine = offergrid_signed(body(), SystemTime::now()).bytes();
    for more in [&[][..], &["--json"]] {
        let said = explain(&genuine, "offergrid", more);
        assert!(said.contains("accepted"), "{said}");
        assert_tame(&said);
    }
    let headers = json!({ "X-GitHub-Event": HOSTILE, "X-GitHub-Delivery": HOSTILE, "X-Hub-Signature-256": HOSTILE });
    let whole = json!({ "method": "POST", "url": format!("/?{HOSTILE}"), "headers": headers, "body": HOSTILE });
    let method = json!({ "method": format!("PO{HOSTILE}"), "url": "/", "headers": {}, "body": "" });
    let header = json!({ "method": "POST", "url": "/", "headers": { HOSTILE: "a" }, "body": "" });
    let captures = [
        whole.to_string().into_bytes(),
        method.to_string().into_bytes(),
        header.to_string().into_bytes(),
        HOSTILE.as_bytes().to_vec(),
        [b"POST / HTTP/1.1\r\nX-GitHub-Event: ", HOSTILE.as_bytes(), b"\r\n\r\n", HOSTILE.as_bytes()].concat(),
    ];
    for capture in captures {
        for more in [&[][..], &["--json"]] {
            let said = explain(&capture, "github", more);
            assert!(!said.is_empty() && !said.contains(is_hostile), "{said:?}");
        }
    }
}
