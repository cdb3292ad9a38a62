//! Whatever stands in a dedupe log, reading it ends, and finds every record that was written whole before the damage
//! and behind it.
#![no_main]

use doorward::store::Record;
use doorward::store::SourceTag;
use doorward::store::dedupe_log::ENTRY;
use doorward::store::dedupe_log::Entry;
use doorward::store::dedupe_log::Kind;
use doorward::store::dedupe_log::Scanner;
use doorward::store::dedupe_log::VERSION;
use doorward::verify::event_key::Key;
use libfuzzer_sys::fuzz_target;

// How many records stand in front of the other bytes, how many behind them, where what is read is cut in two, and those
// bytes.
fuzz_target!(|input: (u8, u8, u16, &[u8])| {
    let (before, behind, cut, damage) = input;
    let header = Entry::Header { version: VERSION, kind: Kind::Segment };
    let before: Vec<_> = std::iter::once(header).chain((0..before).map(|number| record(0, number))).collect();
    let behind: Vec<_> = (0..behind).map(|number| record(1, number)).chain([Entry::Checkpoint(7)]).collect();
    let bytes = [written(&before), damage.to_vec(), written(&behind)].concat();
    let (found, skipped) = scan(&bytes, usize::from(cut));
    assert_eq!(found[..before.len()], before, "in front of the damage");
    // The end of the damage may be such that it makes an entry with the beginning of the first one behind it.
    let rest = &behind[1..];
    assert_eq!(found[found.len() - rest.len()..], *rest, "behind the damage");
    assert_eq!(found.len() * ENTRY + skipped, bytes.len(), "every byte is read or skipped");
    for entry in found {
        assert_eq!(Entry::decode(&entry.encode()), Some(entry));
    }
    drop(scan(damage, usize::from(cut)));
});

fn record(source: u32, number: u8) -> Entry {
    Entry::Record(Record { source: SourceTag(source), key: Key([number; 16]), until: u32::from(number) + 1 })
}

fn written(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.encode()).collect()
}

/// Reads bytes in two parts, as a file is read that is longer than the buffer.
fn scan(bytes: &[u8], cut: usize) -> (Vec<Entry>, usize) {
    let (mut scanner, mut found) = (Scanner::default(), Vec::new());
    let first = &bytes[..cut.min(bytes.len())];
    let read = scanner.scan(first, |entry| found.push(entry));
    let rest = &bytes[read..];
    let read = scanner.scan(rest, |entry| found.push(entry));
    scanner.end(rest.len() - read);
    (found, usize::try_from(scanner.skipped).expect("small"))
}
