//! Queued messages as entries of a stream.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use redis::Value;

use super::record::Record;
use crate::event::Lane;
use crate::message::Message;
use crate::message::codec;
use crate::store::queued::Number;
use crate::store::queued::State;
use crate::store::queued::Summary;
use crate::store::queued::Tries;
use crate::time::Moment;

/// The fields of an entry. The lane stands first, where the scripts look for it.
pub(super) fn fields(message: &Message) -> Vec<(&'static str, Cow<'_, [u8]>)> {
    let mut fields = Vec::with_capacity(10);
    if let Some(lane) = message.lane {
        fields.push(("lane", Cow::Owned(lane_name(lane).into_bytes())));
    }
    fields.push(("id", Cow::Borrowed(message.event_id.as_bytes())));
    if let Some(kind) = &message.kind {
        fields.push(("type", Cow::Borrowed(kind.as_bytes())));
    }
    fields.push(("received_at", Cow::Owned(message.received_at.millis().to_string().into_bytes())));
    fields.push(("method", Cow::Borrowed(message.method.as_str().as_bytes())));
    fields.push(("target", Cow::Borrowed(message.target.as_bytes())));
    if let Some(trace) = &message.trace {
        fields.push(("trace", Cow::Borrowed(trace.as_bytes())));
    }
    fields.push(("verified", Cow::Borrowed(if message.verified { b"true" } else { b"false" })));
    fields.push(("headers", Cow::Owned(codec::to_json(codec::pairs(&message.headers)).into_bytes())));
    fields.push(("body", Cow::Borrowed(&message.body)));
    fields
}

/// A lane as it stands in an entry.
pub(super) fn lane_name(lane: Lane) -> String {
    format!("{:016x}", lane.0)
}

/// An entry as the scripts hand it out.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: Number,
    pub(super) tries: Tries,
    pub(super) lane: Option<Lane>,
    /// Nothing when it is not what was written.
    pub(super) message: Option<Arc<Message>>,
}

impl Entry {
    /// Reads number, fields and record of an entry of this source; `None` when not even the number can be read.
    pub(super) fn read(source: &str, answer: Value) -> Option<Self> {
        let Value::Array(parts) = answer else { return None };
        let [number, fields, record]: [Value; 3] = parts.try_into().ok()?;
        let number = text(&number)?.parse().ok()?;
        let mut fields = Fields::read(fields)?;
        let lane = fields.lane.take().and_then(|lane| u64::from_str_radix(text(&lane)?, 16).ok().map(Lane));
        let tries = text(&record).and_then(Record::parse).map(|record| record.tries);
        let message = tries.and_then(|_| fields.message(source, lane)).map(Arc::new);
        Some(Self { number, tries: tries.unwrap_or_default(), lane, message })
    }
}

/// What a list shows of an event, from number, record, due time and fields.
pub(super) fn summary(source: &str, answer: Value) -> Option<Summary> {
    let Value::Array(parts) = answer else { return None };
    let [number, record, due, fields]: [Value; 4] = parts.try_into().ok()?;
    let fields = Fields::read(fields)?;
    let record = text(&record).and_then(Record::parse);
    let state = record.as_ref().map_or(State::Queued, |record| record.state);
    let attempts = record.as_ref().map_or(0, |record| record.tries.attempts);
    let notes = record.map(|record| record.notes).unwrap_or_default();
    let millis = |value: &Value| text(value)?.parse().ok().map(Moment::from_millis);
    let number: Number = text(&number)?.parse().ok()?;
    let queued_at = Moment::from_millis(i64::try_from(number.millis).unwrap_or(i64::MAX));
    Some(Summary {
        source: source.to_owned(),
        number,
        id: fields.id.and_then(readable).unwrap_or_default(),
        kind: fields.kind.and_then(readable),
        received_at: fields.received_at.as_ref().and_then(millis).unwrap_or(queued_at),
        state,
        attempts,
        // What is due at once has no time.
        due: millis(&due).filter(|due| state == State::Retrying && due.millis() > 0),
        settled_at: notes.settled.map(Moment::from_millis),
        reason: notes.reason,
        answer: notes.answer,
    })
}

fn readable(value: Value) -> Option<String> {
    header(value).as_ref().map(codec::text)
}

#[derive(Debug, Default)]
struct Fields {
    lane: Option<Value>,
    id: Option<Value>,
    kind: Option<Value>,
    received_at: Option<Value>,
    method: Option<Value>,
    target: Option<Value>,
    trace: Option<Value>,
    verified: Option<Value>,
    headers: Option<Value>,
    body: Option<Value>,
}

impl Fields {
    fn read(answer: Value) -> Option<Self> {
        let Value::Array(parts) = answer else { return None };
        let mut fields = Self::default();
        let mut parts = parts.into_iter();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let field = match text(&name) {
                Some("lane") => &mut fields.lane,
                Some("id") => &mut fields.id,
                Some("type") => &mut fields.kind,
                Some("received_at") => &mut fields.received_at,
                Some("method") => &mut fields.method,
                Some("target") => &mut fields.target,
                Some("trace") => &mut fields.trace,
                Some("verified") => &mut fields.verified,
                Some("headers") => &mut fields.headers,
                Some("body") => &mut fields.body,
                _ => continue,
            };
            *field = Some(value);
        }
        Some(fields)
    }

    fn message(self, source: &str, lane: Option<Lane>) -> Option<Message> {
        let optional = |field: Option<Value>| match field {
            Some(value) => header(value).map(Some),
            None => Some(None),
        };
        Some(Message {
            source: HeaderValue::from_str(source).ok()?,
            event_id: header(self.id?)?,
            kind: optional(self.kind)?,
            received_at: Moment::from_millis(text(&self.received_at?)?.parse().ok()?),
            method: Method::from_bytes(&bytes(self.method?)?).ok()?,
            headers: codec::from_json(text(&self.headers?)?)?,
            body: bytes(self.body?)?,
            target: text(&self.target?)?.into(),
            trace: optional(self.trace)?,
            verified: match text(&self.verified?)? {
                "true" => true,
                "false" => false,
                _ => return None,
            },
            keys: None,
            lane,
        })
    }
}

fn bytes(value: Value) -> Option<Bytes> {
    let Value::BulkString(bytes) = value else { return None };
    Some(Bytes::from(bytes))
}

fn text(value: &Value) -> Option<&str> {
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

    const NAMES: [&str; 11] =
        ["lane", "id", "type", "received_at", "method", "target", "trace", "verified", "headers", "body", "other"];

    fn bulk(text: impl Into<Vec<u8>>) -> Value {
        Value::BulkString(text.into())
    }

    const SOURCE: &str = "shop";

    fn entry(message: &Message, record: &str) -> Value {
        let fields = fields(message).into_iter().flat_map(|(name, value)| [bulk(name), bulk(value.as_ref())]);
        Value::Array(vec![bulk("12-3"), Value::Array(fields.collect()), bulk(record)])
    }

    fn message(lane: Option<Lane>) -> Message {
        let odd = HeaderValue::from_bytes(b"caf\xe9").expect("a value");
        let headers = vec![(http::HeaderName::from_static("x-a"), odd)];
        Message {
            event_id: HeaderValue::from_bytes(b"\xe9-1").expect("a value"),
            kind: lane.map(|_| HeaderValue::from_static("push")),
            received_at: Moment::from_millis(1_700_000_000_123),
            headers,
            body: Bytes::from_static(b"\0\xff"),
            target: "/in?a=%2f".into(),
            trace: lane.map(|_| HeaderValue::from_static("00-1")),
            verified: lane.is_none(),
            lane,
            ..Message::example()
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        for lane in [None, Some(Lane(7)), Some(Lane(u64::MAX))] {
            let message = message(lane);
            let read = Entry::read(SOURCE, entry(&message, "R2,1;{\"replayed\":5}")).expect("an entry");
            assert_eq!(read.number, Number { millis: 12, sequence: 3 });
            assert_eq!(read.tries.attempts, 2);
            assert_eq!(read.message.as_deref(), Some(&message));
            assert_eq!(read.lane, lane);
        }
    }

    #[test]
    fn what_is_damaged_still_has_its_number_and_lane() {
        let lane = Some(Lane(7));
        let Value::Array(mut parts) = entry(&message(lane), "") else { panic!("an array") };
        parts[1] = Value::Array(vec![bulk("lane"), bulk(lane_name(Lane(7))), bulk("id")]);
        let read = Entry::read(SOURCE, Value::Array(parts)).expect("an entry");
        assert_eq!((read.message, read.lane), (None, lane));
        let read = Entry::read(SOURCE, entry(&message(lane), "no record")).expect("an entry");
        assert_eq!((read.message, read.lane), (None, lane));
        assert!(Entry::read(SOURCE, Value::Nil).is_none());
    }

    proptest! {
        #[test]
        fn any_message_comes_back_as_it_was(message in Message::any()) {
            let read = Entry::read(SOURCE, entry(&message, "")).expect("an entry");
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
            prop_assert!(Entry::read(SOURCE, entry).is_some());
            let shown = Value::Array(vec![bulk("12-3"), bulk(record), bulk(""), Value::Array(fields())]);
            prop_assert!(summary(SOURCE, shown).is_some());
        }
    }
}
