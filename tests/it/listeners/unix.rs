//! Listeners on the socket of a file: its permissions, stale ones, and that whoever connects has no address.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::exchange_unix;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const LISTEN: &str = "[server]\nlisten = \"unix:doorward.sock\"\n";

#[test]
fn the_short_form_can_be_a_file_that_curl_sends_to() {
    let (gateway, upstream) = started(LISTEN, "");
    let answer = Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(gateway.folder().join("doorward.sock"))
        .args(["-o", "/dev/null", "-w", "%{http_code}", "http://hooks.example/webhooks/github", "-d", "{}"])
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "401", "{answer:?}");
    assert_eq!(send(&gateway, &Github::delivery("1", "{}")).status, 200);
    let received = upstream.received().remove(0);
    assert_eq!(received.header("x-forwarded-for"), Some("unknown"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
}

#[test]
fn its_permissions_are_those_of_mode_and_0660_without() {
    for (mode, expected) in [("", 0o660), ("mode = \"0600\"", 0o600), ("mode = \"666\"", 0o666)] {
        let listener = format!("[server.listeners.file]\nlisten = \"unix:doorward.sock\"\n{mode}\n");
        let (gateway, _upstream) = started(&listener, "");
        let file = std::fs::metadata(gateway.folder().join("doorward.sock")).expect("a file");
        assert_eq!(file.permissions().mode() & 0o7777, expected, "{mode}");
    }
}

#[test]
fn a_client_without_an_address_is_on_no_allowlist() {
    for trusted in ["", "trusted_proxies = [\"0.0.0.0/0\", \"::/0\"]\n"] {
        let (gateway, upstream) = started(&format!("{LISTEN}{trusted}"), "allow = [\"0.0.0.0/0\", \"::/0\"]");
        for delivery in [Github::delivery("1", "{}"), forwarded("203.0.113.9")] {
            assert_eq!(send(&gateway, &delivery).status, 403, "{trusted}");
        }
        assert_eq!(gateway.refusals("github", "address_unknown"), 2.0);
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn a_trusted_proxy_behind_the_file_names_the_client() {
    let (gateway, upstream) =
        started(&format!("{LISTEN}trusted_proxies = [\"unix:\", \"10.0.0.0/8\"]\n"), "allow = [\"203.0.113.0/24\"]");
    assert_eq!(send(&gateway, &forwarded("198.51.100.7, 203.0.113.9, 10.0.0.1")).status, 200);
    let received = upstream.received().remove(0);
    assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.9, 10.0.0.1"));
    assert_eq!(send(&gateway, &forwarded("198.51.100.7")).status, 403);
    assert_eq!(gateway.refusals("github", "address_not_allowed"), 1.0);
    for unknown in [Github::delivery("2", "{}"), forwarded("unknown"), forwarded("")] {
        assert_eq!(send(&gateway, &unknown).status, 403);
    }
    assert_eq!(gateway.refusals("github", "address_unknown"), 3.0);
}

#[test]
fn an_address_is_not_a_trusted_proxy_because_files_are() {
    let listeners = "[server.listeners.file]\nlisten = \"unix:doorward.sock\"\n\
                     [server.listeners.tcp]\nlisten = \"127.0.0.1:0\"\n[server]\ntrusted_proxies = [\"unix:\"]\n";
    let (gateway, _upstream) = started(listeners, "allow = [\"203.0.113.0/24\"]");
    assert_eq!(forwarded("203.0.113.9").send(gateway.address()).status, 403);
}

#[test]
fn a_stale_file_is_replaced_and_the_file_is_removed_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start();
    let sections = format!("{LISTEN}{}", Github::source(&upstream.url()));
    let killed = Gateway::start_in(folder, &sections).kill();
    let folder = killed.folder.expect("a folder");
    let socket = folder.path().join("doorward.sock");
    assert!(socket.exists(), "nobody has removed it");
    let gateway = Gateway::start_in(folder, &sections);
    assert_eq!(send(&gateway, &Github::delivery("1", "{}")).status, 200);
    gateway.signal("TERM");
    wait_until("the file to be removed", || !socket.exists());
    assert!(gateway.wait().status.success());
}

#[test]
fn a_file_on_which_somebody_listens_is_left_alone() {
    let (gateway, _upstream) = started(LISTEN, "");
    let said = Gateway::refused(gateway.folder(), LISTEN);
    assert!(said.contains("unix:doorward.sock") && said.contains("somebody listens"), "{said}");
    assert_eq!(send(&gateway, &Github::delivery("1", "{}")).status, 200, "the first one still has it");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("doorward.sock");
    std::fs::write(&path, "precious").expect("a file");
    let said = Gateway::refused(folder.path(), LISTEN);
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "precious");
    std::fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("elsewhere", &path).expect("a link");
    assert!(Gateway::refused(folder.path(), LISTEN).contains("no socket"));
    assert!(path.is_symlink());
}

#[test]
fn a_file_that_has_taken_its_place_is_not_removed_at_the_end() {
    let (gateway, _upstream) = started(LISTEN, "");
    let socket = gateway.folder().join("doorward.sock");
    std::fs::remove_file(&socket).expect("removed");
    let _other = UnixListener::bind(&socket).expect("another one");
    gateway.signal("TERM");
    let exit = gateway.wait();
    assert!(exit.status.success() && socket.exists());
}

fn started(server: &str, source: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&format!("{server}{}{source}\n", Github::source(&upstream.url()))), upstream)
}

fn send(gateway: &Gateway, delivery: &Delivery) -> Answer {
    let path: &Path = &gateway.folder().join("doorward.sock");
    exchange_unix(path, &delivery.clone().with("Connection", "close").bytes())
}

fn forwarded(chain: &str) -> Delivery {
    Github::delivery(chain, format!("{{\"chain\":\"{chain}\"}}")).with("X-Forwarded-For", chain)
}
