//! Each event gets through once: the same suite over every store.

use std::net::SocketAddr;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

macro_rules! over_every_store {
    ($($test:ident)*) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&super::Store::memory()); })*
        }
        mod sqlite {
            $(#[test] fn $test() { super::$test(&super::Store::sqlite()); })*
        }
        mod redis {
            $(#[test] fn $test() { super::$test(&super::Store::redis()); })*
        }
    };
}

over_every_store! {
    a_finished_event_is_acknowledged_and_not_delivered_again
    copies_that_come_together_are_delivered_once
    copies_that_wait_for_a_failing_delivery_are_told_to_come_again
    an_event_whose_upstream_answered_with_an_error_is_delivered_at_the_next_attempt
    an_event_whose_upstream_was_not_there_is_delivered_at_the_next_attempt
    an_event_whose_upstream_closed_without_an_answer_is_held_for_a_while
    an_event_whose_upstream_was_too_slow_is_held_for_a_while
    another_body_under_a_known_id_is_a_duplicate
    the_same_id_at_two_sources_is_two_events
    an_event_is_forgotten_after_its_ttl
    what_the_profile_says_is_unique_is_delivered_every_time
}

fn a_finished_event_is_acknowledged_and_not_delivered_again(store: &Store) {
    let upstream = Upstream::start();
    let gateway = store.gateway(&Github::source(&upstream.url()));
    let delivery = Github::delivery("one", "{}");
    assert_eq!(delivery.send(gateway.address()).text(), r#"{"ok":true}"#);
    for _ in 0..3 {
        let again = delivery.send(gateway.address());
        assert_eq!((again.status, again.text().as_str()), (200, DUPLICATE));
        assert_eq!(again.header("content-type"), Some("application/json"));
    }
    assert_eq!(upstream.ids(), ["one"]);
}

/// Dropbox says which accounts changed, so that two changes of one account have the same bytes.
fn what_the_profile_says_is_unique_is_delivered_every_time(store: &Store) {
    let upstream = Upstream::start();
    let source = format!(
        "[sources.dropbox]\nprofile = \"dropbox\"\npath = \"/d\"\nsecrets = [\"plain:{SECRET}\"]\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        upstream.url()
    );
    let gateway = store.gateway(&source);
    let body = br#"{"list_folder":{"accounts":["dbid:1"]}}"#.to_vec();
    let signature = hmac_hex(SECRET, &[&body]);
    let notification = Github::delivery("", body).to("/d").with("X-Dropbox-Signature", &signature);
    for _ in 0..3 {
        assert_eq!(notification.send(gateway.address()).text(), r#"{"ok":true}"#);
    }
    let ids = upstream.ids();
    assert_eq!((ids.len(), ids[0] != ids[1] && ids[1] != ids[2]), (3, true), "{ids:?}");
}

fn copies_that_come_together_are_delivered_once(store: &Store) {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = store.gateway(&Github::source(&upstream.url()));
    let answers = together(50, &Github::delivery("one", "{}"), &gateway, || upstream.release());
    let duplicates = answers.iter().filter(|answer| answer.text() == DUPLICATE).count();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(duplicates, 49, "all but one waited for the outcome");
    assert_eq!(upstream.ids(), ["one"]);
}

fn copies_that_wait_for_a_failing_delivery_are_told_to_come_again(store: &Store) {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::HoldThen(500) } else { Reply::Status(200, "") });
    let gateway = store.gateway(&Github::source(&upstream.url()));
    let delivery = Github::delivery("one", "{}");
    let answers = together(10, &delivery, &gateway, || upstream.release());
    assert_eq!(answers.iter().filter(|answer| answer.status == 500).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.asks_to_come_again()).count(), 9, "{answers:?}");
    assert_eq!(delivery.send(gateway.address()).status, 200);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    assert_eq!(upstream.ids(), ["one", "one"]);
}

fn an_event_whose_upstream_answered_with_an_error_is_delivered_at_the_next_attempt(store: &Store) {
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Status(500, "out of order"),
        1 => Reply::Status(404, "not here"),
        2 => Reply::Raw(b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n".to_vec()),
        _ => Reply::Status(200, r#"{"ok":true}"#),
    });
    let gateway = store.gateway(&Github::source(&upstream.url()));
    let delivery = Github::delivery("one", "{}");
    let statuses: Vec<_> = (0..4).map(|_| delivery.send(gateway.address()).status).collect();
    assert_eq!(statuses, [500, 404, 502, 200]);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
}

fn an_event_whose_upstream_was_not_there_is_delivered_at_the_next_attempt(store: &Store) {
    let address = Upstream::nowhere();
    let gateway = store.gateway(&Github::source(&format!("http://{address}/app")));
    let delivery = Github::delivery("one", "{}");
    let refused = delivery.send(gateway.address());
    assert_eq!((refused.status, refused.header("retry-after")), (502, Some("1")));
    let upstream = Upstream::at(address, |_, _| Reply::Status(200, r#"{"ok":true}"#));
    assert_eq!(delivery.send(gateway.address()).text(), r#"{"ok":true}"#);
    assert_eq!(upstream.ids(), ["one"]);
}

fn an_event_whose_upstream_closed_without_an_answer_is_held_for_a_while(store: &Store) {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Close } else { Reply::Status(200, "") });
    let gateway = store.gateway(&Github::source(&upstream.url()));
    assert_held(&gateway, &upstream, 502);
}

fn an_event_whose_upstream_was_too_slow_is_held_for_a_while(store: &Store) {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Hold } else { Reply::Status(200, "") });
    let gateway = store.gateway(&delivering(upstream.address(), "500ms"));
    assert_held(&gateway, &upstream, 504);
}

/// The first delivery may have succeeded: a retry that comes at once is told to come again, and a later one gets
/// through.
#[track_caller]
fn assert_held(gateway: &Gateway, upstream: &Upstream, status: u16) {
    let delivery = Github::delivery("one", "{}");
    let first = delivery.send(gateway.address());
    assert_eq!((first.status, first.header("retry-after")), (status, Some("1")));
    let soon = delivery.send(gateway.address());
    assert!(soon.asks_to_come_again(), "{soon:?}");
    assert_eq!(upstream.ids(), ["one"]);
    wait_until("the hold to end", || delivery.send(gateway.address()).status == 200);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    assert_eq!(upstream.ids(), ["one", "one"]);
}

fn another_body_under_a_known_id_is_a_duplicate(store: &Store) {
    let upstream = Upstream::start();
    let gateway = store.gateway(&Github::source(&upstream.url()));
    assert_eq!(Github::delivery("one", "{}").send(gateway.address()).text(), r#"{"ok":true}"#);
    assert_eq!(Github::delivery("one", "{ }").send(gateway.address()).text(), DUPLICATE);
    assert_eq!(upstream.ids(), ["one"]);
}

fn the_same_id_at_two_sources_is_two_events(store: &Store) {
    let upstream = Upstream::start();
    let first = Github::source(&upstream.url());
    let second = first.replace("[sources.github]", "[sources.second]").replace("/webhooks/github", "/second");
    let gateway = store.gateway(&(first + &second));
    let delivery = Github::delivery("one", "{}");
    assert_eq!(delivery.send(gateway.address()).text(), r#"{"ok":true}"#);
    assert_eq!(delivery.clone().to("/second").send(gateway.address()).text(), r#"{"ok":true}"#);
    assert_eq!(delivery.to("/second").send(gateway.address()).text(), DUPLICATE);
    let sources: Vec<_> =
        upstream.received().iter().map(|it| it.header("doorward-source").map(str::to_owned)).collect();
    assert_eq!(sources, [Some("github".to_owned()), Some("second".to_owned())]);
}

fn an_event_is_forgotten_after_its_ttl(store: &Store) {
    let upstream = Upstream::start();
    let terms = "ttl = \"3s\"\nlease = \"2s\"\n";
    let gateway = Gateway::start(&(delivering(upstream.address(), "1s") + &store.section() + terms));
    let delivery = Github::delivery("one", "{}");
    assert_eq!(delivery.send(gateway.address()).text(), r#"{"ok":true}"#);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    wait_until("the event to be forgotten", || delivery.send(gateway.address()).text() == r#"{"ok":true}"#);
    assert_eq!(upstream.ids(), ["one", "one"]);
}

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

/// A store, with the server that it may need.
struct Store {
    url: String,
    _server: Option<Redis>,
}

impl Store {
    fn memory() -> Self {
        Self { url: "memory:".to_owned(), _server: None }
    }

    fn sqlite() -> Self {
        Self { url: "sqlite:store.db".to_owned(), _server: None }
    }

    fn redis() -> Self {
        let server = Redis::start();
        Self { url: server.url(), _server: Some(server) }
    }

    /// Patient enough for a machine that is busy.
    fn section(&self) -> String {
        format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", self.url)
    }

    #[track_caller]
    fn gateway(&self, sources: &str) -> Gateway {
        Gateway::start(&(sources.to_owned() + &self.section()))
    }
}

/// A GitHub source whose upstream may take this long.
fn delivering(upstream: SocketAddr, timeout: &str) -> String {
    Github::delivering(&format!("upstream = {{ url = \"http://{upstream}/app\", timeout = \"{timeout}\" }}"))
}

/// Sends copies of a delivery, each on a connection of its own, and lets them go when the gateway has all of them.
#[track_caller]
fn together(copies: u32, delivery: &Delivery, gateway: &Gateway, let_go: impl FnOnce()) -> Vec<Answer> {
    let address = gateway.address();
    let senders: Vec<_> = (0..copies)
        .map(|_| {
            let delivery = delivery.clone();
            std::thread::spawn(move || delivery.send(address))
        })
        .collect();
    wait_until("all copies to be in flight", || gateway.metric("doorward_in_flight_requests") == f64::from(copies));
    let_go();
    senders.into_iter().map(|sender| sender.join().expect("an answer")).collect()
}
