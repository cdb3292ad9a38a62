//! Tests of what fails while a SQLite store serves: writes, the writer, the disk, a file or a row that is damaged.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;

use super::changes::Changes;
use super::open;
use super::rows;
use super::tests_world::World;
use super::tests_world::ids;
use super::tests_world::message;
use super::tests_world::wait_until;
use crate::base::limits;
use crate::base::supervisor::Task;
use crate::message::Message;
use crate::store::Route;
use crate::store::State;
use crate::store::TakeLimit;
use crate::store::Unavailable;
use crate::store::owner_only;

/// Has the writer meet this error.
fn fail(world: &World, code: i32) {
    let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    world.sqlite().shared.mailbox.submit(|batch| batch.trouble = Some(error)).expect("it is told");
}

fn restarts(world: &World) -> u64 {
    world.supervisor.restarts(Task::SqliteWriter)
}

#[tokio::test]
async fn after_a_failed_write_the_file_is_opened_anew_and_nothing_is_lost() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    for id in ["a", "b"] {
        world.enqueue(&queue, id, Some(1)).await;
    }
    let mut taken = world.take(&queue, 1).await;
    let seen = queue.signal().count();
    fail(&world, rusqlite::ffi::SQLITE_IOERR_FSYNC);
    wait_until("a restart", || restarts(&world) == 1 && queue.signal().count() > seen).await;
    world.enqueue(&queue, "c", None).await;
    assert_eq!(ids(&world.take(&queue, 9).await), ["c"], "what is in hand stays in hand");
    taken.remove(0).settle(world.delivered());
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
    assert_eq!(ids(&world.take_all(&queue).await), ["c", "b"]);
    assert_eq!(open::quarantined(&world.path()), 0);
    fail(&world, rusqlite::ffi::SQLITE_IOERR_FSYNC);
    wait_until("the end", || world.store.sound().is_err()).await;
    assert!(world.store.take(&queue, TakeLimit { max: 1, bytes: 1 }).await.is_err());
    let route = [Route { queue, lane: None }];
    assert!(world.store.enqueue(message("d"), &route, None).await.is_err());
    let world = world.restart();
    let queue = world.queue("shop").await;
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
}

#[tokio::test]
async fn a_panic_of_the_writer_loses_neither_outcomes_nor_what_comes_later() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let mut taken = world.take(&queue, 1).await;
    world.supervisor.inject_panic(Task::SqliteWriter);
    taken.remove(0).settle(world.delivered());
    wait_until("a restart", || restarts(&world) == 1).await;
    wait_until("it to be well", || world.store.ready(true).is_ok()).await;
    assert_eq!(world.stats(&queue).await, (0, 0, 0, 0));
    world.enqueue(&queue, "b", None).await;
    assert_eq!(ids(&world.take(&queue, 9).await), ["b"]);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_while_the_gateway_serves_and_its_outcomes_are_kept() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    for id in ["a", "b", "c"] {
        world.enqueue(&queue, id, None).await;
    }
    let mut taken = world.take(&queue, 2).await;
    let (first, last) = (taken[0].id(), taken[1].id());
    fail(&world, rusqlite::ffi::SQLITE_CORRUPT);
    wait_until("a fresh file", || open::quarantined(&world.path()) == 1 && world.store.ready(true).is_ok()).await;
    assert_eq!(world.stats(&queue).await, (0, 0, 0, 0));
    taken.remove(0).settle(world.delivered());
    drop(taken);
    world.enqueue(&queue, "d", None).await;
    let fresh = world.take(&queue, 9).await;
    assert_eq!(ids(&fresh), ["d"], "what was in the damaged file waits to be recovered");
    assert!(fresh[0].id() > last, "ids go on");
    world.store.flush(&queue).await.expect("recorded");
    let (shared, id) = (&world.sqlite().shared, super::ids::written(first).expect("an id"));
    assert!(shared.forgotten.of(queue.id(), id).is_some());
    assert!(shared.forgotten.of(queue.id(), id + 1).is_none());
    let aside = owner_only::endings(&world.path()).into_iter().find(|it| it.to_str().is_some_and(open::is_quarantined));
    let aside = owner_only::beside(&world.path(), aside.expect("a file").to_str().expect("text"));
    let name = aside.file_name().expect("a name").to_str().expect("text").to_owned();
    drop(fresh);
    let done = world.store.recover(&name, None).await.expect("recovered");
    assert_eq!((done.imported, done.next), (3, None));
    world.store.flush(&queue).await.expect("recorded");
    assert_eq!(ids(&world.take_all(&queue).await).len(), 3, "b, c and d: a was delivered");
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_messages_and_keeps_outcomes_until_there_is_room() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let mut taken = world.take(&queue, 1).await;
    let limit = |pages: i64| {
        move |file: &Connection, _: &mut Changes| {
            file.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
        }
    };
    world.sqlite().command(limit(1)).await.expect("as many pages as there are");
    let route = [Route { queue: queue.clone(), lane: None }];
    let large = Arc::new(Message { body: Bytes::from(vec![b'x'; 100_000]), ..Message::example() });
    let refused = world.store.enqueue(Arc::clone(&large), &route, None).await.expect_err("no room");
    assert!(refused.to_string().contains("cannot be written at the moment"), "{refused}");
    taken.remove(0).settle(world.delivered());
    wait_until("it to be tried again", || world.store.ready(true).is_ok()).await;
    assert_eq!((world.stats(&queue).await, restarts(&world)), ((0, 0, 0, 0), 0), "the outcome found room");
    assert!(world.store.enqueue(Arc::clone(&large), &route, None).await.is_err());
    wait_until("it to be tried again", || world.store.ready(true).is_ok()).await;
    world.sqlite().command(limit(1_000_000)).await.expect("room");
    assert!(world.store.enqueue(large, &route, None).await.is_ok());
}

#[tokio::test]
async fn a_command_that_fails_fails_alone() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    let wrong = |file: &Connection, _: &mut Changes| {
        file.execute("UPDATE deleted SET message = 99", [])?;
        file.execute("INSERT INTO destinations (id, source, name) SELECT id, 'x', 'y' FROM destinations", [])
    };
    let (failed, ()) = tokio::join!(world.sqlite().command(wrong), world.enqueue(&queue, "a", None));
    assert!(failed.expect_err("it is there").to_string().contains("UNIQUE"), "and it says why");
    let read = |file: &Connection| file.query_row("SELECT message FROM deleted", [], |row| row.get::<_, i64>(0));
    let deleted = world.sqlite().view(move |file| Ok::<_, Unavailable>(read(file)?));
    assert_eq!((deleted.await.expect("a row"), restarts(&world)), (0, 0));
}

#[tokio::test]
async fn a_damaged_message_becomes_a_dead_letter_and_the_others_go_on() {
    let world = World::new(limits::Sqlite { cached_bytes: 0, ..Default::default() });
    let queue = world.queue("shop").await;
    for id in ["a", "b", "c"] {
        world.enqueue(&queue, id, Some(1)).await;
    }
    let damage = |file: &Connection, _: &mut Changes| {
        file.execute("UPDATE messages SET body = 'other' WHERE event_id = 'a'", [])?;
        file.execute("DELETE FROM messages WHERE event_id = 'b'", [])
    };
    world.sqlite().command(damage).await.expect("damaged");
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = ids(&world.take(&queue, 9).await);
        world.store.flush(&queue).await.expect("recorded");
    }
    assert_eq!(seen, ["c"]);
    assert_eq!(world.stats(&queue).await, (0, 1, 0, 2));
    let page = world.store.list(&crate::store::Filter::default(), None, 9).await.expect("a page");
    let dead: Vec<_> = page.deliveries.iter().filter(|delivery| delivery.state == State::Dead).collect();
    assert!(dead.iter().all(|dead| dead.attempts == 0 && dead.failures.list()[0].reason == rows::DAMAGED), "{dead:?}");
}
