//! What is read out of a JSON body is what every other parser finds there.
#![no_main]

use bytes::Bytes;
use doorward::json::MAX_DEPTH;
use doorward::json::Pointer;
use doorward::json::Pointers;
use doorward::json::Value;
use doorward_fuzz::Json;
use doorward_fuzz::Twice;
use doorward_fuzz::cut;
use libfuzzer_sys::fuzz_target;

// Pointers, one a line; an empty line; the document.
fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut pointers = Pointers::default();
    let mut wanted = Vec::new();
    while let Some((line, after)) = cut(rest, b'\n') {
        rest = after;
        let Ok(text) = std::str::from_utf8(line) else { continue };
        if text.is_empty() {
            break;
        }
        if let Ok(pointer) = Pointer::parse(text) {
            assert_eq!(Pointer::parse(&pointer.to_string()).as_ref(), Ok(&pointer));
            wanted.push((pointers.want(&pointer), pointer));
        }
    }
    let ours = pointers.extract(&Bytes::copy_from_slice(rest)).ok();
    let document = serde_json::from_slice::<Json>(rest).ok().filter(|document| document.depth() <= MAX_DEPTH);
    let theirs = document.and_then(|document| {
        let values = wanted.iter().map(|(_, pointer)| found(&document, pointer.tokens()));
        values.collect::<Result<Vec<_>, Twice>>().ok()
    });
    let ours = ours.map(|fields| wanted.iter().map(|(slot, _)| fields.get(*slot).clone()).collect::<Vec<_>>());
    assert_eq!(ours, theirs, "{wanted:?}");
});

/// What stands where the tokens lead.
fn found(value: &Json, tokens: &[String]) -> Result<Value, Twice> {
    let Some((token, rest)) = tokens.split_first() else {
        return Ok(match value {
            Json::Null => Value::Null,
            Json::Text(text) => Value::Text(Bytes::copy_from_slice(text.as_bytes())),
            Json::Integer(text) => Value::Text(Bytes::copy_from_slice(text.as_bytes())),
            Json::Other | Json::Array(_) | Json::Object(_) => Value::Other,
        });
    };
    match value {
        Json::Array(items) if token == "*" => {
            let mut each = Vec::new();
            for item in items {
                match found(item, rest)? {
                    Value::Each(inner) => each.extend(inner),
                    one => each.push(one),
                }
            }
            Ok(Value::Each(each))
        }
        Json::Array(items) => {
            let item = items.iter().enumerate().find(|(index, _)| index.to_string() == *token);
            item.map_or(Ok(Value::Absent), |(_, item)| found(item, rest))
        }
        // A number is a position in an array and nothing else.
        Json::Object(_) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Value::Absent),
        Json::Object(_) => value.member(token)?.map_or(Ok(Value::Absent), |member| found(member, rest)),
        Json::Null | Json::Text(_) | Json::Integer(_) | Json::Other => Ok(Value::Absent),
    }
}
