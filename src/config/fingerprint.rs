//! Fingerprints of parts of the configuration: two that are equal mean the same.

use std::fmt;

use config::Map;
use config::Value;
use config::ValueKind;
use sha2::Digest as _;
use sha2::Sha256;

/// A digest of a part of the configuration and of what it refers to, such as secrets. It is not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// Takes what a fingerprint is made of.
#[derive(Clone, Default)]
pub(super) struct Fingerprinting(Sha256);

impl Fingerprinting {
    /// Takes bytes, with their length, so that no two sequences look the same.
    #[must_use]
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes.len().to_le_bytes());
        self.0.update(bytes);
        self
    }

    #[must_use]
    pub(super) fn number(self, number: usize) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Takes a value with all that is in it, wherever it was set.
    #[must_use]
    pub(super) fn value(self, value: &Value) -> Self {
        if let ValueKind::Table(table) = &value.kind {
            self.table(table)
        } else if let ValueKind::Array(values) = &value.kind {
            values.iter().fold(self.bytes(b"list").number(values.len()), |this, value| this.value(value))
        } else {
            // In the environment, all values are texts.
            self.bytes(b"one").bytes(value.kind.to_string().as_bytes())
        }
    }

    /// Takes the entries of a table.
    #[must_use]
    pub(super) fn table(self, table: &Map<String, Value>) -> Self {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| *name);
        let this = self.bytes(b"table").number(entries.len());
        entries.into_iter().fold(this, |this, (name, value)| this.bytes(name.as_bytes()).value(value))
    }

    pub(super) fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}
