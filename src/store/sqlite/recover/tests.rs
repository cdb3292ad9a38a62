//! Tests of recoveries: what is imported, what is skipped, and what is lost.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::params;

use super::*;
use crate::base::limits;
use crate::base::time::Moment;
use crate::message::Message;
use crate::message::codec;
use crate::store::DestinationId;
use crate::store::FailedAttempt;
use crate::store::Keyspace;
use crate::store::Outcome;
use crate::store::Record;
use crate::store::State;
use crate::store::sqlite::admin::Names;
use crate::store::sqlite::admin::summaries;
use crate::store::sqlite::mailbox::Settled;
use crate::store::sqlite::open;
use crate::store::sqlite::queue::Entry;
use crate::store::sqlite::rows;
use crate::store::sqlite::schema;
use crate::store::sqlite::shared::Forgotten;
use crate::store::sqlite::tests_world::World;
use crate::verify::event_key::Key;

const NOW: i64 = 1_000_000;
const ROWS: i64 = 2;

fn present() -> Connection {
    let file = Connection::open_in_memory().expect("a file");
    schema::create(&file).expect("a layout");
    file.execute_batch("INSERT INTO destinations VALUES (7, 'shop', 'default', 0)").expect("a destination");
    file
}

/// A file on disk with the destinations 1 shop/default and 2 shop/copy.
fn damaged(folder: &Path) -> (PathBuf, Connection) {
    let path = folder.join("s.db.damaged-1");
    let file = Connection::open(&path).expect("a file");
    schema::create(&file).expect("a layout");
    file.execute_batch("INSERT INTO destinations VALUES (1, 'shop', 'default', 0), (2, 'shop', 'copy', 0)")
        .expect("destinations");
    (path, file)
}

/// Stores a message with a key of its own and this body.
fn put(file: &Connection, id: i64, key: u8, body: &[u8]) {
    let message = Message { body: body.to_vec().into(), ..Message::example() };
    file.execute(
        "INSERT INTO messages (id, source, received, size, checksum, keys, until, event_id, method, target, verified, headers, body)
         VALUES (?1, 'shop', 0, 0, ?2, ?3, 2000000, '1', 'POST', '/', 1, '[]', ?4)",
        params![id, codec::checksum(&message, "[]"), [key; 16], body],
    )
    .expect("a message");
}

fn deliver_to(file: &Connection, id: i64, destination: i64, state: State, lane: Option<i64>) {
    file.execute(
        "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, lane) VALUES (?1, ?2, ?3, 1, 0, 0, ?4)",
        params![id, destination, ids::state(state), lane],
    )
    .expect("a delivery");
}

fn recover(path: &Path, file: &Connection, outcomes: &Forgotten) -> (Recovered, Changes) {
    let mut recovery = Recovery::open(path.to_owned()).expect("it is readable");
    let mut changes = Changes::new(Moment::from_millis(NOW), NOW, 0);
    let (mut done, mut after) = (Recovered::default(), 0);
    loop {
        let part = recovery.damaged.part(after, 3, 1_000_000).expect("it is readable");
        let Some(last) = part.last() else { return (done, changes) };
        after = last.id;
        let (some, present) =
            import(file, &mut changes, &part, (recovery.present, ROWS, outcomes)).expect("it is written");
        (recovery.present, done) = (present, done.and(some));
    }
}

fn deliveries(file: &Connection) -> Vec<(i64, i64, State)> {
    let mut statement = file.prepare("SELECT message, destination, state FROM deliveries").expect("a statement");
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, ids::state_of(row.get(2)?).expect("a state"))));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

fn counts((done, _): &(Recovered, Changes)) -> (u64, u64, u64, u64) {
    (done.imported, done.present, done.record_lost, done.lost)
}

#[test]
fn what_is_there_is_imported_once_whatever_came_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = damaged(folder.path());
    (1..=5).for_each(|id| put(&old, id, u8::try_from(id).expect("small"), b"old"));
    for (id, destination) in [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)] {
        deliver_to(&old, id, destination, State::Queued, None);
    }
    deliver_to(&old, 6, 1, State::Queued, None);
    let new = present();
    // Another message under the id of one, and the keys of another under another id.
    put(&new, 2, 99, b"new");
    put(&new, 1_000, 3, b"old");
    let first = recover(&path, &new, &Forgotten::default());
    assert_eq!(counts(&first), (3, 1, 1, 1));
    let copy: i64 =
        new.query_row("SELECT id FROM destinations WHERE name = 'copy'", [], |row| row.get(0)).expect("a row");
    let queued = State::Queued;
    assert_eq!(
        deliveries(&new),
        [
            (1, 7, queued),
            (1, copy, queued),
            (3, 7, queued),
            (4, 7, queued),
            (5, 7, State::Dead),
            (5, copy, State::Dead)
        ]
    );
    assert_eq!((first.1.moved.len(), first.1.records.len()), (6, 4));
    let source = Keyspace::of_source("shop").tag();
    assert!(first.1.records.contains(&Record { source, key: Key([2; 16]), until: 2_000_000 }));
    let names = Names::read(&new).expect("names");
    let lost = summaries(&new, &[(5, 7)], &names).expect("a summary");
    assert!(lost[0].failures.list()[0].reason.starts_with("record lost"));
    assert_eq!(counts(&recover(&path, &new, &Forgotten::default())), (0, 5, 0, 1), "the same again");
    assert_eq!(deliveries(&new).len(), 6);
}

#[test]
fn the_rule_of_lanes_holds_after_an_import() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = damaged(folder.path());
    for (id, state, lane) in [
        (1, State::Blocked, 5),
        (2, State::Blocked, 5),
        (3, State::Queued, 6),
        (4, State::Blocked, 6),
        (5, State::Retrying, 8),
        (6, State::Dead, 8),
    ] {
        put(&old, id, u8::try_from(id).expect("small"), b"");
        deliver_to(&old, id, 1, state, Some(lane));
    }
    let new = present();
    put(&new, 1_000, 99, b"");
    deliver_to(&new, 1_000, 7, State::Queued, Some(6));
    recover(&path, &new, &Forgotten::default());
    let states: Vec<_> = deliveries(&new).into_iter().map(|(id, _, state)| (id, state)).collect();
    let (blocked, queued) = (State::Blocked, State::Queued);
    let expected = [(1, queued), (2, blocked), (3, blocked), (4, blocked), (5, State::Retrying), (6, State::Dead)];
    assert_eq!(states, [&expected[..], &[(1_000, queued)]].concat());
    let due: Option<i64> =
        new.query_row("SELECT due FROM deliveries WHERE message = 5", [], |row| row.get(0)).expect("a row");
    assert_eq!(due, Some(NOW), "what has no due time is due");
}

#[test]
fn outcomes_that_the_file_did_not_learn_of_are_in_what_is_imported() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = damaged(folder.path());
    for (id, state) in [(1, State::Queued), (2, State::Retrying), (3, State::Queued), (4, State::Delivered)] {
        put(&old, id, u8::try_from(id).expect("small"), b"");
        deliver_to(&old, id, 1, state, None);
    }
    let at = Moment::from_millis(3);
    let failed = FailedAttempt { at, ms: 1, status: Some(500), reason: "no".to_owned(), answer: String::new() };
    let outcomes = [
        (1, Outcome::Delivered { at, status: Some(204) }),
        (2, Outcome::Retry { after: Duration::from_millis(9), failed: failed.clone() }),
        (3, Outcome::Dead { failed: failed.clone() }),
        (4, Outcome::Dead { failed }),
    ];
    let forgotten = Forgotten::default();
    forgotten.set_aside(4);
    for (id, outcome) in outcomes {
        let entry = Entry { id, lane: None, attempts: 1, before_replay: 0, replayed: None };
        let settled = Settled { queue: 0, entry, attempts: 2, outcome, at: 3, due: NOW + 9 };
        forgotten.insert(&DestinationId::unnamed("shop"), settled);
    }
    let new = present();
    recover(&path, &new, &forgotten);
    let found: Vec<_> = deliveries(&new).iter().map(|(id, destination, _)| (*id, *destination)).collect();
    let summaries = summaries(&new, &found, &Names::read(&new).expect("names"));
    let shown: Vec<_> = summaries
        .expect("summaries")
        .iter()
        .map(|it| (it.state, it.attempts, it.status, it.due.map(Moment::millis), it.failures.list().len()))
        .collect();
    assert_eq!(
        shown,
        [
            (State::Delivered, 2, Some(204), None, 0),
            (State::Retrying, 2, None, Some(NOW + 9), 1),
            (State::Dead, 2, None, None, 1),
            (State::Delivered, 1, None, None, 0),
        ]
    );
}

#[test]
fn lost_pages_cost_what_stood_in_them_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, mut old) = damaged(folder.path());
    let transaction = old.transaction().expect("a transaction");
    for id in 1..=2_000 {
        put(&transaction, id * 4_096, u8::try_from(id % 250).expect("small"), &[b'x'; 300]);
        deliver_to(&transaction, id * 4_096, 1, State::Queued, None);
    }
    transaction.execute_batch("UPDATE messages SET keys = NULL").expect("written");
    transaction.commit().expect("written");
    drop(old);
    let pages = fs::metadata(&path).expect("a file").len() / 4096;
    let file = fs::File::options().write(true).open(&path).expect("a file");
    // Of about 300 pages, spread ones; not those of the schema and the roots.
    let wiped: Vec<_> = (60..pages).step_by(40).collect();
    wiped.iter().for_each(|page| file.write_all_at(&[0; 4096], page * 4096).expect("wiped"));
    let new = present();
    let (done, _) = recover(&path, &new, &Forgotten::default());
    let found = done.imported + done.record_lost;
    // A page has about nine messages, or about two hundred deliveries.
    assert!(found < 2_000 && found > 2_000 - 60 && done.imported > 1_000, "{done:?} without {} pages", wiped.len());
    let count: i64 = new.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("a number");
    assert_eq!(u64::try_from(count), Ok(found));
}

#[test]
fn without_its_first_page_a_file_is_recovered_from_a_copy_that_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = damaged(folder.path());
    old.pragma_update(None, "journal_mode", "WAL").expect("a WAL");
    (1..=50).for_each(|id| put(&old, id, u8::try_from(id).expect("small"), &[b'x'; 2_000]));
    (1..=50).for_each(|id| deliver_to(&old, id, 1, State::Queued, None));
    drop(old);
    let whole = fs::read(&path).expect("a file");
    for (from, to, fill) in [(0, 1, b'X'), (0, files::PAGE, 0), (18, 100, 255), (100, files::PAGE, 0)] {
        let mut bytes = whole.clone();
        bytes[from..to].fill(fill);
        fs::write(&path, &bytes).expect("damaged");
        let new = present();
        assert_eq!(counts(&recover(&path, &new, &Forgotten::default())), (50, 0, 0, 0), "{from} to {to}");
        assert_eq!(fs::read(&path).expect("a file"), bytes);
        let names: Vec<_> =
            fs::read_dir(folder.path()).expect("a folder").map(|it| it.expect("a file").file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("mended")), "{names:?}");
    }
    fs::write(&path, [b'x'; 50_000]).expect("no store at all");
    assert!(Recovery::open(path).is_ok_and(|recovery| !recovery.damaged.is_empty()));
}

#[tokio::test]
async fn a_quarantined_file_is_recovered_while_the_store_serves() {
    let old = World::new(limits::Sqlite::default());
    let queue = old.queue("shop").await;
    for (id, lane) in [("1", Some(9)), ("2", Some(9)), ("3", None), ("4", None), ("5", None)] {
        old.enqueue(&queue, id, lane).await;
    }
    let [_, three, four, _] = old.take(&queue, 4).await.try_into().expect("four");
    three.settle(old.delivered());
    four.settle(Outcome::Dead { failed: old.failed() });
    assert_eq!(old.stats(&queue).await, (1, 2, 0, 1));
    let path = old.path();
    let World { folder, store, .. } = old;
    drop(store);
    let new = World::new(limits::Sqlite { recover_rows: 2, retention_rows: 1, ..limits::Sqlite::default() });
    let queue = new.queue("shop").await;
    new.enqueue(&queue, "6", Some(9)).await;
    fs::copy(path, new.folder.path().join("store.db.damaged-1")).expect("a copy");
    drop(folder);
    assert_eq!(open::quarantined(&new.path()), 1);
    let (mut done, mut after) = (Recovered::default(), None);
    loop {
        let part = new.store.recover("store.db.damaged-1", after).await.expect("recovered");
        done = part.and(done);
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(done, Recovered { imported: 5, ..Recovered::default() });
    assert_eq!((open::quarantined(&new.path()), new.path().with_extension("db.recovered-1").exists()), (0, true));
    assert_eq!(new.stats(&queue).await, (2, 2, 0, 1));
    let mut taken = Vec::new();
    loop {
        let some = new.take(&queue, 1).await;
        let Some(delivery) = some.into_iter().next() else { break };
        taken.push(delivery.message().event_id.to_str().expect("text").to_owned());
        delivery.settle(new.delivered());
        new.stats(&queue).await;
    }
    taken.sort_unstable();
    assert_eq!(taken, ["1", "2", "5", "6"]);
    assert_eq!(new.stats(&queue).await, (0, 0, 0, 1));
    assert!(new.store.recover("store.db.damaged-1", None).await.is_err(), "it is done");
}

#[test]
fn of_a_row_that_is_there_twice_one_is_imported_and_a_message_far_ahead_of_time_gets_an_id_of_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = damaged(folder.path());
    put(&old, 1, 1, b"");
    put(&old, i64::MAX - 1, 2, b"");
    old.execute_batch(
        "CREATE TABLE copy AS SELECT * FROM deliveries; DROP TABLE deliveries; ALTER TABLE copy RENAME TO deliveries",
    )
    .expect("a table without a key");
    for id in [1, 1, i64::MAX - 1] {
        deliver_to(&old, id, 1, State::Queued, None);
    }
    let new = present();
    let done = recover(&path, &new, &Forgotten::default());
    assert_eq!((counts(&done), done.1.moved.len()), ((2, 0, 0, 0), 2));
    let latest = ids::first_of(Moment::from_millis(NOW));
    assert_eq!(deliveries(&new), [(1, 7, State::Queued), (latest + 1, 7, State::Queued)]);
}

proptest! {
    #[test]
    fn whatever_stands_in_a_damaged_file_it_is_recovered_to_its_end(
        column in 0..26_usize,
        value in rows::tests::any_value(),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = damaged(folder.path());
        for id in [1, 2] {
            put(&old, id, u8::try_from(id).expect("small"), b"");
            deliver_to(&old, id, 1, State::Queued, Some(1));
        }
        let columns = "id source received size checksum keys until event_id type method target trace verified headers body";
        let columns = columns.split(' ').map(|name| ("messages", "id", name));
        let more = "message destination state attempts before_replay settled due replayed lane status failures";
        let more = more.split(' ').map(|name| ("deliveries", "message", name));
        if let Some((table, key, name)) = columns.chain(more).nth(column) {
            // What must not be nothing cannot be; that it is in a damaged file is tried by other means.
            let _refused = old.execute(&format!("UPDATE {table} SET {name} = ?1 WHERE {key} = 1"), [value]);
        }
        let new = present();
        let (done, _) = recover(&path, &new, &Forgotten::default());
        prop_assert!(done.imported >= 1 && done.imported + done.record_lost + done.lost <= 3, "{:?}", done);
        let lane = "SELECT count(*) FROM deliveries WHERE lane = 1 AND state BETWEEN 3 AND 4";
        let open: i64 = new.query_row(lane, [], |row| row.get(0)).expect("a number");
        prop_assert_eq!(open, 1);
    }
}
