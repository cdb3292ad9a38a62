//! Reads SQLite's write-ahead log past a place that is damaged, where SQLite itself would end without a word: each frame
//! says what the checksum of all before it was, so that those behind a broken one can still be verified.
//! <https://sqlite.org/fileformat2.html#the_write_ahead_log>

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::pages::PAGE;

const HEADER: u64 = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE;
const FRAME_HEADER_BYTES: u64 = 24;
const FRAME_BYTES: u64 = 4120;
/// How a log begins: its checksums are made of little-endian words, or of big-endian ones.
const LITTLE: u32 = 0x377f_0682;
const BIG: u32 = 0x377f_0683;

/// The log of a file that nobody uses now.
pub(super) struct Wal {
    file: File,
    /// Where the last version of a page stands.
    places: HashMap<u32, u64>,
    damaged: bool,
}

/// The two halves of a checksum.
type Sums = [u32; 2];

impl Wal {
    /// Reads a log; `None` when there is none.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut wal = Self { file, places: HashMap::new(), damaged: false };
        wal.read();
        Ok(Some(wal))
    }

    /// The log's file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where the last version of a page stands, if the log has the page.
    pub(super) fn place(&self, page: u32) -> Option<u64> {
        self.places.get(&page).copied()
    }

    /// The last of its pages.
    pub(super) fn last_page(&self) -> u32 {
        self.places.keys().copied().max().unwrap_or(0)
    }

    /// Whether SQLite would pass over a transaction that was safe. The last one may be incomplete after a power failure;
    /// one that others follow was safe before they were begun.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }

    fn read(&mut self) {
        let mut header = [0; 32];
        if self.file.read_exact_at(&mut header, 0).is_err() {
            return;
        }
        let [magic, _, _, _, first_salt, second_salt, first_sum, second_sum] = words(&header);
        let big = magic == BIG || magic != LITTLE && cfg!(target_endian = "big");
        let mut sums = [first_sum, second_sum];
        let whole = header.get(..24).is_some_and(|summed| sum([0, 0], summed, big) == sums);
        let mut salts = whole.then_some([first_salt, second_salt]);
        // Whether something was broken, and whether a transaction has ended since.
        let (mut broken, mut ended) = (!whole, !whole);
        let mut transaction = Vec::new();
        let mut frame = vec![0; FRAME];
        let mut at = HEADER;
        while self.file.read_exact_at(&mut frame, at).is_ok() {
            let Some((head, page)) = frame.split_first_chunk::<FRAME_HEADER>() else { return };
            let [number, commits, first_salt, second_salt, first_sum, second_sum] = words(head);
            let stored = [first_sum, second_sum];
            // Frames of other salts are left from before the log was begun anew.
            let ours = *salts.get_or_insert([first_salt, second_salt]) == [first_salt, second_salt];
            let summed = head.get(..8).map_or([0, 0], |head| sum(sum(sums, head, big), page, big));
            let holds = ours && summed == stored;
            sums = stored;
            if holds {
                self.damaged |= broken && ended;
                transaction.push((number, at + FRAME_HEADER_BYTES));
            }
            broken |= !holds;
            if ours && commits != 0 {
                ended |= broken;
                self.places.extend(transaction.drain(..));
            }
            at += FRAME_BYTES;
        }
    }
}

/// The checksum of `bytes` behind what has this one.
fn sum(sums: Sums, bytes: &[u8], big: bool) -> Sums {
    let word = |bytes: [u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let (pairs, _none) = bytes.as_chunks::<8>();
    pairs.iter().fold(sums, |[first, second], [a, b, c, d, e, f, g, h]| {
        let first = first.wrapping_add(word([*a, *b, *c, *d])).wrapping_add(second);
        [first, second.wrapping_add(word([*e, *f, *g, *h])).wrapping_add(first)]
    })
}

/// Big-endian words.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    let (chunks, _none) = bytes.as_chunks::<4>();
    words.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = u32::from_be_bytes(*chunk));
    words
}
