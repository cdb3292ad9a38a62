//! Lines of a gateway's log, told by their levels and fields: the words of a message are for people, and may change.

use serde_json::Value;

/// An attempt of a queue failed, and the next one is due.
pub fn is_failed_attempt(line: &Value) -> bool {
    line["level"] == "WARN" && line["due"].is_string()
}

/// A delivery of a queue was given up after an attempt.
pub fn is_dead_letter(line: &Value) -> bool {
    line["level"] == "ERROR" && line["attempt"].is_u64()
}

/// What came of deliveries cannot be recorded in Redis.
pub fn is_unrecorded(line: &Value) -> bool {
    line["level"] == "ERROR" && line["destination"].is_string() && line["error"].is_string() && line["id"].is_null()
}

/// Redis does not answer.
pub fn is_redis_lost(line: &Value) -> bool {
    line["level"] == "ERROR" && line["address"].is_string() && line["error"].is_string()
}

/// Redis answers again.
pub fn is_redis_found(line: &Value) -> bool {
    line["level"] == "INFO" && line["address"].is_string()
}

/// The circuit breaker of an endpoint has opened.
pub fn is_breaker_open(line: &Value) -> bool {
    line["level"] == "ERROR" && line["destination"].is_string() && line["reason"].is_string()
}

/// The circuit breaker of an endpoint in the queue of a file has closed.
pub fn is_breaker_closed(line: &Value) -> bool {
    line["level"] == "INFO" && line["destination"].is_string() && line["peer"].is_null()
}

/// Keys or a certificate could not be fetched.
pub fn is_failed_fetch(line: &Value) -> bool {
    line["level"] == "WARN" && line["url"].is_string() && line["error"].is_string()
}

/// The store has more finished events than it may, and forgets the oldest.
pub fn is_store_full(line: &Value) -> bool {
    line["level"] == "WARN" && line["total"].is_u64()
}

/// The store's file is older than the dedupe log: events that were acknowledged are missing in it.
pub fn is_older_than_dedupe_log(line: &Value) -> bool {
    line["level"] == "ERROR" && line["logged"].is_string()
}

/// The process may open no more files.
pub fn is_out_of_files(line: &Value) -> bool {
    let code = format!("os error {}", rustix::io::Errno::MFILE.raw_os_error());
    line["error"].as_str().is_some_and(|error| error.contains(&code))
}
