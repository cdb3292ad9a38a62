//! Gateways with a queue: their sources, the answers to what they queue, and what is in it.

use crate::harness::gateway::Gateway;
use crate::harness::provider::github::Github;

pub const QUEUED: &str = r#"{"received":true}"#;
pub const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

/// A GitHub source with a queue, whose table has these keys besides `url`, and a SQLite store.
pub fn queued_in_sqlite(upstream: &str, more: &str) -> String {
    let source = Github::delivering(&format!("queue = {{ url = \"{upstream}\"{more} }}"));
    format!("{source}[store]\nurl = \"sqlite:store.db\"\n")
}

/// A GitHub source with a queue, whose table has these keys besides `url`, on this Redis. Others take over after 6
/// seconds.
pub fn queued_in_redis(upstream: &str, more: &str, redis: &str) -> String {
    queued_in_redis_with(upstream, &format!(", timeout = \"1s\"{more}"), redis, "lease = \"6s\"")
}

/// The same with more about the store.
pub fn queued_in_redis_with(upstream: &str, more: &str, redis: &str, store: &str) -> String {
    let source = Github::delivering(&format!("queue = {{ url = \"{upstream}\"{more} }}"));
    format!("{source}[store]\nurl = \"{redis}\"\n{store}\n")
}

/// The events in this state, as the metrics show them.
pub fn queued_events(gateway: &Gateway, state: &str) -> f64 {
    gateway.metric(&format!(r#"doorward_queue_events{{destination="default",source="github",state="{state}"}}"#))
}
