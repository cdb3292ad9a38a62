//! The store in Redis while answers are slow or lost, a process or Redis sleeps, or something is damaged.

use std::time::Duration;
use std::time::Instant;

use doorward::base::limits::Limits;
use doorward::store::Enqueued;
use doorward::store::Filter;
use doorward::store::State;
use doorward::store::Stats;

use crate::harness::fault::proxy::Proxy;
use crate::harness::free_port;
use crate::harness::redis::Redis;
use crate::harness::redis::cluster::Cluster;
use crate::harness::redis::cluster::join_cluster;
use crate::harness::wait_for;
use crate::harness::wait_until;
use crate::redis::store::LEASE;
use crate::redis::store::Process;
use crate::redis::store::SHOP;
use crate::redis::store::dead;
use crate::redis::store::delivered;
use crate::redis::store::number;
use crate::redis::store::retry;
use crate::redis::store::standing;

fn through(redis: &Redis) -> (Proxy, Process) {
    let proxy = Proxy::before(redis.port());
    let process = Process::start(&format!("redis://127.0.0.1:{}", proxy.port()));
    (proxy, process)
}

#[test]
fn eight_bodies_of_a_mebibyte_come_over_a_slow_link_one_after_the_other() {
    let redis = Redis::start();
    let (proxy, process) = through(&redis);
    for event in 0..8 {
        assert_eq!(process.try_enqueue(event, None, 1024 * 1024).expect("stored"), Enqueued::Stored);
    }
    // Eight of them take longer than a request or a take may.
    proxy.slow_down(1500);
    let begun = Instant::now();
    for event in 0..8 {
        let taken = process.take(8);
        assert_eq!(taken.iter().map(number).collect::<Vec<_>>(), [event.to_string()]);
        taken.into_iter().for_each(|delivery| delivery.settle(delivered()));
    }
    assert!(begun.elapsed() > Duration::from_secs(5), "it was slow: {:?}", begun.elapsed());
    process.flush();
    assert_eq!(process.states(), [State::Delivered; 8]);
}

#[test]
fn what_is_queued_is_there_once_although_the_answer_was_lost() {
    let redis = Redis::start();
    let (proxy, process) = through(&redis);
    process.enqueue(1, None);
    proxy.lose_answer(0);
    process.enqueue(2, None);
    assert_eq!(process.numbers(9), ["1", "2"]);
}

#[test]
fn what_a_lost_answer_has_claimed_is_back_after_its_lease() {
    let redis = Redis::start();
    let (proxy, process) = through(&redis);
    (0..3).for_each(|event| process.enqueue(event, None));
    assert_eq!(process.take(1).len(), 1);
    process.flush();
    proxy.lose_answer(0);
    drop(process.take(2));
    process.clock.advance(LEASE);
    process.flush();
    let all = wait_for("all to be back", || {
        let mut numbers = process.numbers(9);
        numbers.sort();
        (numbers.len() == 3).then_some(numbers)
    });
    assert_eq!(all, ["0", "1", "2"]);
}

#[test]
fn outcomes_are_recorded_once_although_the_answer_was_lost() {
    let redis = Redis::start();
    let (proxy, process) = through(&redis);
    (0..2).for_each(|event| process.enqueue(event, None));
    let mut taken = process.take(9);
    process.settle(taken.remove(0), retry(60));
    proxy.lose_answer(0);
    process.settle(taken.remove(0), retry(60));
    assert_eq!(process.list(&Filter::default()).iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_process_that_slept_longer_than_its_lease_takes_nothing_twice_at_once() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    process.enqueue(1, None);
    process.enqueue(2, None);
    let mut held = process.take(9);
    process.clock.advance(LEASE * 2);
    assert!(process.take(9).is_empty(), "they are in hand");
    // What fails now counts, since the claim is this process's again.
    process.settle(held.remove(0), retry(60));
    process.settle(held.remove(0), delivered());
    assert_eq!(process.states(), [State::Delivered, State::Retrying]);
    process.clock.advance(Duration::from_secs(60));
    assert_eq!(process.numbers(9), ["1"]);
}

#[test]
fn what_was_delivered_while_redis_was_away_for_longer_than_the_lease_is_not_delivered_again() {
    let redis = Redis::start();
    let (proxy, process) = through(&redis);
    process.enqueue(1, None);
    let held = process.take(9).pop().expect("one");
    proxy.set_away(true);
    held.settle(delivered());
    process.clock.advance(LEASE * 2);
    proxy.set_away(false);
    wait_until("Redis to be there", || process.try_take(9).is_ok_and(|taken| taken.deliveries.is_empty()));
    process.flush();
    assert_eq!(process.states(), [State::Delivered]);
}

#[test]
fn nothing_more_is_taken_while_as_many_outcomes_as_may_be_are_not_recorded() {
    let redis = Redis::start();
    let mut limits = Limits::default();
    limits.redis.max_in_hand = 2;
    let proxy = Proxy::before(redis.port());
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let process = Process::with(&url, &[(SHOP, "default")], limits, standing());
    (0..3).for_each(|event| process.enqueue(event, None));
    let held = process.take(9);
    assert_eq!(held.len(), 2);
    proxy.set_away(true);
    held.into_iter().for_each(|delivery| delivery.settle(delivered()));
    let why = process.try_take(9).expect_err("refused").to_string();
    assert!(why.contains("does not record"), "{why}");
    proxy.set_away(false);
    process.flush();
    assert_eq!(process.numbers(9), ["2"]);
}

#[test]
fn an_event_that_cannot_be_read_is_a_dead_letter_and_its_lane_goes_on() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    process.enqueue(1, Some(1));
    process.enqueue(2, Some(1));
    let many: Vec<_> = (0..33_000).map(|number| format!("[\"x-{number}\",\"\"]")).collect();
    let headers = format!("[{}]", many.join(","));
    let damage = |id: &str, to: &str, headers: &str| {
        let request = format!(r#"{{"method":"POST","target":"/","trace":null,"verified":true,"headers":{headers}}}"#);
        let fields = ["to", to, "id", "7", "received_at", "1", "request", &request, "body", ""];
        redis.command::<()>(&[&["XADD", "doorward:{shop}:events", id], &fields[..]].concat());
        redis.command::<()>(&["ZADD", "doorward:{shop}:d:default:open", "9999999999999", id]);
        redis.command::<()>(&["RPUSH", "doorward:{shop}:d:default:ready", id]);
    };
    damage("9999999999999-1", "default", &headers);
    damage("9999999999999-2", "\u{1}", "[]");
    redis.command::<()>(&["HSET", "doorward:{shop}:d:default:records", "9999999999999-2", "nonsense"]);
    redis.command::<()>(&["HSET", "doorward:{shop}:d:default:lanes", "00000000000000ff", "9999999999999-2"]);
    let place = format!("00000000000000ff:{:020}-{:020}", 9_999_999_999_999_u64, 3);
    redis.command::<()>(&["ZADD", "doorward:{shop}:d:default:blocked", "0", &place]);
    let held = process.take(9);
    assert_eq!(held.iter().map(number).collect::<Vec<_>>(), ["1"]);
    process.flush();
    // One is too large for the other.
    for _take in 0..2 {
        assert!(process.take(9).is_empty());
        process.flush();
    }
    let list = process.list(&Filter { state: Some(State::Dead), ..Filter::default() });
    let reasons: Vec<_> = list.iter().map(|delivery| delivery.failures.list()[0].reason.clone()).collect();
    assert_eq!(reasons, ["damaged in Redis"; 2]);
    let shown = process.run(process.store.show(SHOP, list[0].id)).expect("it is there");
    assert_eq!(shown.message, None);
    let ready: Vec<String> = redis.command(&["LRANGE", "doorward:{shop}:d:default:ready", "0", "-1"]);
    assert_eq!(ready, ["9999999999999-3"], "the next one of its lane");
    assert!(process.take(9).is_empty(), "which is not there");
    drop(held);
}

#[test]
fn an_outcome_that_redis_refuses_is_left_alone_and_the_others_are_recorded() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    (0..20).for_each(|event| process.enqueue(event, (event == 7).then_some(1)));
    // Nothing can leave a lane.
    redis.command::<()>(&["SET", "doorward:{shop}:d:default:blocked", "no set"]);
    process.take(20).into_iter().for_each(|delivery| delivery.settle(delivered()));
    process.flush();
    let doorward::store::Store::Redis(store) = &process.store else { panic!("it is Redis") };
    assert_eq!(store.refused().get(), 1);
    redis.command::<()>(&["DEL", "doorward:{shop}:d:default:blocked"]);
    process.clock.advance(LEASE);
    assert_eq!(process.numbers(20), ["7"]);
}

#[test]
fn a_message_that_cannot_be_queued_is_not_stored_either() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    for key in ["ready", "open"] {
        let key = format!("doorward:{{shop}}:d:default:{key}");
        redis.command::<()>(&["SET", &key, "of another type"]);
        for _again in 0..3 {
            let why = process.try_enqueue(1, None, 10).expect_err("refused").to_string();
            assert!(why.contains("WRONGTYPE"), "{why}");
        }
        assert_eq!(redis.command::<usize>(&["XLEN", "doorward:{shop}:events"]), 0);
        redis.command::<()>(&["DEL", &key]);
    }
    process.enqueue(1, None);
    assert_eq!(process.numbers(9), ["1"]);
}

#[test]
fn a_redis_without_memory_still_hands_out_and_records() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    (0..2).for_each(|event| process.enqueue(event, None));
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(process.try_enqueue(2, None, 10).is_err());
    let mut taken = process.take(9);
    process.settle(taken.remove(0), delivered());
    process.settle(taken.remove(0), dead());
    assert_eq!(process.states(), [State::Dead, State::Delivered]);
}

#[test]
fn what_somebody_has_deleted_by_hand_holds_up_nothing() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    (0..3).for_each(|event| process.enqueue(event, Some(1)));
    let list = process.list(&Filter::default());
    redis.command::<()>(&["XDEL", "doorward:{shop}:events", &list[2].id.to_string(), &list[1].id.to_string()]);
    wait_until("the third to be taken", || process.take(9).len() == 1);
    process.stats("one to be left", |stats| stats.queued + stats.blocked == 1);
}

#[test]
fn a_lane_goes_on_whose_head_was_never_stored_or_is_forgotten() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    let key = |name: &str| format!("doorward:{{shop}}:d:default:{name}");
    redis.command::<()>(&["SET", &key("ready"), "of another type"]);
    process.try_enqueue(1, Some(1), 10).expect_err("refused");
    redis.command::<()>(&["DEL", &key("ready")]);
    (1..3).for_each(|event| process.enqueue(event, Some(1)));
    let mut first = process.take(9);
    assert_eq!(first.iter().map(number).collect::<Vec<_>>(), ["1"]);
    redis.command::<()>(&["DEL", &key("lanes")]);
    process.enqueue(3, Some(2));
    process.settle(first.remove(0), delivered());
    wait_until("the second of the lane", || {
        let mut numbers = process.numbers(9);
        numbers.sort_unstable();
        numbers == ["2", "3"]
    });
}

#[test]
fn a_key_that_is_deleted_by_hand_costs_no_delivery_and_no_order() {
    for key in ["ready", "due", "lanes", "blocked", "retrying", "open"] {
        let redis = Redis::start();
        let process = Process::start(&redis.url());
        // Two lanes, and what has none; some are claimed, some wait for another attempt, and some are done.
        let lane = |event: u32| (event % 3 < 2).then_some(u64::from(event % 3));
        (0..15).for_each(|event| process.enqueue(event, lane(event)));
        let mut taken = process.take(4);
        process.settle(taken.remove(0), retry(5));
        process.settle(taken.remove(0), delivered());
        redis.command::<()>(&["DEL", &format!("doorward:{{shop}}:d:default:{key}")]);
        drop(taken);
        let mut came = Vec::new();
        wait_until(&format!("all to come without {key}"), || {
            process.clock.advance(Duration::from_secs(31));
            for delivery in process.take(20) {
                came.push(number(&delivery).parse::<u32>().expect("a number"));
                process.settle(delivery, delivered());
            }
            came.len() >= 14
        });
        process.stats("nothing to be left", |stats| stats == Stats::default());
        assert!(process.states().iter().all(|state| *state == State::Delivered), "{key}");
        for lane in 0..2 {
            let of_lane: Vec<_> = came.iter().filter(|event| **event % 3 == lane).collect();
            assert!(of_lane.is_sorted(), "{key}: {came:?}");
        }
        came.sort_unstable();
        came.dedup();
        assert_eq!(came.len(), 14, "{key}: each came once: {came:?}");
    }
}

#[test]
fn a_due_time_far_ahead_is_a_clock_that_was_set() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    process.enqueue(1, None);
    process.take(9).into_iter().for_each(|delivery| process.settle(delivery, retry(26 * 3600)));
    wait_until("it to be due", || {
        process.clock.advance(Duration::from_secs(31));
        process.take(9).len() == 1
    });
}

#[test]
fn a_redis_that_has_lost_its_data_is_used_again() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    process.enqueue(1, None);
    let held = process.take(9).pop().expect("one");
    redis.command::<()>(&["FLUSHALL"]);
    process.settle(held, delivered());
    process.enqueue(2, None);
    assert_eq!(process.numbers(9), ["2"]);
    assert_eq!(process.states(), [State::Queued]);
}

#[test]
fn each_source_of_a_cluster_is_on_its_node() {
    let cluster = Cluster::start();
    let sources = ["a", "b", "shop", "d"].map(|source| (source, "default"));
    let process = Process::with(&cluster.url(), &sources, Limits::default(), standing());
    for (at, (source, _)) in sources.iter().enumerate() {
        let mut message = crate::redis::store::message(1, 10);
        message.source = http::HeaderValue::from_static(source);
        let (once, to) = (crate::redis::store::once(&message, 1), process.to(None).remove(at));
        let stored = process.run(process.store.enqueue(std::sync::Arc::new(message), &[to], Some(&once)));
        assert_eq!(stored.expect("stored"), Enqueued::Stored);
        let want = doorward::store::TakeLimit { max: 9, bytes: usize::MAX };
        let taken = process.run(process.store.take(&process.queues[at], want)).expect("an answer").deliveries;
        taken.into_iter().for_each(|delivery| process.settle(delivery, dead()));
    }
    assert_eq!(process.states(), [State::Dead; 4]);
    let replayed = process.run(process.store.replay_all(&Filter::default(), None, 9, |_| true)).expect("replayed");
    assert_eq!(replayed.deliveries, 4);
    assert_eq!(process.states(), [State::Retrying; 4]);
}

#[test]
fn all_sources_of_a_cluster_share_the_connections_to_a_node() {
    let bus = |_| free_port().to_string();
    let node = |bus: String| Redis::with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let nodes: Vec<_> = (0..3).map(bus).map(node).collect();
    join_cluster(&nodes);
    let names: Vec<_> = (0..20).map(|number| format!("source-{number}")).collect();
    let sources: Vec<_> = names.iter().map(|name| (name.as_str(), "default")).collect();
    let url = format!("redis-cluster://127.0.0.1:{}", nodes[0].port());
    let process = Process::with(&url, &sources, Limits::default(), standing());
    let everything = || {
        for (name, queue) in names.iter().zip(&process.queues) {
            let want = doorward::store::TakeLimit { max: 9, bytes: usize::MAX };
            process.run(process.store.take(queue, want)).expect("an answer");
            let filter = Filter { source: Some(name.clone()), ..Filter::default() };
            process.run(process.store.list(&filter, None, 9)).expect("a page");
        }
    };
    let most = || nodes.iter().map(connections).max().expect("nodes");
    everything();
    wait_until("a connection for requests, one for takes, and one for all else", || most() <= 3);
    // All of them lose it at one time.
    for node in &nodes {
        node.command::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    everything();
    wait_until("no more than before", || most() <= 3);
}

/// Connections of gateways to a server.
fn connections(redis: &Redis) -> usize {
    let clients: String = redis.command(&["CLIENT", "LIST", "TYPE", "normal"]);
    clients.lines().count() - 1
}
