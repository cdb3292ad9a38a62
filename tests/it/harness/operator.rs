//! Operators: whoever asks the API of a gateway.

use serde_json::Value;

use super::Answer;
use super::Gateway;
use super::Github;
use super::Reply;
use super::Upstream;
use super::exchange;
use super::wait_until;

/// The token of the gateways in these tests.
pub const TOKEN: &str = "a-token-for-the-operators";

/// An upstream that refuses for good what is called `dead…`, for now what is called `later…`, and takes the rest.
pub fn picky() -> Upstream {
    Upstream::with(|_, message| match message.header("doorward-event-id").unwrap_or_default() {
        id if id.starts_with("dead") => Reply::Status(422, "no such order"),
        id if id.starts_with("later") => Reply::Status(500, "later"),
        _ => Reply::Status(200, ""),
    })
}

/// A GitHub source with a queue, whose events wait for long after their first attempt, and an API with the token.
pub fn steerable(upstream: &str) -> String {
    let source =
        Github::delivering(&format!("queue = {{ url = \"{upstream}\", backoff = \"24h\", max_backoff = \"24h\" }}"));
    format!("{source}[store]\nurl = \"sqlite:store.db\"\n[admin]\ntoken = \"plain:{TOKEN}\"\n")
}

impl Gateway {
    /// Asks the API with the token.
    #[track_caller]
    pub fn api(&self, method: &str, target: &str, body: &str) -> Answer {
        let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
        self.api_with(method, target, &authorization, body)
    }

    /// Asks the API with these lines of headers.
    #[track_caller]
    pub fn api_with(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        exchange(self.admin_address(), request.as_bytes())
    }

    /// The events that a list has.
    #[track_caller]
    pub fn events(&self, query: &str) -> Vec<Value> {
        let answer = self.api("GET", &format!("/api/v1/events?{query}"), "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["events"].as_array().expect("an array").clone()
    }

    /// Waits until that many events are in this state.
    #[track_caller]
    pub fn wait_for_events(&self, state: &str, count: usize) {
        wait_until(&format!("{count} events to be {state}"), || {
            self.events(&format!("state={state}&limit=1000")).len() == count
        });
    }

    /// Sends events with these ids, each with its id as the body.
    #[track_caller]
    pub fn take(&self, ids: &[&str]) {
        for id in ids {
            assert_eq!(Github::delivery(id, *id).send(self.address()).status, 200, "{id}");
        }
    }
}
