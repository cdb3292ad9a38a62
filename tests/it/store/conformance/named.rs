//! Histories in which something once went wrong that only several things together bring about.

use std::time::Duration;
use std::time::Instant;

use doorward::base::clock::Clock;
use doorward::base::limits;
use doorward::base::limits::Limits;
use doorward::base::time::Moment;
use doorward::store::State;

use super::history::Around;
use super::history::BYTES;
use super::history::History;
use super::history::Step;
use super::model::Outcome;
use super::process::Location;
use super::process::Message;
use super::process::Process;
use super::process::Terms;
use super::server::Server;
use super::world::World;
use crate::harness::fault::system_calls::Faults;
use crate::harness::gateway::log::is_failed_attempt;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::harness::wait_until;

/// Everything happens on the first queue.
fn enqueue(lane: Option<u64>) -> Step {
    Step::Enqueue { by: 0, queues: 1, lane, key: None, size: BYTES }
}

const TAKE: Step = Step::Take { by: 0, queue: 0, max: 2, bytes: BYTES };

fn settle(outcome: Outcome) -> Step {
    Step::Settle { by: 0, which: 0, outcome }
}

#[track_caller]
fn assert_kept(server: Option<&Server>, few: usize, steps: Vec<Step>) {
    let history = History { lanes: 3, few, bytes: BYTES, steps };
    assert_eq!(World::run(&history, server), Ok(()));
}

/// Histories in a file, on a server, and in a cluster.
#[track_caller]
fn assert_all_kept_everywhere(few: usize, histories: &[&[Step]]) {
    let (server, cluster) = (Server::start(), Server::cluster());
    for server in [None, Some(&server), Some(&cluster)] {
        histories.iter().for_each(|steps| assert_kept(server, few, steps.to_vec()));
    }
}

#[track_caller]
fn assert_kept_everywhere(few: usize, steps: &[Step]) {
    assert_all_kept_everywhere(few, &[steps]);
}

#[test]
fn many_events_behind_a_head_that_waits_for_its_retry_keep_no_other_lane_waiting() {
    let steps =
        [enqueue(Some(0)), TAKE, settle(Outcome::Retry(40_000)), enqueue(Some(0)), TAKE, enqueue(Some(1)), TAKE];
    assert_kept_everywhere(1, &steps);
}

#[test]
fn many_events_behind_a_head_do_not_keep_it_from_being_tried_again_when_its_time_has_come() {
    let later = Step::Around(Around::Advance(3000));
    let steps = [enqueue(Some(0)), TAKE, settle(Outcome::Retry(1000)), enqueue(Some(0)), TAKE, TAKE, later];
    assert_kept_everywhere(1, &steps);
}

#[test]
fn events_behind_a_head_that_waits_for_its_retry_keep_no_other_lane_waiting_after_a_restart() {
    let restart = Step::Restart { by: 0, queues: 3 };
    let retry = settle(Outcome::Retry(40_000));
    let steps = [enqueue(Some(0)), TAKE, retry, enqueue(Some(0)), enqueue(Some(1)), restart, TAKE, TAKE];
    assert_kept_everywhere(1, &steps);
}

#[test]
fn an_event_whose_attempt_ends_without_a_word_is_tried_again() {
    assert_kept_everywhere(3, &[enqueue(None), TAKE, settle(Outcome::Dropped)]);
}

#[test]
fn large_events_are_taken_one_by_one() {
    assert_kept_everywhere(2, &[enqueue(None), enqueue(None), TAKE]);
}

#[test]
fn a_gateway_that_still_has_an_event_in_hand_is_not_given_it_again_when_its_lease_is_over() {
    let one = Step::Take { by: 0, queue: 0, max: 1, bytes: BYTES };
    let steps = [enqueue(None), enqueue(None), one, Step::Around(Around::SetClock(120_000)), TAKE];
    assert_kept_everywhere(1, &steps);
}

#[test]
fn a_replay_whose_answer_was_lost_is_answered_with_what_it_did() {
    let histories = [0, 1, 2].map(|after| {
        let lose = Step::Around(Around::LoseAnswer { after });
        let replay = Step::Replay { by: 0, which: 0, all: false };
        [enqueue(None), TAKE, settle(Outcome::Dead), lose, replay]
    });
    assert_all_kept_everywhere(3, &histories.each_ref().map(|steps| &steps[..]));
}

#[test]
fn what_was_delivered_while_redis_was_away_for_longer_than_the_lease_is_not_delivered_again() {
    let server = Server::start();
    let (clock, hand) = Clock::manual(Moment::now());
    server.reset(clock.now());
    let place = Location::Redis(server.url());
    let process = Process::start(&place, &Terms::usual(&clock, Limits::default()));
    wait_for("Redis", || process.enqueue(&[0], Message::FIRST).ok());
    let taken = wait_for("the event", || process.take_any(0, 1).ok()?.pop());
    server.set_away(true);
    process.settle(taken, Outcome::Delivered);
    hand.advance(Duration::from_secs(600));
    server.faults.stop_clock(clock.now().millis());
    server.set_away(false);
    // However it comes: somebody asks before or after it is recorded.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert!(process.take_any(0, 1).unwrap_or_default().is_empty(), "it is delivered again");
    }
    process.flush(0).expect("recorded");
    assert!(process.take_any(0, 1).expect("an answer").is_empty());
    process.kill();
}

/// Fills a file with events of one lane behind a first one: so many that nobody would want to wait until they have been
/// sent.
fn stuff(place: &Location, behind: u32) {
    let path = place.file().expect("a file");
    let file = rusqlite::Connection::open(path).expect("a file");
    file.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {behind})
         INSERT INTO messages SELECT id + i, source, received, size, checksum, NULL, NULL, event_id, type, method, target, trace,
             verified, headers, body FROM messages, n;
         INSERT INTO deliveries SELECT messages.id, destination, 2, 0, 0, settled, NULL, NULL, lane, NULL, NULL
             FROM messages, deliveries WHERE messages.id > message;
         COMMIT"
    ))
    .expect("events");
}

#[test]
fn two_hundred_thousand_events_behind_one_that_waits_keep_another_lane_not_waiting() {
    const BEHIND: u32 = 200_000;
    let (clock, _hand) = Clock::manual(Moment::now());
    let (place, terms) = (Location::sqlite(), Terms::usual(&clock, Limits::default()));
    let process = Process::start(&place, &terms);
    assert_eq!(process.enqueue(&[0], Message { lane: Some(1), ..Message::FIRST }), Ok(true));
    process.stop();
    stuff(&place, BEHIND);
    let process = Process::start(&place, &terms);
    let head = process.take_any(0, 10).expect("the head").pop().expect("the head");
    process.settle(head, Outcome::Retry(3_600_000));
    process.flush(0).expect("recorded");
    assert!(process.take_any(0, 10).expect("an answer").is_empty());
    assert_eq!(process.enqueue(&[0], Message { serial: 2, key: 2, lane: Some(2), ..Message::FIRST }), Ok(true));
    let others = wait_for("the other lane", || Some(process.take_any(0, 10).ok()?).filter(|taken| !taken.is_empty()));
    assert_eq!(others.len(), 1);
    assert_eq!(others[0].message().event_id, "2");
    let stats = process.stats(0).expect("a count");
    assert_eq!((stats.blocked, stats.queued, stats.retrying), (BEHIND.into(), 1, 1));
    let newest = process.list(&super::process::filter(0, Some(State::Queued)), 10).expect("a list");
    assert_eq!(newest.len(), 1);
    drop(others);
    process.kill();
}

const MOST: usize = 2;

/// A process with more events than may wait for their outcomes to be recorded.
fn process(place: &Location) -> Process {
    let usual = Limits::default();
    let sqlite = limits::Sqlite { max_outcomes: MOST, ..usual.sqlite };
    let redis = limits::Redis { max_in_hand: MOST, ..usual.redis };
    let limits = Limits { sqlite, redis, ..Limits::default() };
    let terms = Terms { timeout: Duration::from_secs(5), ..Terms::usual(&Clock::System, limits) };
    let process = Process::start(place, &terms);
    for serial in 1..=5 {
        assert_eq!(process.enqueue(&[0], Message { serial, key: serial, ..Message::FIRST }), Ok(true));
    }
    process
}

#[test]
fn a_file_that_does_not_take_what_came_of_attempts_hands_out_no_more_than_may_wait() {
    let place = Location::sqlite();
    let process = process(&place);
    let mut taken = process.take_any(0, MOST).expect("events");
    let path = place.file().expect("a file");
    let other = rusqlite::Connection::open(path).expect("a file");
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    process.settle(taken.remove(0), Outcome::Delivered);
    let third = process.take_any(0, 1).expect("one less than may wait");
    assert_eq!(third.len(), 1);
    process.settle(taken.remove(0), Outcome::Delivered);
    let refused = process.take_any(0, 1).expect_err("as many as may wait");
    assert!(refused.contains("does not take what was delivered fast enough"), "{refused}");
    other.execute_batch("ROLLBACK").expect("an end");
    process.flush(0).expect("written");
    assert_eq!(process.take_any(0, 1).expect("it goes on").len(), 1);
    drop(third);
    process.kill();
}

#[test]
fn a_redis_that_does_not_take_what_came_of_attempts_hands_out_no_more_than_may_wait() {
    let redis = Redis::start();
    let process = process(&Location::Redis(redis.url()));
    let mut taken = process.take_any(0, MOST).expect("events");
    redis.signal("STOP");
    process.settle(taken.remove(0), Outcome::Delivered);
    process.settle(taken.remove(0), Outcome::Delivered);
    let refused = process.take_any(0, 1).expect_err("as many as may wait");
    redis.signal("CONT");
    assert!(refused.contains("does not record what was delivered"), "{refused}");
    process.flush(0).expect("recorded");
    wait_until("it to go on", || process.take_any(0, 1).is_ok_and(|taken| taken.len() == 1));
    process.kill();
}

#[test]
fn an_event_that_is_read_before_another_one_cannot_be_read_is_delivered() {
    const LARGE: usize = 200_000;
    let (faults, folder) = (Faults::new(), tempfile::tempdir().expect("a folder"));
    let nowhere = Upstream::nowhere();
    let settings = queued_in_sqlite(&format!("http://{nowhere}/app"), r#", backoff = "1ms", max_backoff = "1ms""#);
    let settings = settings + "[log]\nlevel = \"debug\"\n";
    let gateway = faults.start(folder.path(), &settings);
    assert_eq!(Github::delivery("retried", "{}").send(gateway.address()).text(), QUEUED);
    gateway.logged("a failed attempt", is_failed_attempt);
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(LARGE));
    assert_eq!(Github::delivery("large", large).send(gateway.address()).text(), QUEUED);
    drop(gateway.kill());
    // It is started where there is too little memory for the large one, for a while.
    faults.refuse_memory(LARGE);
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    let gateway = faults.start(folder.path(), &settings);
    upstream.wait_for(1);
    assert_eq!(Github::delivery("later", "[]").send(gateway.address()).text(), QUEUED);
    faults.give_memory();
    upstream.wait_for(3);
    let mut ids = upstream.ids();
    ids.sort();
    assert_eq!(ids, ["large", "later", "retried"]);
}
