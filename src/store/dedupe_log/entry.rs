//! The entries of a dedupe log, 28 bytes each: encoding, decoding, and the scan that finds entries among damaged bytes.

use crate::store::Record;
use crate::store::SourceTag;
use crate::verify::event_key::Key;

/// Bytes of an entry of any kind.
pub const ENTRY: usize = 28;
/// The version of the format that is written, and the latest that is read.
pub const VERSION: u32 = 1;

/// The key of a header.
const MAGIC: [u8; 16] = *b"doorward-dedupe\n";
const SEGMENT: u32 = 1;
const SNAPSHOT: u32 = 2;
/// The highest message number in a checkpoint: far beyond any clock, and without an overflow of later numbers.
const MAX_MESSAGE: i64 = i64::MAX / 2;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records in the order in which they came.
    Segment,
    /// All records at one moment; it replaces all files with lower numbers.
    Snapshot,
}

/// An entry of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The first entry of a file.
    Header {
        /// The version of the format.
        version: u32,
        /// What the file is.
        kind: Kind,
    },
    /// A dedupe record.
    Record(Record),
    /// The keys of all messages up to this one are in the log, and synced.
    Checkpoint(i64),
}

impl Entry {
    /// Encodes it: a payload of 24 bytes and its CRC-32, all numbers little-endian.
    pub fn encode(self) -> [u8; ENTRY] {
        let (key, source, until) = match self {
            Self::Header { version, kind } => (MAGIC, version, if kind == Kind::Segment { SEGMENT } else { SNAPSHOT }),
            Self::Record(record) => (record.key.0, record.source.0, record.until.max(1)),
            Self::Checkpoint(message) => {
                let mut key = [0; 16];
                let (number, _zeros) = key.split_at_mut(8);
                number.copy_from_slice(&message.clamp(0, MAX_MESSAGE).to_le_bytes());
                (key, 0, 0)
            }
        };
        let mut bytes = [0; ENTRY];
        let mut rest = &mut bytes[..];
        for part in [&key[..], &source.to_le_bytes(), &until.to_le_bytes()] {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        let crc = checksum(&bytes);
        if let Some(place) = bytes.last_chunk_mut() {
            *place = crc.to_le_bytes();
        }
        bytes
    }

    /// Decodes it; `None` when the bytes are no entry.
    pub fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        if bytes.last_chunk().map(|crc| u32::from_le_bytes(*crc)) != Some(checksum(bytes)) {
            return None;
        }
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (source, until) = (u32::from_le_bytes(*source), u32::from_le_bytes(*rest.first_chunk()?));
        if *key == MAGIC {
            let kind = if until == SNAPSHOT { Kind::Snapshot } else { Kind::Segment };
            return Some(Self::Header { version: source, kind });
        }
        if until > 0 {
            return Some(Self::Record(Record { source: SourceTag(source), key: Key(*key), until }));
        }
        let (message, zeros) = key.split_first_chunk()?;
        let message = i64::from_le_bytes(*message);
        let is_valid = source == 0 && zeros.iter().all(|byte| *byte == 0) && (0..=MAX_MESSAGE).contains(&message);
        is_valid.then_some(Self::Checkpoint(message))
    }
}

fn checksum(entry: &[u8; ENTRY]) -> u32 {
    crc32fast::hash(entry.split_last_chunk::<4>().map_or(&[], |(payload, _)| payload))
}

/// Finds the entries of a file; bytes that are no entry are skipped one by one.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes that were skipped so far.
    pub skipped: u64,
}

impl Scanner {
    /// Calls `each` with the entries in these bytes. Returns how many bytes were consumed; the others, fewer than an
    /// entry has, have to be passed again in front of the bytes that follow.
    pub fn scan(&mut self, bytes: &[u8], mut each: impl FnMut(Entry)) -> usize {
        let mut rest = bytes;
        while let Some((first, behind)) = rest.split_first_chunk() {
            match Entry::decode(first) {
                Some(entry) => {
                    each(entry);
                    rest = behind;
                }
                None => {
                    self.skipped += 1;
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        bytes.len() - rest.len()
    }

    /// Counts the bytes that are left at the end of a file as skipped.
    pub fn end(&mut self, left: usize) {
        self.skipped += u64::try_from(left).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        (any::<u32>(), any::<[u8; 16]>(), 1..=u32::MAX).prop_map(|(source, key, until)| Record {
            source: SourceTag(source),
            key: Key(key),
            until,
        })
    }

    fn scan(bytes: &[u8]) -> (Vec<Entry>, u64) {
        let (mut scanner, mut found) = (Scanner::default(), Vec::new());
        let read = scanner.scan(bytes, |entry| found.push(entry));
        scanner.end(bytes.len() - read);
        (found, scanner.skipped)
    }

    #[test]
    fn each_kind_of_entry_comes_back_as_it_was_written() {
        let record = Record { source: SourceTag(7), key: Key([9; 16]), until: 1_800_000_000 };
        let headers = [Kind::Segment, Kind::Snapshot].map(|kind| Entry::Header { version: VERSION, kind });
        for entry in
            headers.into_iter().chain([Entry::Record(record), Entry::Checkpoint(0), Entry::Checkpoint(MAX_MESSAGE)])
        {
            assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
        assert_eq!(Entry::decode(&Entry::Checkpoint(i64::MAX).encode()), Some(Entry::Checkpoint(MAX_MESSAGE)));
        assert_eq!(Entry::decode(&[0; ENTRY]), None, "zeros, as a file system leaves them after a power failure");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_makes_an_entry_none(record in record(), bit in 0..ENTRY * 8) {
            let mut bytes = Entry::Record(record).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Entry::decode(&bytes), None);
        }

        #[test]
        fn records_around_damage_are_found_and_what_was_skipped_is_counted(
            before in proptest::collection::vec(record(), 0..5),
            damage in proptest::collection::vec(any::<u8>(), 0..100),
            after in proptest::collection::vec(record(), 0..5),
        ) {
            let entries = |records: &[Record]| records.iter().flat_map(|record| Entry::Record(*record).encode()).collect::<Vec<_>>();
            let bytes = [entries(&before), damage.clone(), entries(&after)].concat();
            let (found, skipped) = scan(&bytes);
            let expected: Vec<_> = before.iter().chain(&after).map(|record| Entry::Record(*record)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(skipped, u64::try_from(damage.len()).expect("small"));
        }
    }
}
