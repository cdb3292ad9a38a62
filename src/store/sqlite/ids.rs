//! The ids of a row in the file: the keys of one source and, behind them, its tag. Rows of earlier versions have no tag; and
//! those versions read the keys of such a row, because they leave out what is shorter than one.

use crate::event::Key;
use crate::store::SourceTag;

/// Writes keys that are all of one source.
pub(super) fn to_blob(keys: &[(SourceTag, Key)]) -> Vec<u8> {
    let mut blob: Vec<u8> = keys.iter().flat_map(|(_, key)| key.0).collect();
    blob.extend(keys.first().into_iter().flat_map(|(source, _)| source.0.to_be_bytes()));
    blob
}

/// Reads them again; without a source where there is no tag.
pub(super) fn from_blob(blob: &[u8]) -> (Option<SourceTag>, impl Iterator<Item = Key>) {
    let (keys, rest) = blob.as_chunks();
    let source = rest.try_into().ok().map(|tag| SourceTag(u64::from_be_bytes(tag)));
    (source, keys.iter().map(|key| Key(*key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_with_their_source_and_old_or_torn_rows_without() {
        let source = SourceTag(0x0102_0304_0506_0708);
        let keys = [(source, Key([1; 16])), (source, Key([2; 16]))];
        let blob = to_blob(&keys);
        let read = |length: usize| {
            let (source, keys) = from_blob(&blob[..length]);
            (source, keys.collect::<Vec<_>>())
        };
        assert_eq!(read(40), (Some(source), vec![Key([1; 16]), Key([2; 16])]));
        assert_eq!(read(32), (None, vec![Key([1; 16]), Key([2; 16])]));
        assert_eq!(read(39), (None, vec![Key([1; 16]), Key([2; 16])]));
        assert_eq!(read(0), (None, Vec::new()));
        assert!(to_blob(&[]).is_empty());
    }
}
