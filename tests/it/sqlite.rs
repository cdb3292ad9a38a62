//! A store's file that cannot be written any more.

use tempfile::TempDir;

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::Upstream;
use crate::harness::wait_until;

const DELIVERED: &str = r#"{"ok":true}"#;

#[test]
fn events_are_not_taken_while_they_could_not_be_remembered() {
    let upstream = Upstream::start();
    let gateway = Gateway::start_in(unwritable(), &sections(&upstream, "reject"));
    // Nobody knows yet; the upstream has the event, so the sender is told so.
    assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), DELIVERED);
    wait_until("the failure to be seen", || gateway.admin("/readyz").status == 503);
    let answer = Github::delivery("2", "2").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    let again = Github::delivery("1", "1").send(gateway.address());
    assert!(again.asks_to_come_again(), "{again:?}");
    assert_eq!(upstream.ids(), ["1"]);
    gateway.logged("what is wrong", |event| event["error"].as_str().is_some_and(|it| it.contains("no room")));
    gateway.signal("TERM");
    assert_eq!(gateway.wait().status.code(), Some(0), "a store that fails does not keep it from ending");
}

#[test]
fn events_are_taken_and_marked_when_the_settings_say_so() {
    let upstream = Upstream::start();
    let gateway = Gateway::start_in(unwritable(), &sections(&upstream, "accept"));
    assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), DELIVERED);
    wait_until("the failure to be seen", || gateway.admin("/readyz").status == 503);
    assert_eq!(Github::delivery("2", "2").send(gateway.address()).text(), DELIVERED);
    assert_eq!(upstream.ids(), ["1", "2"]);
    assert_eq!(upstream.received()[1].header("doorward-deduplicated"), Some("false"));
    assert_eq!(gateway.metric(r#"doorward_undeduplicated_total{source="github"}"#), 1.0);
}

fn sections(upstream: &Upstream, on_outage: &str) -> String {
    format!("{}[store]\nurl = \"sqlite:store.db\"\non_outage = \"{on_outage}\"\n", Github::source(&upstream.url()))
}

/// A folder with a store's file that takes no more events: a trigger refuses them, as a full disk would.
fn unwritable() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |folder: TempDir| {
        let gateway = Gateway::start_in(folder, "[store]\nurl = \"sqlite:store.db\"\n");
        gateway.signal("TERM");
        gateway.wait().folder.expect("its folder")
    };
    let folder = start(folder);
    rusqlite::Connection::open(folder.path().join("store.db"))
        .and_then(|file| {
            file.execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON finished BEGIN SELECT RAISE(FAIL, 'no room'); END;",
            )
        })
        .expect("a trigger");
    folder
}
