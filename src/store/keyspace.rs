//! The names of a source's keys. They share one hash tag, so that a Redis cluster has all of them on one node, where
//! one script can use them.

use std::sync::Arc;

use sha2::Digest as _;
use sha2::Sha256;

use crate::verify::event_key::Key;

/// The names of the keys of one source: `doorward:{TAG}:…`. Only the tag decides which node of a Redis cluster has
/// them. <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keyspace(Arc<Names>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Names {
    prefix: String,
    tag: SourceTag,
}

/// Identifies the source of a dedupe record: 32 bits of SHA-256 over the name of the source, not 0. Two sources with
/// the same tag share a part of the records; their keys differ all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceTag(pub u32);

impl Keyspace {
    /// The keys of a source of this name.
    pub fn of_source(name: &str) -> Self {
        Self(Arc::new(Names { prefix: format!("doorward:{{{name}}}:"), tag: SourceTag::of(name) }))
    }

    /// The name of the source, or the hash tag of its stream.
    pub fn source(&self) -> &str {
        hash_tag(&self.0.prefix).unwrap_or_default()
    }

    /// The tag of the source whose keys these are.
    pub fn tag(&self) -> SourceTag {
        self.0.tag
    }

    /// The keys that belong to a stream, on the node where it is.
    ///
    /// # Errors
    /// What is wrong with the stream's key, when no other key can share its hash slot.
    pub fn of_stream(key: &str) -> Result<Self, String> {
        match hash_tag(key) {
            Some(tag) => Ok(Self::of_source(tag)),
            None if key.is_empty() => Err("is empty".to_owned()),
            None if key.contains('}') => {
                Err("has a \"}\", but no {tag} that other keys could share; write a key such as \"events\" or \
                     \"{orders}:events\""
                    .to_owned())
            }
            None => Ok(Self::of_source(key)),
        }
    }

    /// The name of a dedupe record.
    pub fn name(&self, key: Key) -> String {
        [&self.0.prefix, key.hex().as_str()].concat()
    }

    /// The prefix of all names.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }
}

impl SourceTag {
    /// The tag of records whose source is not known.
    pub const UNKNOWN: Self = Self(0);

    fn of(name: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let [a, b, c, d, ..] = digest;
        Self(u32::from_be_bytes([a, b, c, d]).max(1))
    }
}

/// The hash tag of a key: the text between the first `{` and the next `}`, if it is not empty.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, behind) = key.split_once('{')?;
    let (tag, _) = behind.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_source_are_tagged_with_its_name() {
        let space = Keyspace::of_source("github");
        assert_eq!(space.name(Key([0xab; 16])), format!("doorward:{{github}}:{}", "ab".repeat(16)));
    }

    #[test]
    fn the_keys_beside_a_stream_have_the_tag_that_a_cluster_sees_in_its_key() {
        for (stream, prefix) in [
            ("events", "doorward:{events}:"),
            ("{orders}:events", "doorward:{orders}:"),
            ("a{b}{c}", "doorward:{b}:"),
            ("a{{b}}", "doorward:{{b}:"),
            ("a{b", "doorward:{a{b}:"),
        ] {
            let space = Keyspace::of_stream(stream).expect(stream);
            assert_eq!(space.prefix(), prefix);
            assert_eq!(hash_tag(space.prefix()), Some(hash_tag(stream).unwrap_or(stream)), "{stream}");
        }
    }

    #[test]
    fn a_stream_beside_which_no_other_key_can_be_is_refused() {
        for stream in ["", "{}", "a}b", "{}{orders}"] {
            assert!(Keyspace::of_stream(stream).is_err(), "{stream}");
        }
    }
}
