//! Extracts values by JSON pointer (RFC 6901) from a JSON body in one pass, without building a tree.
//!
//! The event id that is read here must be the one that every other parser reads. So a document is refused when it is
//! not one complete JSON value, or repeats a name on the path to a wanted value (RFC 8259 section 4 leaves the meaning
//! of repeated names open). Values that no pointer asks for are skipped without decoding them: an unpaired surrogate, a
//! number out of range, bytes that are not UTF-8, or any depth of nesting in them is no error.

mod scanner;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use scanner::Quoted;
use scanner::Scalar;
use scanner::Scanner;

pub use scanner::BYTE_ORDER_MARK;

/// The most reference tokens of a pointer.
pub const MAX_TOKENS: usize = 64;

/// The token that selects every item of an array.
const EACH: &str = "*";

/// A JSON pointer (RFC 6901), split into its reference tokens. Differences from the RFC: in an array, the token `*`
/// selects every item; and a number is only a position in an array, never the name of a member, so that a sender cannot
/// replace an array by an object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Parses `/a/b`, with at least one token.
    ///
    /// # Errors
    /// A message for the author of the pointer.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(tokens) = text.strip_prefix('/') else {
            return Err(format!("{text:?} is not a JSON pointer; it starts with a slash, such as \"/data/id\""));
        };
        let tokens: Vec<_> = tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        if tokens.len() > MAX_TOKENS {
            return Err(format!("{text:?} is deeper than {MAX_TOKENS} levels"));
        }
        Ok(Self(tokens))
    }

    /// Whether it has the token `*`.
    pub fn is_each(&self) -> bool {
        self.0.iter().any(|token| token == EACH)
    }

    /// Whether the token can only be a position in an array.
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

/// The index of a pointer's value in [`Fields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

/// The pointers of one profile, merged into a tree.
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
    /// The slots of this node and of all nodes below it.
    fn all_slots(&self) -> Vec<usize> {
        let below = self.children.iter().flat_map(|(_, node)| node.all_slots());
        self.slots.iter().copied().chain(below).collect()
    }

    /// The union of two subtrees.
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
    /// Adds a pointer. Equal pointers share a slot.
    pub fn add(&mut self, pointer: &Pointer) -> Slot {
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

    /// Whether there are no pointers, so that a body need not be JSON at all.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Reads all of `body` once and returns the values of the pointers.
    ///
    /// # Errors
    /// [`Malformed`] when the document is refused, as the module describes.
    pub fn extract(&self, body: &Bytes) -> Result<Fields, Malformed> {
        let mut walk = Walk { scanner: Scanner::new(body), body, fields: vec![Value::Absent; self.slots] };
        walk.value(&self.root)?;
        walk.scanner.end()?;
        Ok(Fields(walk.fields))
    }
}

/// A body that cannot be parsed, or that parsers would read differently. The message says what is wrong and where, and
/// does not quote the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// The value of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The body has no such value.
    Absent,
    /// `null`, which most applications treat like an absent value.
    Null,
    /// A string, unescaped; or a number as it is written, so that no digit is lost. `12` and `12.0` are different
    /// texts: a sender is expected to write a number always in the same way.
    Text(Bytes),
    /// A string that is not valid Unicode, which parsers read differently or refuse; `true` or `false`; an array or an
    /// object.
    Other,
    /// The values of a pointer with `*` in the items of an array, up to the first that is not a text.
    Each(Vec<Self>),
}

/// The values of all pointers of a profile in one body.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<Value>);

impl Fields {
    /// The value of the pointer with this slot.
    pub fn get(&self, slot: Slot) -> &Value {
        self.0.get(slot.0).unwrap_or(&Value::Absent)
    }
}

/// The state of one pass over a document. Recursion follows the tree of pointers, at most [`MAX_TOKENS`] levels deep;
/// all other values are skipped without recursion.
struct Walk<'w> {
    scanner: Scanner<'w>,
    body: &'w Bytes,
    fields: Vec<Value>,
}

impl Walk<'_> {
    /// Reads a value and stores what `node` and its children want of it.
    fn value(&mut self, node: &Node) -> Result<(), Malformed> {
        match self.scanner.peek() {
            Some(b'{' | b'[') if node.children.is_empty() => {
                self.scanner.skip()?;
                self.store(node, &Value::Other);
            }
            Some(b'{') => self.object(node)?,
            Some(b'[') => self.array(node)?,
            _ => {
                let scalar = self.scanner.scalar()?;
                if !node.slots.is_empty() {
                    self.store(node, &self.scalar(scalar));
                }
            }
        }
        Ok(())
    }

    fn object(&mut self, node: &Node) -> Result<(), Malformed> {
        let mut seen = vec![false; node.children.len()];
        let mut more = self.scanner.take(b'{') && !self.scanner.take(b'}');
        while more {
            let quoted = self.scanner.name()?;
            let child = self.child(node, &quoted);
            match child.and_then(|position| node.children.get(position).zip(seen.get_mut(position))) {
                Some(((name, _), true)) => {
                    let place = self.scanner.place(quoted.inner.start.saturating_sub(1));
                    return Err(Malformed(format!("{place}: the name {name:?} is there twice")));
                }
                Some(((_, child), seen)) => {
                    *seen = true;
                    self.value(child)?;
                }
                None => self.scanner.skip()?,
            }
            more = self.scanner.has_next(b'}')?;
        }
        self.store(node, &Value::Other);
        Ok(())
    }

    fn array(&mut self, node: &Node) -> Result<(), Malformed> {
        let each = node.children.iter().find(|(name, _)| name == EACH).map(|(_, node)| node);
        let position = |name: &String| name.parse().ok().filter(|position: &usize| position.to_string() == *name);
        let numbered: Vec<(usize, &Node)> =
            node.children.iter().filter_map(|(name, node)| Some((position(name)?, node))).collect();
        let slots = each.map(Node::all_slots).unwrap_or_default();
        let mut values = vec![Vec::new(); slots.len()];
        let mut index = 0_usize;
        let mut more = self.scanner.take(b'[') && !self.scanner.take(b']');
        while more {
            let child = numbered.iter().find(|(position, _)| *position == index).map(|(_, node)| *node);
            let both = each.zip(child).map(|(each, child)| each.merged(child));
            match both.as_ref().or(each).or(child) {
                Some(child) => self.value(child)?,
                None => self.scanner.skip()?,
            }
            for (slot, values) in slots.iter().zip(&mut values) {
                let value = self.take_field(*slot);
                // Ends after the first that is not a text: the values of `[0,0,…]` would need many times its memory.
                if values.last().is_none_or(|last| matches!(last, Value::Text(_))) {
                    match value {
                        Value::Each(inner) => values.extend(inner),
                        value @ (Value::Absent | Value::Null | Value::Text(_) | Value::Other) => values.push(value),
                    }
                }
            }
            index += 1;
            more = self.scanner.has_next(b']')?;
        }
        for (slot, values) in slots.into_iter().zip(values) {
            if let Some(field) = self.fields.get_mut(slot) {
                *field = Value::Each(values);
            }
        }
        self.store(node, &Value::Other);
        Ok(())
    }

    /// The position of the child that has this name. A name that is not valid Unicode matches none.
    fn child(&self, node: &Node, quoted: &Quoted) -> Option<usize> {
        let written = self.scanner.text(quoted.inner.clone());
        let decoded = quoted.escaped.then(|| self.decoded(quoted));
        let name = match &decoded {
            Some(decoded) => decoded.as_ref()?.as_bytes(),
            None => written,
        };
        let has_name = |(known, _): &(String, Node)| known.as_bytes() == name && !Pointer::is_index(known);
        node.children.iter().position(has_name)
    }

    fn scalar(&self, scalar: Scalar) -> Value {
        match scalar {
            Scalar::Null => Value::Null,
            Scalar::Bool => Value::Other,
            // A slice shares the bytes of the body.
            Scalar::Number(written) => Value::Text(self.body.slice(written)),
            Scalar::String(quoted) if quoted.escaped => {
                self.decoded(&quoted).map_or(Value::Other, |text| Value::Text(text.into()))
            }
            Scalar::String(Quoted { inner, .. }) => match std::str::from_utf8(self.scanner.text(inner.clone())) {
                Ok(_) => Value::Text(self.body.slice(inner)),
                Err(_) => Value::Other,
            },
        }
    }

    /// A string without its escapes; `None` when it is not valid Unicode.
    fn decoded(&self, quoted: &Quoted) -> Option<String> {
        let Range { start, end } = quoted.inner;
        serde_json::from_slice(self.scanner.text(start.saturating_sub(1)..end + 1)).ok()
    }

    fn store(&mut self, node: &Node, value: &Value) {
        for slot in &node.slots {
            if let Some(field) = self.fields.get_mut(*slot) {
                *field = value.clone();
            }
        }
    }

    fn take_field(&mut self, slot: usize) -> Value {
        self.fields.get_mut(slot).map_or(Value::Absent, |field| std::mem::replace(field, Value::Absent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, body: &str) -> Result<Value, Malformed> {
        let mut pointers = Pointers::default();
        let slot = pointers.add(&Pointer::parse(pointer).expect("a pointer"));
        pointers.extract(&Bytes::copy_from_slice(body.as_bytes())).map(|fields| fields.get(slot).clone())
    }

    #[test]
    fn values_are_found_wherever_they_stand() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        assert_eq!(find("/id", r#"{"a":[{"id":"no"}],"id":"yes"}"#).expect("json"), text("yes"));
        assert_eq!(find("/a/b", r#"{"a":{"b":"\u00e9"}}"#).expect("json"), text("é"));
        assert_eq!(find("/a/1/b", r#"{"a":[0,{"b":"x"}]}"#).expect("json"), text("x"));
        assert_eq!(find("/id", r#"{"id":true}"#).expect("json"), Value::Other);
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
            each(r#"{"a":[{"b":"x"},{"b":"y"},{"b":"z"}]}"#),
            Value::Each(vec![text("x"), text("y"), text("z")])
        );
        assert_eq!(each(r#"{"a":[{"b":"x"},{"c":1},{"b":"y"}]}"#), Value::Each(vec![text("x"), Value::Absent]));
        assert_eq!(each(r#"{"a":[{"b":null},{"c":1},{"b":[]}]}"#), Value::Each(vec![Value::Null]));
        assert_eq!(
            find("/*/b/*", r#"[{"b":["x",{}]},{"b":["z"]}]"#).expect("json"),
            Value::Each(vec![text("x"), Value::Other])
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
    fn numbers_are_read_as_they_are_written() {
        let digits = "123456789012345678901234567890";
        for number in
            ["0", "17", "-17", "-0", "12.0", "1e3", "1E+3", "1e400", "-1e-400", digits, "18446744073709551616"]
        {
            let text = Value::Text(Bytes::copy_from_slice(number.as_bytes()));
            assert_eq!(find("/id", &format!("{{\"id\": {number} }}")).expect("json"), text);
            assert_eq!(find("/*", &format!("[{number}]")).expect("json"), Value::Each(vec![text]));
        }
    }

    #[test]
    fn documents_that_parsers_read_differently_are_refused() {
        for bad in [
            "",
            "{",
            "{}x",
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","id":"a"}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
            r#"{"\u0069d":"a","i\u0064":"b"}"#,
            r#"{"id":"a",}"#,
        ] {
            assert!(find("/id", bad).is_err(), "{bad}");
        }
        for bad in [
            r#"{"a":{"b":1},"a":{"b":1}}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"c":0,"b":1}}"#,
            r#"{"a":[{"b":1},{"b":1,"b":2}]}"#,
        ] {
            assert!(find("/a/*/b", bad).is_err() || find("/a/b", bad).is_err(), "{bad}");
        }
        let twice = find("/id", "{\n\"id\":1,\n  \"id\":2}").expect_err("twice");
        assert_eq!(twice.to_string(), "at byte 13 (line 3, column 3): the name \"id\" is there twice");
    }

    #[test]
    fn what_nobody_wants_is_not_judged() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        let deep = format!("{}0{}", "[{\"a\":".repeat(50_000), "}]".repeat(50_000));
        for other in [
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            "1e400",
            "-1e-400",
            r#"{"id":1,"id":2}"#,
            r#"{"\ud800":1,"\ud800":2}"#,
            &deep,
        ] {
            for body in [
                format!("{{\"x\":{other},\"id\":\"a\"}}"),
                format!("{{\"id\":\"a\",\"x\":[{other}],\"x\":{other}}}"),
                format!("\u{feff}{{\"y\":{{\"id\":{other}}},\"id\":\"a\",\"\\udfff\":0}}"),
            ] {
                assert_eq!(find("/id", &body).expect("json"), text("a"), "{body:.80}");
            }
            assert_eq!(find("/id/x", &format!("{{\"id\":{other}}}")).expect("json"), Value::Absent, "{other:.80}");
        }
        for bytes in [&b"{\"x\":\"\xff\",\"id\":\"a\"}"[..], b"{\"\xed\xa0\x80\":0,\"id\":\"a\"}"] {
            let mut pointers = Pointers::default();
            let slot = pointers.add(&Pointer::parse("/id").expect("a pointer"));
            let fields = pointers.extract(&Bytes::from_static(bytes)).expect("json");
            assert_eq!(*fields.get(slot), text("a"));
        }
    }

    #[test]
    fn a_wanted_string_that_is_no_text_is_no_value() {
        for bytes in [
            &br#"{"id":"\ud800"}"#[..],
            br#"{"id":"a\udc00b"}"#,
            br#"{"id":"\ud83d\u0041"}"#,
            b"{\"id\":\"\xff\"}",
            b"{\"id\":\"\\n\xc3\"}",
            b"{\"id\":\"\xed\xa0\x80\"}",
        ] {
            let mut pointers = Pointers::default();
            let slot = pointers.add(&Pointer::parse("/id").expect("a pointer"));
            let fields = pointers.extract(&Bytes::from_static(bytes)).expect("json");
            assert_eq!(*fields.get(slot), Value::Other, "{}", bytes.escape_ascii());
        }
        assert_eq!(find("/id", r#"{"id":"\ud83d\ude00"}"#).expect("json"), Value::Text("😀".into()));
    }

    #[test]
    fn wanted_values_are_found_at_the_depth_that_a_pointer_may_have() {
        for (open, close, token) in [("[", "]", "/0"), ("{\"a\":", "}", "/a"), ("[", "]", "/*")] {
            let nested = |depth| format!("{}17{}", open.repeat(depth), close.repeat(depth));
            let pointer = token.repeat(MAX_TOKENS);
            let found = find(&pointer, &nested(MAX_TOKENS)).expect("json");
            let number = Value::Text(Bytes::from_static(b"17"));
            assert_eq!(found, if token == "/*" { Value::Each(vec![number]) } else { number });
            assert!(Pointer::parse(&token.repeat(MAX_TOKENS + 1)).is_err());
        }
    }

    #[test]
    fn keys_off_the_path_may_repeat() {
        assert!(find("/id", r#"{"id":"a","x":1,"x":2}"#).is_ok());
    }
}
