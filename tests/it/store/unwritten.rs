//! What came of attempts and is not written yet: there is an end to how much waits in memory.

use std::time::Duration;

use doorward::clock::Clock;
use doorward::limits;
use doorward::limits::Limits;

use super::adapter::Message;
use super::adapter::Place;
use super::adapter::Process;
use super::adapter::Terms;
use super::model::Outcome;
use crate::harness::Redis;

const MOST: usize = 2;

/// A process with more events than may be in hand.
fn process(place: &Place) -> Process {
    let usual = Limits::default();
    let sqlite = limits::Sqlite { max_outcomes: MOST, ..usual.sqlite };
    let redis = limits::Redis { max_in_hand: MOST, ..usual.redis };
    let limits = Limits { sqlite, redis, ..Limits::default() };
    let process = Process::start(
        place,
        &Terms { timeout: Duration::from_secs(5), ..Terms::one_queue(&Clock::System, limits) },
        1,
    );
    for serial in 1..=4 {
        assert_eq!(process.enqueue(0, Message { serial, key: serial, ..Message::FIRST }), Ok(true));
    }
    process
}

#[test]
fn a_file_that_does_not_take_what_came_of_attempts_hands_out_no_more_than_may_wait() {
    let place = Place::sqlite();
    let process = process(&place);
    let taken = process.take(0, MOST).expect("events");
    let path = place.file().expect("a file");
    let other = rusqlite::Connection::open(path).expect("a file");
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    process.settle(0, &taken[0], Outcome::Delivered);
    let third = process.take(0, 1).expect("one less than may wait");
    assert_eq!(third.len(), 1);
    process.settle(0, &taken[1], Outcome::Delivered);
    let refused = process.take(0, 1).expect_err("as many as may wait");
    assert!(refused.contains("does not take what was delivered fast enough"), "{refused}");
    other.execute_batch("ROLLBACK").expect("an end");
    process.flush(0).expect("written");
    assert_eq!(process.take(0, 1).expect("it goes on").len(), 1);
    process.kill();
}

#[test]
fn a_redis_that_does_not_take_what_came_of_attempts_hands_out_no_more_than_may_wait() {
    let redis = Redis::start();
    let process = process(&Place::Redis(redis.url()));
    let taken = process.take(0, MOST - 1).expect("one less than may wait");
    let second = process.take(0, 1).expect("another one");
    assert_eq!((taken.len(), second.len()), (1, 1));
    let refused = process.take(0, 1).expect_err("as many as may wait");
    assert!(refused.contains("does not record what was delivered"), "{refused}");
    process.settle(0, &taken[0], Outcome::Delivered);
    process.flush(0).expect("recorded");
    assert_eq!(process.take(0, 1).expect("it goes on").len(), 1);
    process.kill();
}
