//! Encodes messages as entries of the stream, and decodes the entries and deliveries that scripts return.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use redis::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::Record;
use crate::base::time::Moment;
use crate::message::Message;
use crate::message::codec;
use crate::store::DestinationId;
use crate::store::MessageId;
use crate::store::Route;
use crate::store::State;
use crate::store::Summary;
use crate::store::Tries;
use crate::verify::event_key::Lane;

/// The fields of an entry. Scripts expect the first two: `to` (destinations with lanes) and `weight`. What lists do not
/// show is in two fields only, `request` and `body`, because each field costs time in Redis.
pub(super) fn fields<'m>(message: &'m Message, to: &[Route]) -> Vec<(&'static str, Cow<'m, [u8]>)> {
    let to: Vec<_> = to.iter().map(destination).collect();
    let mut fields = Vec::with_capacity(7);
    fields.push(("to", Cow::Owned(to.join(" ").into_bytes())));
    fields.push(("weight", Cow::Owned(message.weight().to_string().into_bytes())));
    fields.push(("id", Cow::Borrowed(message.event_id.as_bytes())));
    if let Some(kind) = &message.kind {
        fields.push(("type", Cow::Borrowed(kind.as_bytes())));
    }
    fields.push(("received_at", Cow::Owned(message.received_at.millis().to_string().into_bytes())));
    fields.push(("request", Cow::Owned(Request::written(message).into_bytes())));
    fields.push(("body", Cow::Borrowed(&message.body)));
    fields
}

/// The other parts of the request, as JSON.
#[derive(Deserialize)]
struct Request<'j> {
    method: String,
    target: String,
    trace: Option<String>,
    verified: bool,
    #[serde(borrow)]
    headers: &'j RawValue,
}

impl Request<'_> {
    fn written(message: &Message) -> String {
        // A method is a token, in which nothing has to be escaped.
        let Message { method, verified, .. } = message;
        let target = serde_json::Value::from(&*message.target);
        let trace = serde_json::Value::from(message.trace.as_ref().map(codec::text));
        let headers = codec::to_json(codec::pairs(&message.headers));
        format!(
            r#"{{"method":"{method}","target":{target},"trace":{trace},"verified":{verified},"headers":{headers}}}"#
        )
    }
}

fn destination(route: &Route) -> String {
    let name = &route.queue.id().name;
    route.lane.map_or_else(|| name.clone(), |lane| format!("{name}={}", lane_name(lane)))
}

/// The name of a lane in Redis.
pub(super) fn lane_name(lane: Lane) -> String {
    format!("{:016x}", lane.0)
}

/// A delivery that `take.lua` returns.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) tries: Tries,
    pub(super) lane: Option<Lane>,
    /// Absent when it is damaged.
    pub(super) message: Option<Arc<Message>>,
}

impl Entry {
    /// Reads id, fields and record; `None` when the id cannot be read.
    pub(super) fn read(destination: &DestinationId, answer: Value) -> Option<Self> {
        let [id, fields, record] = parts(answer)?;
        let id = text(&id)?.parse().ok()?;
        let fields = Fields::read(fields).unwrap_or_default();
        let lane = fields.lane(&destination.name);
        let tries = text(&record).and_then(Record::parse).map(|record| record.tries);
        let lane_of_message = lane.filter(|_| tries.is_some());
        let message = lane_of_message.and_then(|_lane| fields.message(&destination.source)).map(Arc::new);
        Some(Self { id, tries: tries.unwrap_or_default(), lane: lane.flatten(), message })
    }
}

/// A row of a list: id, record, due time, 1 when it is blocked, and fields.
pub(super) fn summary(destination: &DestinationId, row: Value) -> Option<Summary> {
    let [id, record, due, blocked, fields] = parts(row)?;
    row_of(destination, (&id, &record, &due, &blocked), Fields::read(fields).unwrap_or_default())
}

/// A row with all fields of the message, and the message; `None` for that when it is damaged.
pub(super) fn details(destination: &DestinationId, row: Value) -> Option<(Summary, Option<Arc<Message>>)> {
    let [id, record, due, blocked, fields] = parts(row)?;
    let fields = Fields::read(fields).unwrap_or_default();
    let summary = row_of(destination, (&id, &record, &due, &blocked), fields.clone())?;
    let message = fields.lane(&destination.name).and_then(|_lane| fields.message(&destination.source));
    Some((summary, message.map(Arc::new)))
}

fn row_of(
    destination: &DestinationId,
    (id, record, due, blocked): (&Value, &Value, &Value, &Value),
    mut fields: Fields,
) -> Option<Summary> {
    let id: MessageId = text(id)?.parse().ok()?;
    let record = text(record).and_then(Record::parse).unwrap_or_else(Record::first);
    let state = if *blocked == Value::Int(1) { State::Blocked } else { record.state };
    let stored_at = Moment::from_millis(i64::try_from(id.millis).unwrap_or(i64::MAX));
    let received_at = fields.text("received_at").and_then(|at| at.parse().ok()).map(Moment::from_millis);
    let due = text(due).and_then(|due| due.parse::<f64>().ok()).map(|due| Moment::from_millis(whole_millis(due)));
    Some(Summary {
        source: destination.source.clone(),
        destination: destination.name.clone(),
        id,
        event_id: fields.take("id").and_then(readable).unwrap_or_default(),
        kind: fields.take("type").and_then(readable),
        received_at: received_at.unwrap_or(stored_at),
        state,
        attempts: record.tries.attempts,
        due: due.filter(|_| state == State::Retrying),
        settled_at: record.settled,
        status: record.status,
        failures: record.tries.failures,
    })
}

/// Whole milliseconds of microseconds.
fn whole_millis(micros: f64) -> i64 {
    format!("{:.0}", (micros / 1000.0).floor()).parse().unwrap_or(0)
}

fn readable(value: Value) -> Option<String> {
    header(value).as_ref().map(codec::text)
}

/// The fields of an entry: names and values.
#[derive(Debug, Default, Clone)]
struct Fields(Vec<(Value, Value)>);

impl Fields {
    fn read(answer: Value) -> Option<Self> {
        let Value::Array(parts) = answer else { return None };
        let mut parts = parts.into_iter();
        Some(Self(std::iter::from_fn(|| parts.next().zip(parts.next())).collect()))
    }

    fn position(&self, name: &str) -> Option<usize> {
        let is_it = |known: &Value| matches!(known, Value::BulkString(known) if known == name.as_bytes());
        self.0.iter().position(|(known, _)| is_it(known))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(self.position(name)?).and_then(|(_, value)| text(value))
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        Some(self.0.swap_remove(self.position(name)?).1)
    }

    /// The lane of the delivery to the destination of this name, if any; `None` when there is no such delivery.
    #[expect(clippy::option_option, reason = "whether it goes there, and whether it has a lane there")]
    fn lane(&self, destination: &str) -> Option<Option<Lane>> {
        self.text("to")?.split(' ').find_map(|named| match named.split_once('=') {
            None => (named == destination).then_some(None),
            Some((name, lane)) if name == destination => Some(Some(Lane(u64::from_str_radix(lane, 16).ok()?))),
            Some(_) => None,
        })
    }

    fn message(mut self, source: &str) -> Option<Message> {
        let Request { method, target, trace, verified, headers } = serde_json::from_str(self.text("request")?).ok()?;
        let (method, headers) = (method.parse::<Method>().ok()?, codec::from_json(headers.get())?);
        let trace = match trace {
            Some(trace) => Some(codec::value(&trace)?),
            None => None,
        };
        let kind = match self.take("type") {
            Some(kind) => Some(header(kind)?),
            None => None,
        };
        Some(Message {
            source: HeaderValue::from_str(source).ok()?,
            event_id: header(self.take("id")?)?,
            kind,
            received_at: Moment::from_millis(self.text("received_at")?.parse().ok()?),
            method,
            headers,
            body: bytes(self.take("body")?)?,
            target: target.into(),
            trace,
            verified,
            keys: None,
        })
    }
}

/// An array of exactly `N` elements.
pub(super) fn parts<const N: usize>(answer: Value) -> Option<[Value; N]> {
    let Value::Array(parts) = answer else { return None };
    parts.try_into().ok()
}

fn bytes(value: Value) -> Option<Bytes> {
    let Value::BulkString(bytes) = value else { return None };
    Some(Bytes::from(bytes))
}

pub(super) fn text(value: &Value) -> Option<&str> {
    let Value::BulkString(bytes) = value else { return None };
    str::from_utf8(bytes).ok()
}

fn header(value: Value) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes(value)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Queue;

    const NAMES: [&str; 7] = ["to", "id", "type", "received_at", "request", "body", "other"];

    fn bulk(text: impl Into<Vec<u8>>) -> Value {
        Value::BulkString(text.into())
    }

    fn shop() -> DestinationId {
        DestinationId::unnamed("shop")
    }

    fn to(name: &str, lane: Option<Lane>) -> Route {
        Route { queue: Queue::new(DestinationId { name: name.to_owned(), ..shop() }, 0), lane }
    }

    fn entry(message: &Message, lane: Option<Lane>, record: &str) -> Value {
        let routes = [to("other", Some(Lane(1))), to(DestinationId::DEFAULT, lane)];
        let fields = fields(message, &routes).into_iter().flat_map(|(name, value)| [bulk(name), bulk(value.as_ref())]);
        Value::Array(vec![bulk("12-3"), Value::Array(fields.collect()), bulk(record)])
    }

    #[test]
    fn what_is_damaged_still_has_its_id_and_lane() {
        let lane = Some(Lane(7));
        let message = Message::example();
        let read = Entry::read(&shop(), entry(&message, lane, "R2,1,5,,;")).expect("an entry");
        assert_eq!((read.id, read.tries.attempts), (MessageId { millis: 12, sequence: 3 }, 2));
        assert_eq!(read.message.as_deref(), Some(&message));
        let Value::Array(mut parts) = entry(&message, lane, "") else { panic!("an array") };
        parts[1] = Value::Array(vec![bulk("to"), bulk("default=0000000000000007"), bulk("id")]);
        let read = Entry::read(&shop(), Value::Array(parts)).expect("an entry");
        assert_eq!((read.message, read.lane), (None, lane));
        let read = Entry::read(&shop(), entry(&message, lane, "no record")).expect("an entry");
        assert_eq!((read.message, read.lane), (None, lane));
        assert!(Entry::read(&shop(), Value::Nil).is_none());
    }

    #[test]
    fn more_headers_than_there_may_be_are_damage() {
        let Value::Array(mut parts) = entry(&Message::example(), None, "") else { panic!("an array") };
        let Value::Array(fields) = &mut parts[1] else { panic!("an array") };
        let at = fields.iter().position(|field| *field == bulk("request")).expect("a request") + 1;
        let many: Vec<_> = (0..33_000).map(|number| format!("[\"x-{number}\",\"\"]")).collect();
        let request =
            text(&fields[at]).expect("JSON").replace("\"headers\":[", &format!("\"headers\":[{},", many.join(",")));
        fields[at] = bulk(request);
        let read = Entry::read(&shop(), Value::Array(parts)).expect("an entry");
        assert_eq!(read.message, None);
    }

    proptest! {
        #[test]
        fn any_message_comes_back_as_it_was(message in Message::any(), lane in proptest::option::of(any::<u64>())) {
            let lane = lane.map(Lane);
            let read = Entry::read(&shop(), entry(&message, lane, "")).expect("an entry");
            prop_assert_eq!(read.lane, lane);
            prop_assert_eq!(read.message.as_deref(), Some(&message));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            names in proptest::collection::vec(proptest::sample::select(NAMES.to_vec()), 0..12),
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 12),
            record in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let fields = || names.iter().zip(&values).flat_map(|(name, value)| [bulk(*name), bulk(value.clone())]).collect();
            let entry = Value::Array(vec![bulk("12-3"), Value::Array(fields()), bulk(record.clone())]);
            prop_assert!(Entry::read(&shop(), entry).is_some());
            let row = vec![bulk("12-3"), bulk(record), bulk(""), Value::Int(1), Value::Array(fields())];
            prop_assert!(details(&shop(), Value::Array(row)).is_some());
        }
    }
}
