//! Operators: whoever asks the API of a gateway.

use std::net::SocketAddr;
use std::net::UdpSocket;

use serde_json::Value;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::exchange;
use crate::harness::provider::github::Github;
use crate::harness::wait_until;

/// The token of the gateways in these tests.
pub const TOKEN: &str = "a-token-for-the-operators";

/// A GitHub source with a queue, whose events wait for long after their first attempt, and an API with the token.
pub fn queue_with_api(upstream: &str) -> String {
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
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        exchange(self.admin_address(), request.as_bytes())
    }

    /// The admin port by an address of this machine that is not of its loopback, where it has one.
    pub fn admin_from_elsewhere(&self) -> Option<SocketAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // Nothing is sent; the kernel chooses the address that it would send from.
        socket.connect("192.0.2.1:9").ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback()).then(|| SocketAddr::from((ip, self.admin_address().port())))
    }

    /// Asks the API as another machine would, with these lines of headers.
    #[track_caller]
    pub fn asked_from_elsewhere(&self, method: &str, target: &str, headers: &str) -> Answer {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
        );
        exchange(self.admin_from_elsewhere().expect("an address that is not of the loopback"), request.as_bytes())
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
