//! What is not kept yet, each with a history that shows it. A test that fails here says that something was mended: it is turned
//! round, and the switch in [`Known`] deleted.

use std::time::Duration;

use doorward::clock::Clock;
use doorward::limits;
use doorward::limits::Limits;
use doorward::queue::Breaker;
use doorward::queue::Courier;
use doorward::queue::CourierMetrics;
use doorward::queue::Gate;
use doorward::queue::Policy;
use doorward::supervisor::Supervisor;
use doorward::target::Address;
use doorward::target::Http;
use doorward::target::Target;
use doorward::time::Moment;
use http::HeaderValue;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::IntCounter;

use super::Known;
use super::adapter::Message;
use super::adapter::Place;
use super::adapter::Process;
use super::adapter::Terms;
use super::history::Around;
use super::history::BYTES;
use super::history::History;
use super::history::Step;
use super::model::Outcome;
use super::world::Server;
use super::world::World;
use crate::harness::Faults;
use crate::harness::Github;
use crate::harness::Reply;
use crate::harness::Upstream;
use crate::harness::wait_for;
use crate::harness::wait_until;
use crate::queue::QUEUED;
use crate::queue::queued;

/// Everything happens on the first queue.
fn enqueue(lane: Option<u64>) -> Step {
    Step::Enqueue { by: 0, queues: 1, lane, key: None, size: BYTES }
}

const TAKE: Step = Step::Take { by: 0, queue: 0, max: 2 };

fn settle(outcome: Outcome) -> Step {
    Step::Settle { by: 0, which: 0, outcome }
}

fn again(outcome: Outcome) -> Step {
    Step::Again { by: 0, which: 0, outcome }
}

/// A history that is as it should be but for one thing that is known, which it shows.
#[track_caller]
fn assert_shows(fault: Known, server: Option<&Server>, few: usize, steps: Vec<Step>, what: &str) {
    let history = History { lanes: 3, few, bytes: BYTES, steps };
    assert_eq!(World::run(&history, server, None), Ok(()), "nothing else is wrong with it");
    let shown = World::run(&history, server, Some(fault)).expect_err("it is mended");
    assert!(shown.contains(what), "{shown}");
}

#[test]
fn too_many_events_behind_a_head_that_waits_for_its_retry_keep_another_lane_waiting() {
    let steps =
        vec![enqueue(Some(0)), TAKE, settle(Outcome::Retry(40_000)), enqueue(Some(0)), TAKE, enqueue(Some(1)), TAKE];
    assert_shows(Known::TooManyBehind, None, 1, steps, "the dispatcher of queue 0 sleeps while (0, 3) waits");
}

#[test]
fn too_many_events_behind_a_head_keep_it_from_being_tried_again_when_its_time_has_come() {
    let steps = vec![
        enqueue(Some(0)),
        TAKE,
        settle(Outcome::Retry(1000)),
        enqueue(Some(0)),
        TAKE,
        TAKE,
        Step::Around(Around::Advance(3000)),
    ];
    assert_shows(Known::TooManyBehind, None, 1, steps, "the dispatcher of queue 0 sleeps while (0, 1) waits");
}

#[test]
fn events_behind_a_head_that_waits_for_its_retry_keep_another_lane_waiting_after_a_restart() {
    let restart = Step::Restart { by: 0, queues: 3 };
    let steps = vec![
        enqueue(Some(0)),
        TAKE,
        settle(Outcome::Retry(40_000)),
        enqueue(Some(0)),
        enqueue(Some(1)),
        restart,
        TAKE,
        TAKE,
    ];
    assert_shows(Known::ParkedWindow, None, 1, steps, "the dispatcher of queue 0 sleeps while (0, 3) waits");
}

#[test]
fn an_event_whose_attempt_ends_without_a_word_is_not_tried_again_before_a_restart() {
    let steps = vec![enqueue(None), TAKE, Step::Drop { by: 0, which: 0 }];
    assert_shows(Known::DroppedStays, None, 3, steps, "never handed out: [((0, 1)");
}

#[test]
fn a_file_that_is_told_twice_what_came_of_an_attempt_believes_the_last_word() {
    let steps = vec![enqueue(None), TAKE, settle(Outcome::Delivered), again(Outcome::Retry(0))];
    assert_shows(
        Known::ToldTwice,
        None,
        3,
        steps,
        "queue 0 is listed as [(1, Retrying, 1)], and is [(1, Delivered, 1)]",
    );
}

#[test]
fn large_events_are_taken_from_redis_together_and_may_be_more_than_comes_in_time() {
    let steps = vec![enqueue(None), enqueue(None), TAKE];
    assert_shows(Known::HeavyTake, Some(&Server::start()), 2, steps, "2 with 2000 bytes are handed out at once");
}

#[test]
fn a_gateway_that_still_has_an_event_in_hand_is_given_it_again_when_its_lease_is_over() {
    let steps = vec![
        enqueue(None),
        enqueue(None),
        Step::Take { by: 0, queue: 0, max: 1 },
        Step::Around(Around::SetClock(120_000)),
        TAKE,
    ];
    let what = "(0, 1) is handed to the process that still has it in hand";
    assert_shows(Known::TakesItsOwn, Some(&Server::start()), 1, steps, what);
}

#[test]
fn a_replay_in_redis_whose_answer_was_lost_is_answered_as_if_it_had_done_nothing() {
    let lose = Step::Around(Around::LoseAnswer { after: 1 });
    let steps = vec![enqueue(None), TAKE, settle(Outcome::Dead), lose, Step::Replay { by: 0, which: 0 }];
    let what = "a replay of (0, 1), open: Some(false), is answered with Err(Waiting(Retrying))";
    assert_shows(Known::ChangeToldWrong, Some(&Server::start()), 3, steps, what);
}

#[test]
fn what_was_delivered_while_redis_was_away_for_longer_than_the_lease_is_delivered_again() {
    let server = Server::start();
    // What came of it is recorded when Redis has been back for a while; most of the time somebody asks before.
    let again = (0..10).any(|_| {
        server.redis.command::<()>(&["FLUSHALL"]);
        let (clock, hand) = Clock::manual(Moment::now());
        server.faults.stop_clock(clock.now().millis());
        let place = Place::Redis(format!("redis://127.0.0.1:{}", server.proxy.port()));
        let process = Process::start(&place, &Terms::one_queue(&clock, Limits::default()), 1);
        wait_for("Redis", || process.enqueue(0, Message::FIRST).ok());
        let taken = wait_for("the event", || process.take(0, 1).ok()?.pop());
        server.proxy.set_away(true);
        process.settle(0, &taken, Outcome::Delivered);
        // As long as it takes until nobody tries to record it more often than once a second.
        let begun = std::time::Instant::now();
        wait_until("Redis to be given up for a while", || {
            process.take(0, 1).is_err() && begun.elapsed() > Duration::from_secs(2)
        });
        hand.advance(Duration::from_secs(600));
        server.faults.stop_clock(clock.now().millis());
        server.proxy.set_away(false);
        let taken = wait_for("Redis to be back", || process.take(0, 1).ok());
        process.kill();
        !taken.is_empty()
    });
    assert!(again, "it is mended");
}

#[test]
fn an_event_that_was_read_before_another_one_could_not_be_read_is_lost_until_a_restart() {
    const LARGE: usize = 200_000;
    let (faults, folder) = (Faults::new(), tempfile::tempdir().expect("a folder"));
    let nowhere = Upstream::nowhere();
    let settings = queued(&format!("http://{nowhere}/app"), r#", backoff = "1ms", max_backoff = "1ms""#);
    let settings = settings + "[log]\nlevel = \"debug\"\n";
    let gateway = faults.start(folder.path(), &settings);
    assert_eq!(Github::delivery("retried", "{}").send(gateway.address()).text(), QUEUED);
    gateway.logged("a failed attempt", |event| event["message"] == "not delivered yet");
    // The breaker opens, so that the next one waits for its first attempt.
    gateway.logged("a failing upstream", |event| {
        event["message"] == "the upstream fails: it is probed until it takes events again"
    });
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(LARGE));
    assert_eq!(Github::delivery("large", large).send(gateway.address()).text(), QUEUED);
    drop(gateway.kill());
    // It is started where there is too little memory for the large one, for a while.
    faults.refuse_memory(LARGE);
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    let gateway = faults.start(folder.path(), &settings);
    gateway.logged("a read that failed", |event| event["message"] == "nothing can be taken off the queue");
    faults.give_memory();
    upstream.wait_for(1);
    assert_eq!(Github::delivery("later", "[]").send(gateway.address()).text(), QUEUED);
    upstream.wait_for(2);
    assert_eq!(upstream.ids(), ["large", "later"], "it is mended: \"retried\" was due long ago");
}

#[test]
fn one_event_that_is_always_answered_with_500_keeps_a_good_one_waiting() {
    let upstream = Upstream::with(|_, message| Reply::Status(if message.body.len() == 1 { 500 } else { 200 }, ""));
    let (clock, hand) = Clock::manual(Moment::now());
    let dispatch = limits::Dispatch {
        breaker_threshold: 2,
        breaker_pause: Duration::from_secs(1),
        breaker_max_pause: Duration::from_secs(1),
        ..limits::Dispatch::default()
    };
    let place = Place::sqlite();
    let process = Process::start(&place, &Terms::one_queue(&clock, Limits::default()), 1);
    let address = Address::parse(&upstream.url()).expect("an address");
    let counter = |name: &str| IntCounter::new(name, "a test's").expect("a counter");
    let courier = Courier {
        source: "q0".to_owned(),
        backlog: process.backlog.clone(),
        queue: 0,
        upstream: Target::Http(Box::new(Http::new(address, Duration::from_secs(5), 1000))),
        policy: Policy {
            max_attempts: 1000,
            max_age: Duration::from_secs(24 * 60 * 60),
            backoff: Duration::ZERO,
            max_backoff: Duration::ZERO,
            permanent: Vec::new(),
        },
        timeout: Duration::from_secs(5),
        concurrency: 4,
        gate: Gate::new(Breaker::new(dispatch.clone())),
        clock,
        limits: dispatch,
        metrics: CourierMetrics {
            delivered: counter("delivered"),
            retried: counter("retried"),
            dead: counter("dead"),
            upstream_duration: Histogram::with_opts(HistogramOpts::new("upstream", "a test's")).expect("a histogram"),
        },
    };
    let _on_it = process.runtime().enter();
    courier.start(&Supervisor::default(), std::future::pending);
    let attempts = |count: usize| {
        wait_until("an attempt", || {
            hand.advance(Duration::from_secs(2));
            upstream.received().len() >= count
        });
    };
    assert_eq!(process.enqueue(0, Message::FIRST), Ok(true));
    attempts(2);
    assert_eq!(process.enqueue(0, Message { serial: 2, key: 2, size: 2, ..Message::FIRST }), Ok(true));
    // In this time it is left alone and probed again several times, always with the same one.
    attempts(8);
    assert!(upstream.received().iter().all(|message| message.body.len() == 1), "it is mended");
    process.kill();
}
