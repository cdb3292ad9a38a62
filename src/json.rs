//! Reads a few values out of a JSON body in one strict pass.
//!
//! The event id we read must be the one every other parser reads, so a document is refused when it is not UTF-8, not
//! one complete JSON value, nested deeper than [`MAX_DEPTH`], or has a key on the way to a wanted value twice
//! (RFC 8259 section 4 leaves the meaning of repeated names open).

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 64;

/// The token of a pointer that stands for every item of an array.
const EACH: &str = "*";

/// A JSON pointer (RFC 6901), split into its reference tokens. In an array, the token `*` stands for every item. A number
/// is a position in an array and no name in an object, which a sender could put in the place of an array otherwise.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/a/b`; at least one token.
    ///
    /// # Errors
    /// A message for whoever wrote the pointer.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(tokens) = text.strip_prefix('/') else {
            return Err(format!("{text:?} is not a JSON pointer; it starts with a slash, such as \"/data/id\""));
        };
        let tokens: Vec<_> = tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        if tokens.len() > MAX_DEPTH {
            return Err(format!("{text:?} is deeper than {MAX_DEPTH} levels"));
        }
        Ok(Self(tokens))
    }
}

impl Pointer {
    /// Whether it leads to something in every item of an array.
    pub fn is_each(&self) -> bool {
        self.0.iter().any(|token| token == EACH)
    }

    /// Whether the token is a position in an array.
    fn is_index(token: &str) -> bool {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// The reference tokens, unescaped.
    pub fn tokens(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Where [`Pointers::extract`] puts the value of one pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

/// The pointers that one profile wants, merged into a tree.
#[derive(Debug, Clone, Default)]
pub struct Pointers {
    root: Node,
    slots: usize,
}

#[derive(Debug, Clone, Default)]
struct Node {
    slots: Vec<usize>,
    children: Vec<(String, Self)>,
}

impl Node {
    /// The slots here and below.
    fn all_slots(&self) -> Vec<usize> {
        let below = self.children.iter().flat_map(|(_, node)| node.all_slots());
        self.slots.iter().copied().chain(below).collect()
    }

    /// What both want.
    fn merged(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.slots.extend(&other.slots);
        for (name, child) in &other.children {
            match both.children.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = known.merged(child),
                None => both.children.push((name.clone(), child.clone())),
            }
        }
        both
    }
}

impl Pointers {
    /// Asks for one more pointer; the same pointer twice shares its slot.
    pub fn want(&mut self, pointer: &Pointer) -> Slot {
        let mut node = &mut self.root;
        for token in &pointer.0 {
            let position = node.children.iter().position(|(name, _)| name == token).unwrap_or_else(|| {
                node.children.push((token.clone(), Node::default()));
                node.children.len() - 1
            });
            #[expect(clippy::indexing_slicing, reason = "the position was found or made on the line above")]
            let (_, child) = &mut node.children[position];
            node = child;
        }
        if node.slots.is_empty() {
            node.slots.push(self.slots);
        }
        let slot = node.slots.first().copied().unwrap_or_default();
        self.slots = self.slots.max(slot + 1);
        Slot(slot)
    }

    /// Whether nothing was asked for, so that a body need not be JSON at all.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Reads the whole of `body` once and keeps what was asked for.
    ///
    /// # Errors
    /// [`Malformed`] when the document is refused; see the module.
    pub fn extract(&self, body: &Bytes) -> Result<Fields, Malformed> {
        let text = std::str::from_utf8(body).map_err(|error| Malformed(error.to_string()))?;
        let mut fields = vec![Value::Absent; self.slots];
        let mut json = serde_json::Deserializer::from_str(text);
        Walk { node: Some(&self.root), depth: 0, body, fields: &mut fields }
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| Malformed(error.to_string()))?;
        Ok(Fields(fields))
    }
}

/// A document that not everybody reads alike.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// What is wrong with it.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What a pointer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Absent,
    /// `null`, which to most readers is nothing too.
    Null,
    /// A string, unescaped; or an integer, which has one way to be written.
    Text(Bytes),
    /// A number with a fraction or an exponent, `true` or `false`, an array or an object.
    Other,
    /// What a pointer with `*` found in each item of an array.
    Each(Vec<Self>),
}

/// What the pointers of a profile found in one body.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<Value>);

impl Fields {
    /// What was found for the pointer with this slot.
    pub fn get(&self, slot: Slot) -> &Value {
        self.0.get(slot.0).unwrap_or(&Value::Absent)
    }
}

/// One value of the document, of which `node` says what is wanted inside.
struct Walk<'w> {
    node: Option<&'w Node>,
    depth: usize,
    body: &'w Bytes,
    fields: &'w mut Vec<Value>,
}

impl Walk<'_> {
    fn keep(self, value: impl FnOnce(&Bytes) -> Value) {
        let Some(node) = self.node else { return };
        if let Some((first, others)) = node.slots.split_first() {
            let value = value(self.body);
            for slot in others {
                if let Some(field) = self.fields.get_mut(*slot) {
                    *field = value.clone();
                }
            }
            if let Some(field) = self.fields.get_mut(*first) {
                *field = value;
            }
        }
    }

    fn take(&mut self, slot: usize) -> Value {
        self.fields.get_mut(slot).map_or(Value::Absent, |field| std::mem::replace(field, Value::Absent))
    }

    fn inside<'v>(&'v mut self, node: Option<&'v Node>) -> Walk<'v> {
        Walk { node, depth: self.depth + 1, body: self.body, fields: &mut *self.fields }
    }

    /// Whether an array or object may stand here, empty or not.
    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            return Ok(());
        }
        Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        // The text is a slice of the body, so the body's own bytes can be shared.
        self.keep(|body| Value::Text(body.slice_ref(text.as_bytes())));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.keep(|_| Value::Text(Bytes::copy_from_slice(text.as_bytes())));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.keep(|_| Value::Text(number.to_string().into()));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.keep(|_| Value::Text(number.to_string().into()));
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.keep(|_| Value::Other);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.keep(|_| Value::Other);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.keep(|_| Value::Null);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.enter()?;
        let children = self.node.map_or(&[][..], |node| &node.children);
        let mut seen = vec![false; children.len()];
        while let Some(child) = map.next_key_seed(Key(children))? {
            let node = match child.and_then(|position| children.get(position).zip(seen.get_mut(position))) {
                Some(((name, _), true)) => {
                    return Err(A::Error::custom(format_args!("the key {name:?} is there twice")));
                }
                Some(((_, node), seen)) => {
                    *seen = true;
                    Some(node)
                }
                None => None,
            };
            map.next_value_seed(self.inside(node))?;
        }
        self.keep(|_| Value::Other);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.enter()?;
        let children = self.node.map_or(&[][..], |node| &node.children);
        let each = children.iter().find(|(name, _)| name == EACH).map(|(_, node)| node);
        let slots = each.map(Node::all_slots).unwrap_or_default();
        let mut found = vec![Vec::new(); slots.len()];
        let mut index = 0_usize;
        loop {
            let wanted = (!children.is_empty()).then(|| index.to_string());
            let node =
                wanted.and_then(|wanted| children.iter().find(|(name, _)| *name == wanted)).map(|(_, node)| node);
            let both = each.zip(node).map(|(each, node)| each.merged(node));
            if seq.next_element_seed(self.inside(both.as_ref().or(each).or(node)))?.is_none() {
                break;
            }
            for (slot, found) in slots.iter().zip(&mut found) {
                match self.take(*slot) {
                    Value::Each(inner) => found.extend(inner),
                    value @ (Value::Absent | Value::Null | Value::Text(_) | Value::Other) => found.push(value),
                }
            }
            index += 1;
        }
        for (slot, found) in slots.into_iter().zip(found) {
            if let Some(field) = self.fields.get_mut(slot) {
                *field = Value::Each(found);
            }
        }
        self.keep(|_| Value::Other);
        Ok(())
    }
}

/// An object's key: the position of the child that has this name.
struct Key<'k>(&'k [(String, Node)]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|(name, _)| name == key && !Pointer::is_index(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, body: &str) -> Result<Value, Malformed> {
        let mut pointers = Pointers::default();
        let slot = pointers.want(&Pointer::parse(pointer).expect("a pointer"));
        pointers.extract(&Bytes::copy_from_slice(body.as_bytes())).map(|fields| fields.get(slot).clone())
    }

    #[test]
    fn values_are_found_wherever_they_stand() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        assert_eq!(find("/id", r#"{"a":[{"id":"no"}],"id":"yes"}"#).expect("json"), text("yes"));
        assert_eq!(find("/a/b", r#"{"a":{"b":"\u00e9"}}"#).expect("json"), text("é"));
        assert_eq!(find("/a/1/b", r#"{"a":[0,{"b":"x"}]}"#).expect("json"), text("x"));
        assert_eq!(find("/id", r#"{"id":17}"#).expect("json"), text("17"));
        assert_eq!(find("/id", r#"{"id":-17}"#).expect("json"), text("-17"));
        assert_eq!(find("/id", r#"{"id":true}"#).expect("json"), Value::Other);
        assert_eq!(find("/id", r#"{"id":17.0}"#).expect("json"), Value::Other);
        assert_eq!(find("/id", r#"{"id":null}"#).expect("json"), Value::Null);
        assert_eq!(find("/a/0", r#"{"a":{"0":"x"}}"#).expect("json"), Value::Absent, "an object is no array");
        assert_eq!(find("/id", r#"{"id":{"id":"x"}}"#).expect("json"), Value::Other);
        assert_eq!(find("/id", r#"["id"]"#).expect("json"), Value::Absent);
    }

    #[test]
    fn a_star_finds_the_value_of_every_item() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        let each = |body| find("/a/*/b", body).expect("json");
        assert_eq!(
            each(r#"{"a":[{"b":"x"},{"c":1},{"b":"y"}]}"#),
            Value::Each(vec![text("x"), Value::Absent, text("y")])
        );
        assert_eq!(each(r#"{"a":[]}"#), Value::Each(Vec::new()));
        assert_eq!(each(r#"{"a":{"b":"x"}}"#), Value::Absent);
        assert_eq!(each("{}"), Value::Absent);
        assert_eq!(
            find("/*/b/*", r#"[{"b":["x","y"]},{"b":["z"]}]"#).expect("json"),
            Value::Each(vec![text("x"), text("y"), text("z")])
        );
    }

    #[test]
    fn documents_that_parsers_read_differently_are_refused() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in [
            "",
            "{",
            "{}x",
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
            r#"{"id":"\ud800"}"#,
            r#"{"id":"a",}"#,
            &deep,
        ] {
            assert!(find("/id", bad).is_err(), "{bad:.40}");
        }
        let mut pointers = Pointers::default();
        let _slot = pointers.want(&Pointer::parse("/id").expect("a pointer"));
        assert!(pointers.extract(&Bytes::from_static(b"{\"id\":\"\xff\"}")).is_err());
    }

    #[test]
    fn arrays_and_objects_are_as_deep_as_each_other() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for inner in ["[]", "{}"] {
                let nested = |depth| format!("{}{inner}{}", open.repeat(depth - 1), close.repeat(depth - 1));
                assert!(find("/id", &nested(MAX_DEPTH)).is_ok(), "{open}{inner}");
                assert!(find("/id", &nested(MAX_DEPTH + 1)).is_err(), "{open}{inner} is one level too deep");
            }
        }
    }

    #[test]
    fn keys_off_the_path_may_repeat() {
        assert!(find("/id", r#"{"id":"a","x":1,"x":2}"#).is_ok());
    }
}
