//! Tests of opening files: foreign, damaged, and older than their log, or the log older than they are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::tests_world::World;
use super::tests_world::ids;
use super::tests_world::message;
use super::tests_world::once;
use super::tests_world::open;
use super::*;
use crate::base::limits;
use crate::store::owner_only;

fn fresh() -> World {
    World::new(limits::Sqlite::default())
}

#[test]
fn a_second_owner_is_refused_and_files_are_for_their_owner_alone() {
    let world = fresh();
    let again = open(&world.path(), &world.limits, &world.clock, &world.supervisor);
    assert!(again.expect_err("it is owned").contains("another process"));
    for ending in ["", "-wal", "-dedupe.1"] {
        let mode = fs::metadata(owner_only::beside(&world.path(), ending)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{ending}");
    }
}

#[test]
fn files_of_other_layouts_and_of_other_programs_are_refused_and_get_no_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = fresh();
    let refused = |path: &Path| open(path, &world.limits, &world.clock, &world.supervisor).expect_err("it is no store");
    let finished = "CREATE TABLE finished (batch INTEGER PRIMARY KEY, until INTEGER NOT NULL, keys BLOB NOT NULL)";
    let present = schema::PRESENT + 1;
    for (sql, why) in [
        (format!("{finished}; PRAGMA user_version = 1"), "earlier version of Doorward (layout 1)"),
        (format!("{finished}; PRAGMA user_version = 2"), "earlier version of Doorward (layout 2)"),
        (format!("PRAGMA application_id = {}; PRAGMA user_version = 3", schema::APPLICATION), "(layout 3)"),
        (format!("PRAGMA application_id = {}; PRAGMA user_version = {present}", schema::APPLICATION), "newer version"),
        ("CREATE TABLE letters (letter TEXT); PRAGMA user_version = 3".to_owned(), "of another program"),
        ("PRAGMA application_id = 7".to_owned(), "of another program"),
    ] {
        let path = folder.path().join("other.db");
        Connection::open(&path).and_then(|file| file.execute_batch(&sql)).expect("a file");
        let error = refused(&path);
        assert!(error.contains(why), "{error}");
        assert!(!folder.path().join("other.db-dedupe.1").exists(), "{why}");
        fs::remove_file(&path).expect("a file");
    }
    let text = folder.path().join("text.db");
    fs::write(&text, "not a database, but long enough to look like something").expect("written");
    assert!(refused(&text).contains("not a SQLite file"));
    assert_eq!(fs::read(&text).expect("it is there").len(), 54, "it is left alone");
    refused(&folder.path().join("no/such/folder/x.db"));
}

#[tokio::test]
async fn a_damaged_file_of_a_store_is_set_aside_when_it_is_opened() {
    let ruin: [fn(&Path); 3] = [
        |path| fs::write(path, "not a database, but long enough to look like something").expect("written"),
        // The first page of all tables.
        |path| {
            let mut bytes = fs::read(path).expect("a file");
            bytes[100..4096].fill(0xab);
            fs::write(path, bytes).expect("written");
        },
        |path| {
            let mut bytes = fs::read(path).expect("a file");
            bytes[4096..].fill(0xab);
            fs::write(path, bytes).expect("written");
        },
    ];
    for (number, ruin) in ruin.into_iter().enumerate() {
        let world = fresh();
        let queue = world.queue("shop").await;
        let route = [Route { queue: queue.clone(), lane: None }];
        world.store.enqueue(message("a"), &route, Some(&once(1))).await.expect("stored");
        let old = world.take(&queue, 1).await[0].id();
        let world = world.reopen(ruin).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(open::quarantined(&world.path()), 1, "{number}");
        let queue = world.queue("shop").await;
        let route = [Route { queue: queue.clone(), lane: None }];
        let again = world.store.enqueue(message("a"), &route, Some(&once(1))).await.expect("known");
        assert_ne!(again, Enqueued::Stored, "dedupe records are in files of their own");
        world.enqueue(&queue, "b", None).await;
        let taken = world.take(&queue, 9).await;
        assert_eq!(ids(&taken), ["b"]);
        assert!(taken[0].id() > old);
    }
}

#[tokio::test]
async fn the_wal_of_a_file_that_was_set_aside_goes_with_it() {
    let world = fresh();
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let world = world.reopen(|path| {
        fs::rename(path, owner_only::beside(path, ".damaged-1")).expect("set aside");
        fs::write(owner_only::beside(path, "-wal"), "of the other").expect("written");
    });
    let world = world.expect("a fresh file");
    assert_eq!(fs::read(owner_only::beside(&world.path(), ".damaged-1-wal")).expect("it is there"), b"of the other");
    assert_eq!(open::quarantined(&world.path()), 1);
}

#[tokio::test]
async fn a_file_that_is_older_than_its_log_is_used_and_its_wal_is_kept() {
    let world = fresh();
    let queue = world.queue("shop").await;
    let copy = world.folder.path().join("older");
    let route = [Route { queue: queue.clone(), lane: None }];
    world.store.enqueue(message("a"), &route, Some(&once(1))).await.expect("stored");
    let world = world.reopen(|path| assert!(fs::copy(path, &copy).is_ok())).expect("a store");
    let queue = world.queue("shop").await;
    let route = [Route { queue: queue.clone(), lane: None }];
    world.store.enqueue(message("b"), &route, Some(&once(2))).await.expect("stored");
    let newest = world.take_all(&queue).await.last().expect("b").id();
    let world = world.reopen(|path| {
        fs::copy(&copy, path).expect("put back");
        fs::write(owner_only::beside(path, "-wal"), "no frames").expect("written");
    });
    let world = world.expect("a store");
    let kept = owner_only::endings(&world.path());
    assert!(kept.iter().any(|ending| ending.to_str().is_some_and(|it| it.starts_with("-wal.kept-"))), "{kept:?}");
    let queue = world.queue("shop").await;
    let route = [Route { queue: queue.clone(), lane: None }];
    let again = world.store.enqueue(message("b"), &route, Some(&once(2))).await.expect("known");
    assert_ne!(again, Enqueued::Stored, "its key is in the log");
    world.enqueue(&queue, "c", None).await;
    let taken = world.take_all(&queue).await;
    assert_eq!(ids(&taken), ["a", "c"]);
    assert!(taken[1].id() > newest);
}

#[tokio::test]
async fn keys_that_the_log_has_lost_are_found_in_the_file() {
    let world = fresh();
    let queue = world.queue("shop").await;
    let route = [Route { queue: queue.clone(), lane: None }];
    world.store.enqueue(message("a"), &route, Some(&once(1))).await.expect("stored");
    let world = world.reopen(|path| {
        fs::remove_file(owner_only::beside(path, "-dedupe.1")).expect("a log");
    });
    let world = world.expect("a store");
    assert!(once(1).keys.iter().all(|key| world.sqlite().records().contains(once(1).space.tag(), key)));
}

#[tokio::test]
async fn a_store_that_was_closed_is_one_file_and_its_log() {
    let world = fresh();
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let world = world.reopen(|path| assert_eq!(owner_only::endings(path), ["-dedupe.1"])).expect("a store");
    let queue = world.queue("shop").await;
    assert_eq!(ids(&world.take_all(&queue).await), ["a"]);
}
