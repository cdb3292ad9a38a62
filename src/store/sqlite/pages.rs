//! Reads a damaged file page by page, without SQLite: a page that is broken costs what stands on it and no more.
//! <https://sqlite.org/fileformat2.html>

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::types::Value;

use super::schema::APPLICATION;
use super::wal::Wal;

/// Bytes of a page: SQLite's choice, which nothing here changes.
pub(super) const PAGE: usize = 4096;
const PAGE_BYTES: u64 = 4096;
/// The first byte of a page with rows of a table, and of a page that leads to those.
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;
/// Most bytes of a row that stands on one page, and what is the least on the first one of a row that does not.
const MAX_LOCAL: usize = PAGE - 35;
const MIN_LOCAL: usize = (PAGE - 12) * 32 / 255 - 23;
/// Bytes of a row on each further page.
const FURTHER: usize = PAGE - 4;
/// Longest row that is believed.
const MAX_ROW: usize = 1 << 30;
/// How a file begins that SQLite opens as what it is: its name, the size of a page, and constants.
const MAGIC: &[u8] = b"SQLite format 3\0";
const CONSTANTS: &[u8] = &[0, 64, 32, 32];

/// The pages of a file as its log left them.
pub(super) struct Pages {
    file: File,
    wal: Option<Wal>,
    count: u32,
}

/// A row of a table: its number and its columns.
pub(super) struct Record {
    pub(super) row: i64,
    pub(super) columns: Vec<Value>,
}

impl Pages {
    /// The pages of a file that nobody uses now.
    pub(super) fn open(path: &Path, log: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let wal = Wal::open(log)?;
        let pages = u32::try_from(file.metadata()?.len().div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX);
        Ok(Self { count: wal.as_ref().map_or(0, Wal::last_page).max(pages), file, wal })
    }

    /// Whether there is something in the file that SQLite would not open, or would pass over without a word.
    pub(super) fn is_damaged(&self) -> bool {
        self.wal.as_ref().is_some_and(Wal::is_damaged) || self.count > 0 && !self.begins_well()
    }

    fn begins_well(&self) -> bool {
        let Some(page) = self.page(1) else { return false };
        let versions =
            page.get(18..20).is_some_and(|versions| versions.iter().all(|version| (1..=2).contains(version)));
        let small = |at, most| number(&page, at).is_some_and(|number| number <= most);
        let constants = page.get(16..18) == Some(&[0x10, 0]) && page.get(20..24) == Some(CONSTANTS);
        page.starts_with(MAGIC) && constants && versions && small(44, 4) && small(56, 1)
    }

    /// Whether the file is a store, as far as can be told: its first page says so, or has been wiped in front of the pages of
    /// tables.
    pub(super) fn are_a_store(&self) -> bool {
        let Some(page) = self.page(1) else { return self.count > 1 };
        let tables = |number| self.page(number).is_some_and(|page| matches!(page.first(), Some(&(LEAF | INTERIOR))));
        // The first tables of the layout; between them is an index.
        let wiped = page.iter().all(|byte| *byte == 0) && tables(2) && tables(4);
        number(&page, 68) == Some(APPLICATION) || wiped
    }

    /// Calls `each` with every row of every table that can be read, in any order; how many pages could not be read.
    pub(super) fn records<E>(&self, mut each: impl FnMut(Record) -> Result<(), E>) -> Result<u64, E> {
        let free = self.free();
        let mut unreadable = 0;
        // What the first page has is the layout.
        for number in (2..=self.count).filter(|number| !free.contains(number)) {
            let Some(page) = self.page(number) else {
                unreadable += 1;
                continue;
            };
            if page.first() == Some(&LEAF) {
                for cell in 0..short(&page, 3).unwrap_or(0) {
                    if let Some(record) = self.record(&page, cell) {
                        each(record)?;
                    }
                }
            }
        }
        Ok(unreadable)
    }

    /// One page, whole; `None` when it cannot be read.
    fn page(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; PAGE];
        match self.wal.as_ref().and_then(|wal| wal.place(number).map(|place| (wal, place))) {
            Some((wal, place)) => wal.file().read_exact_at(&mut page, place).ok()?,
            None => self.file.read_exact_at(&mut page, u64::from(number.checked_sub(1)?) * PAGE_BYTES).ok()?,
        }
        Some(page)
    }

    /// The pages that are not in use: what stands on them is out of date.
    fn free(&self) -> HashSet<u32> {
        let mut free = HashSet::new();
        let mut trunk = self.page(1).and_then(|page| number(&page, 32)).unwrap_or(0);
        while trunk != 0 && free.insert(trunk) {
            let Some(page) = self.page(trunk) else { break };
            let leaves = number(&page, 4).and_then(|count| usize::try_from(count).ok()).unwrap_or(0).min(PAGE / 4 - 2);
            free.extend((0..leaves).filter_map(|leaf| number(&page, 8 + 4 * leaf)));
            trunk = number(&page, 0).unwrap_or(0);
        }
        free
    }

    fn record(&self, page: &[u8], cell: usize) -> Option<Record> {
        let mut cell = page.get(short(page, 8 + 2 * cell)?..)?;
        let length = usize::try_from(varint(&mut cell)?).ok().filter(|length| *length <= MAX_ROW)?;
        let row = varint(&mut cell)?;
        if length <= MAX_LOCAL {
            return Some(Record { row, columns: columns(cell.get(..length)?)? });
        }
        let local = MIN_LOCAL + (length - MIN_LOCAL) % FURTHER;
        let local = if local <= MAX_LOCAL { local } else { MIN_LOCAL };
        let mut bytes = cell.get(..local)?.to_vec();
        let mut next = number(cell, local)?;
        while bytes.len() < length {
            let further = self.page(next)?;
            next = number(&further, 0)?;
            bytes.extend(further.get(4..4 + FURTHER.min(length - bytes.len()))?);
        }
        Some(Record { row, columns: columns(&bytes)? })
    }
}

/// The columns of a row; `None` when it is none.
fn columns(bytes: &[u8]) -> Option<Vec<Value>> {
    let mut kinds = bytes;
    let length = usize::try_from(varint(&mut kinds)?).ok()?;
    let mut kinds = bytes.get(bytes.len() - kinds.len()..length)?;
    let mut values = bytes.get(length..)?;
    let mut columns = Vec::new();
    while !kinds.is_empty() {
        columns.push(column(varint(&mut kinds)?, &mut values)?);
    }
    values.is_empty().then_some(columns)
}

fn column(kind: i64, values: &mut &[u8]) -> Option<Value> {
    let length = match kind {
        0 | 8 | 9 => 0,
        1..=4 => usize::try_from(kind).ok()?,
        5 => 6,
        6 => 8,
        // Floating point, which no table has, and what is reserved.
        ..12 => return None,
        _ => usize::try_from(kind / 2 - 6).ok()?,
    };
    let bytes = values.split_off(..length)?;
    Some(match kind {
        0 => Value::Null,
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        1..=6 => {
            let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
            Value::Integer(bytes.iter().fold(sign, |sum, byte| sum << 8 | i64::from(*byte)))
        }
        _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
        _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
    })
}

/// A number of one to nine bytes, seven bits in each but the ninth.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0_i64;
    for _ in 0..8 {
        let byte = *bytes.split_off_first()?;
        number = number << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    Some(number << 8 | i64::from(*bytes.split_off_first()?))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u16::from_be_bytes(*number).into())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u32::from_be_bytes(*number))
}
