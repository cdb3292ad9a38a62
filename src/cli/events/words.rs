//! Queued events for people.

use base64::Engine as _;
use serde_json::Value;

use crate::escape;

/// One line for each event.
pub(super) fn table(events: &[Value]) -> String {
    let head = ["SOURCE", "NUMBER", "STATE", "TYPE", "ID", "ATTEMPTS", "RECEIVED", "REASON"].map(str::to_owned);
    let keys = ["source", "number", "state", "type", "id", "attempts", "received_at", "reason"];
    let rows: Vec<_> =
        std::iter::once(head).chain(events.iter().map(|event| keys.map(|key| text(event.get(key))))).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 8]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An event whole.
pub(super) fn event(event: &Value) -> String {
    let mut lines = Vec::new();
    for (title, key) in [
        ("source", "/source"),
        ("number", "/number"),
        ("state", "/state"),
        ("type", "/type"),
        ("id", "/id"),
        ("received", "/received_at"),
        ("attempts", "/attempts"),
        ("last attempt", "/last_attempt_at"),
        ("next attempt", "/next_attempt_at"),
        ("reason", "/reason"),
        ("answer", "/answer/status"),
    ] {
        if let Some(value) = event.pointer(key).filter(|value| !value.is_null()) {
            lines.push(format!("{title:<14}{}", text(Some(value))));
        }
    }
    let answer = event.pointer("/answer/body").and_then(Value::as_str).unwrap_or_default();
    lines.extend(answer.lines().map(|line| format!("{:<14}{line}", "")));
    lines.push(String::new());
    let Some(request) = event.get("request").filter(|request| !request.is_null()) else {
        lines.push("What is to be delivered was damaged on disk; it is kept, but cannot be delivered.".to_owned());
        return lines.join("\n");
    };
    lines.push(text(request.get("method")));
    for header in request.get("headers").and_then(Value::as_array).into_iter().flatten() {
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
