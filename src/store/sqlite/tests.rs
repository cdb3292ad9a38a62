//! Tests of the SQLite store as a whole, with real files: what is enqueued, taken and settled.

use std::time::Duration;

use rusqlite::Connection;

use super::MAX_ROUTES;
use super::changes::Changes;
use super::queue;
use super::tests_world::HOUR;
use super::tests_world::World;
use super::tests_world::ids;
use super::tests_world::message;
use super::tests_world::once;
use super::tests_world::wait_until;
use crate::base::limits;
use crate::base::time::Moment;
use crate::store::DestinationId;
use crate::store::Earlier;
use crate::store::Enqueued;
use crate::store::Keyspace;
use crate::store::KnownBy;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::QueueTerms;
use crate::store::Route;
use crate::store::TakeLimit;
use crate::verify::event_key::Key;

#[tokio::test]
async fn what_is_stored_is_taken_in_order_and_known_again_after_a_restart() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    let route = [Route { queue: queue.clone(), lane: None }];
    for byte in 1..4 {
        let stored = world.store.enqueue(message(&byte.to_string()), &route, Some(&once(byte))).await;
        assert_eq!(stored.expect("stored"), Enqueued::Stored);
    }
    let again = world.store.enqueue(message("1"), &route, Some(&once(1))).await.expect("known");
    assert_eq!(again, Enqueued::Earlier(Earlier::Finished(KnownBy::Id)));
    let mut taken = world.take(&queue, 2).await;
    assert_eq!(ids(&taken), ["1", "2"]);
    taken.remove(0).settle(world.delivered());
    drop(taken);
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
    assert_eq!(ids(&world.take(&queue, 9).await), ["2", "3"], "what was not settled is back");
    let world = world.restart();
    let queue = world.queue("shop").await;
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
    assert_eq!(ids(&world.take(&queue, 9).await), ["2", "3"]);
    assert!(world.sqlite().records().contains(Keyspace::of_source("shop").tag(), Key([1; 16])));
}

#[tokio::test]
async fn a_retry_comes_when_it_is_due_and_not_before_it() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    world.take(&queue, 1).await.remove(0).settle(world.retry(Duration::from_secs(60)));
    assert_eq!(world.stats(&queue).await, (0, 0, 1, 0));
    let taken = world.taken(&queue, 1).await;
    assert!(taken.deliveries.is_empty());
    assert_eq!(taken.next_due, Some(world.clock.instant() + Duration::from_secs(60)));
    world.hand.set(Moment::from_unix(10));
    world.hand.advance(Duration::from_millis(59_999));
    assert!(world.take(&queue, 1).await.is_empty());
    world.hand.advance(Duration::from_millis(1));
    let mut taken = world.take(&queue, 1).await;
    assert_eq!(taken[0].tries().attempts, 1);
    assert_eq!(taken[0].tries().failures.list()[0].reason, "the upstream answered 500");
    taken.remove(0).settle(Outcome::Dead { failed: world.failed() });
    assert_eq!(world.stats(&queue).await, (0, 0, 0, 1));
}

#[tokio::test]
async fn of_a_lane_one_is_attempted_at_a_time_and_no_other_lane_waits_for_it() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    for (id, lane) in [("a1", 1), ("a2", 1), ("b1", 2), ("a3", 1)] {
        world.enqueue(&queue, id, Some(lane)).await;
    }
    assert_eq!(world.stats(&queue).await, (2, 2, 0, 0));
    let mut taken = world.take(&queue, 9).await;
    assert_eq!(ids(&taken), ["a1", "b1"]);
    taken.remove(0).settle(world.retry(Duration::from_secs(1)));
    assert_eq!(world.stats(&queue).await, (2, 1, 1, 0));
    assert!(world.take(&queue, 9).await.is_empty(), "a retry keeps its lane");
    world.hand.advance(Duration::from_secs(1));
    for (id, rest) in [("a1", (1, 2, 0, 0)), ("a2", (0, 2, 0, 0)), ("a3", (0, 1, 0, 0))] {
        let mut taken = world.take_all(&queue).await;
        assert_eq!(ids(&taken), [id]);
        taken.remove(0).settle(world.delivered());
        assert_eq!(world.stats(&queue).await, rest);
    }
}

#[tokio::test]
async fn a_message_goes_to_all_its_destinations_in_one_step() {
    let world = World::new(limits::Sqlite::default());
    let (one, other) = (world.queue("shop").await, world.queue("other").await);
    let route = |queue: &Queue| Route { queue: queue.clone(), lane: None };
    let routes = [route(&one), route(&other), route(&one)];
    assert_eq!(world.store.enqueue(message("a"), &routes, None).await.expect("stored"), Enqueued::Stored);
    let (mut first, mut second) = (world.take(&one, 9).await, world.take(&other, 9).await);
    assert_eq!((ids(&first), ids(&second)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_eq!(first[0].id(), second[0].id());
    first.remove(0).settle(world.delivered());
    second.remove(0).settle(Outcome::Dead { failed: world.failed() });
    assert_eq!((world.stats(&one).await, world.stats(&other).await), ((0, 0, 0, 0), (0, 0, 0, 1)));
    let many: Vec<_> = (0..=MAX_ROUTES).map(|at| format!("source-{at}")).collect();
    let mut queues = Vec::new();
    for source in &many {
        queues.push(route(&world.queue(source).await));
    }
    assert!(world.store.enqueue(message("b"), &queues, None).await.is_err(), "too many");
    assert!(world.store.enqueue(message("b"), &queues[1..], None).await.is_ok());
    assert!(world.store.enqueue(message("b"), &[], None).await.is_err(), "none");
}

#[tokio::test]
async fn whoever_takes_until_there_is_nothing_gets_everything_whatever_the_limits_are() {
    for (claimed_ahead, cached_bytes, max_read) in [
        (0, 0, Duration::ZERO),
        (1, 0, HOUR),
        (2, 600, Duration::ZERO),
        (3, 1_000, HOUR),
        (1024, usize::MAX, Duration::ZERO),
    ] {
        let limits = limits::Sqlite { claimed_ahead, cached_bytes, max_read, ..Default::default() };
        let world = World::new(limits);
        let queue = world.queue("shop").await;
        for number in 0..40 {
            world.enqueue(&queue, &number.to_string(), (number % 3 == 0).then_some(number % 2)).await;
        }
        let mut seen = Vec::new();
        loop {
            let taken = world.take(&queue, 7).await;
            if taken.is_empty() {
                break;
            }
            seen.extend(ids(&taken));
            for delivery in taken {
                let first = delivery.tries().attempts == 0;
                let retry = first && delivery.message().event_id.as_bytes().ends_with(b"5");
                delivery.settle(if retry { world.retry(Duration::ZERO) } else { world.delivered() });
            }
            world.store.flush(&queue).await.expect("recorded");
        }
        assert_eq!(seen.len(), 44, "claimed_ahead = {claimed_ahead}: {seen:?}");
        assert_eq!(world.stats(&queue).await, (0, 0, 0, 0));
    }
}

#[tokio::test]
async fn of_what_is_due_and_what_is_new_half_and_half_is_ready() {
    let world = World::new(limits::Sqlite { claimed_ahead: 4, ..Default::default() });
    let queue = world.queue("shop").await;
    for number in 0..4 {
        world.enqueue(&queue, &format!("old-{number}"), None).await;
    }
    for delivery in world.take(&queue, 4).await {
        delivery.settle(world.retry(Duration::from_secs(1)));
    }
    for number in 0..4 {
        world.enqueue(&queue, &format!("new-{number}"), None).await;
    }
    let world = world.restart();
    world.hand.advance(Duration::from_secs(1));
    let queue = world.queue("shop").await;
    assert_eq!(ids(&world.take(&queue, 4).await), ["old-0", "new-0", "old-1", "new-1"]);
}

#[tokio::test]
async fn a_take_has_no_more_bytes_than_are_wanted_and_one_delivery_in_any_case() {
    let weight = message("a").weight();
    for cached_bytes in [usize::MAX, 0] {
        let world = World::new(limits::Sqlite { cached_bytes, max_read: HOUR, ..Default::default() });
        let queue = world.queue("shop").await;
        for id in ["a", "b", "c"] {
            world.enqueue(&queue, id, None).await;
        }
        for (bytes, count) in [(0, 1), (weight, 1), (2 * weight - 1, 1), (2 * weight, 2), (9 * weight, 3)] {
            let taken = world.store.take(&queue, TakeLimit { max: 9, bytes }).await.expect("taken").deliveries;
            assert_eq!(taken.len(), count, "{bytes} bytes");
            assert_eq!(ids(&taken)[0], "a", "the others went back in their order");
        }
    }
}

#[tokio::test]
async fn nothing_more_is_taken_while_too_many_outcomes_are_not_written() {
    let world = World::new(limits::Sqlite { max_outcomes: 2, ..Default::default() });
    let queue = world.queue("shop").await;
    for id in ["a", "b", "c", "d"] {
        world.enqueue(&queue, id, None).await;
    }
    let mut taken = world.take(&queue, 2).await;
    let blocking = Connection::open(world.path()).expect("a file");
    blocking.execute_batch("BEGIN IMMEDIATE").expect("it is locked");
    taken.remove(0).settle(world.delivered());
    assert_eq!(ids(&world.take(&queue, 1).await), ["c"], "one outcome is not too many");
    taken.remove(0).settle(world.delivered());
    let refused = world.store.take(&queue, TakeLimit { max: 9, bytes: 9 }).await.expect_err("two are");
    assert!(refused.to_string().contains("fast enough"), "{refused}");
    blocking.execute_batch("COMMIT").expect("it is free");
    world.store.flush(&queue).await.expect("recorded");
    assert_eq!(ids(&world.take(&queue, 9).await), ["c", "d"]);
}

#[tokio::test]
async fn what_is_replayed_is_taken_again_at_once() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let mut taken = world.take(&queue, 9).await;
    let id = taken[0].id();
    taken.remove(0).settle(Outcome::Dead { failed: world.failed() });
    world.store.flush(&queue).await.expect("recorded");
    assert!(world.take(&queue, 9).await.is_empty());
    let seen = queue.signal().count();
    assert_eq!(world.store.replay("shop", id, None).await.expect("replayed"), 1);
    wait_until("the signal", || queue.signal().count() > seen).await;
    let taken = world.take(&queue, 9).await;
    assert_eq!((taken[0].tries().attempts, taken[0].tries().before_replay), (1, 1));
    assert!(taken[0].tries().replayed_at.is_some());
    assert_eq!(world.stats(&queue).await, (0, 0, 1, 0));
}

#[tokio::test]
async fn when_the_clock_was_set_back_between_two_processes_pauses_begin_anew() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    world.take(&queue, 1).await.remove(0).settle(world.retry(Duration::from_secs(60)));
    world.store.flush(&queue).await.expect("recorded");
    world.hand.set(Moment::from_unix(1_000_000));
    let world = world.restart();
    let queue = world.queue("shop").await;
    world.hand.advance(Duration::from_secs(59));
    assert!(world.take(&queue, 1).await.is_empty());
    world.hand.advance(Duration::from_secs(1));
    assert_eq!(ids(&world.take(&queue, 1).await), ["a"]);
}

#[tokio::test]
async fn a_registered_destination_keeps_its_handle_and_its_terms_are_exchanged() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let terms = |source: &str, keep| QueueTerms { id: DestinationId::unnamed(source), keep };
    let queues = world.store.register(&[terms("new", HOUR), terms("shop", Duration::ZERO)]).await.expect("registered");
    assert_eq!(queues.iter().map(|queue| queue.id().source.as_str()).collect::<Vec<_>>(), ["new", "shop"]);
    assert_eq!(queues[1].index(), queue.index());
    assert_eq!(ids(&world.take(&queues[1], 9).await), ["a"]);
    assert_eq!(world.stats(&queue).await, (0, 1, 0, 0));
    assert_eq!(world.sqlite().registered(|_| true).len(), 2);
}

#[tokio::test]
async fn whoever_asks_after_a_while_gets_what_nobody_told_of() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    world.take(&queue, 1).await.remove(0).settle(world.delivered());
    world.store.flush(&queue).await.expect("recorded");
    assert!(world.take(&queue, 9).await.is_empty());
    let untold = |file: &Connection, _: &mut Changes| file.execute("UPDATE deliveries SET state = 3, attempts = 0", []);
    world.sqlite().command(untold).await.expect("written");
    assert!(world.take(&queue, 9).await.is_empty(), "nothing is known of it");
    world.hand.advance(Duration::from_millis(queue::STALE.unsigned_abs()));
    assert_eq!(ids(&world.take(&queue, 9).await), ["a"]);
}
