//! Formats events and their deliveries, as the API returns them, for the terminal.

use base64::Engine as _;
use serde_json::Value;

use crate::base::escape;

/// One line for each delivery.
pub(super) fn table(deliveries: &[Value]) -> String {
    const KEYS: [&str; 8] = ["source", "number", "destination", "state", "type", "id", "attempts", "received_at"];
    let head = ["SOURCE", "NUMBER", "DESTINATION", "STATE", "TYPE", "ID", "ATTEMPTS", "RECEIVED", "REASON"];
    let row = |delivery: &Value| {
        let mut row: Vec<_> = KEYS.iter().map(|key| text(delivery.get(key))).collect();
        row.push(reason(delivery).unwrap_or_else(|| "-".to_owned()));
        row
    };
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned).to_vec()).chain(deliveries.iter().map(row)).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Why a delivery is not delivered yet.
fn reason(delivery: &Value) -> Option<String> {
    let is_there = |key: &str| delivery.get(key).filter(|value| !value.is_null());
    let open = is_there("breaker_open_until").map(|until| format!("circuit breaker open until {}", text(Some(until))));
    let reasons: Vec<_> = is_there("reason").map(|reason| text(Some(reason))).into_iter().chain(open).collect();
    Some(reasons.join("; ")).filter(|reasons| !reasons.is_empty())
}

/// A line for each member that is not null, with its title.
fn members(object: &Value, titles: &[(&str, &str)], lines: &mut Vec<String>) {
    for (title, key) in titles {
        if let Some(value) = object.get(key).filter(|value| !value.is_null()) {
            lines.push(format!("{title:<14}{}", text(Some(value))));
        }
    }
}

fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// An event with its deliveries and its request.
pub(super) fn event(event: &Value) -> String {
    let mut lines = Vec::new();
    let titles =
        [("source", "source"), ("number", "number"), ("type", "type"), ("id", "id"), ("received", "received_at")];
    members(event, &titles, &mut lines);
    for delivery in list(event, "deliveries") {
        lines.push(String::new());
        let titles = [("destination", "destination"), ("state", "state"), ("attempts", "attempts")];
        members(delivery, &titles, &mut lines);
        let titles = [("last attempt", "last_attempt_at"), ("next attempt", "next_attempt_at")];
        members(delivery, &titles, &mut lines);
        lines.extend(reason(delivery).map(|reason| format!("{:<14}{reason}", "reason")));
        members(delivery, &[("answer", "status")], &mut lines);
        let answer = delivery.pointer("/answer/body").and_then(Value::as_str).unwrap_or_default();
        lines.extend(answer.lines().map(|line| format!("{:<14}{line}", "")));
        for failure in list(delivery, "failures") {
            let [at, took, reason] = ["at", "took_ms", "reason"].map(|key| text(failure.get(key)));
            lines.push(format!("{:<14}{at}  {reason} ({took} ms)", "failed"));
        }
    }
    lines.push(String::new());
    let Some(request) = event.get("request").filter(|request| !request.is_null()) else {
        lines.push("What is to be delivered was damaged on disk; it is kept, but cannot be delivered.".to_owned());
        return lines.join("\n");
    };
    lines.push(text(request.get("method")));
    for header in list(request, "headers") {
        lines.push(format!("{}: {}", text(header.get(0)), text(header.get(1))));
    }
    lines.push(String::new());
    match (request.get("body").and_then(Value::as_str), request.get("body_base64").and_then(Value::as_str)) {
        (Some(body), _) => lines.extend(body.lines().map(str::to_owned)),
        (None, None) => lines.push("(not shown: nobody can tell where in it the provider's secret is)".to_owned()),
        (None, binary) => {
            let bytes = binary.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
            lines.push(format!("({} bytes that are no text; --json has them)", bytes.unwrap_or_default().len()));
        }
    }
    lines.join("\n")
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => escape::line(text).into_owned(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => other.to_string(),
    }
}
