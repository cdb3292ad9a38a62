//! What operators do with the store in Redis: they list deliveries, show them, replay them and purge them.

use std::time::Duration;

use doorward::base::limits::Limits;
use doorward::store::AdminError;
use doorward::store::Filter;
use doorward::store::State;
use doorward::store::Summary;
use doorward::store::TakeLimit;

use crate::harness::fault::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::wait_until;
use crate::redis::store::KEEP;
use crate::redis::store::Process;
use crate::redis::store::SHOP;
use crate::redis::store::dead;
use crate::redis::store::delivered;
use crate::redis::store::retry;
use crate::redis::store::standing;

const TWO: [(&str, &str); 2] = [(SHOP, "app"), (SHOP, "mail")];

fn in_state(state: State) -> Filter {
    Filter { state: Some(state), ..Filter::default() }
}

fn events(list: &[Summary]) -> Vec<&str> {
    list.iter().map(|delivery| delivery.event_id.as_str()).collect()
}

/// Keys of messages and deliveries; those of dedupe records go by themselves.
fn keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.command(&["KEYS", "*"]);
    keys.retain(|key| key.contains(":d:") || key.ends_with(":events"));
    keys.sort();
    keys
}

#[test]
fn deliveries_are_listed_by_state_newest_first_and_shown_with_their_message() {
    let redis = Redis::start();
    let mut limits = Limits::default();
    (limits.redis.list_page, limits.redis.list_step, limits.redis.max_scanned) = (2, 1, 2);
    let process = Process::with(&redis.url(), &[(SHOP, "default")], limits, standing());
    (0..4).for_each(|event| process.enqueue(event, None));
    process.enqueue(4, Some(1));
    process.enqueue(5, Some(1));
    let mut taken = process.take(3);
    process.settle(taken.remove(0), delivered());
    process.settle(taken.remove(0), retry(60));
    process.settle(taken.remove(0), dead());
    let all = process.list(&Filter::default());
    assert_eq!(events(&all), ["5", "4", "3", "2", "1", "0"]);
    let states: Vec<_> = all.iter().map(|delivery| delivery.state).collect();
    let waiting = [State::Blocked, State::Queued, State::Queued];
    assert_eq!(states, [&waiting[..], &[State::Dead, State::Retrying, State::Delivered]].concat());
    for (state, wanted) in [
        (State::Blocked, vec!["5"]),
        (State::Queued, vec!["4", "3"]),
        (State::Retrying, vec!["1"]),
        (State::Dead, vec!["2"]),
        (State::Delivered, vec!["0"]),
    ] {
        assert_eq!(events(&process.list(&in_state(state))), wanted, "{state:?}");
    }
    let one = Filter { id: Some("3".to_owned()), kind: Some("order".to_owned()), ..Filter::default() };
    assert_eq!(events(&process.list(&one)), ["3"]);
    assert!(process.list(&Filter { kind: Some("other".to_owned()), ..Filter::default() }).is_empty());
    let later = Filter { from: Some(all[0].received_at.after(Duration::from_millis(1))), ..Filter::default() };
    assert!(process.list(&later).is_empty());
    let shown = process.run(process.store.show(SHOP, all[4].id)).expect("it is there");
    assert_eq!(shown.deliveries.len(), 1);
    assert_eq!(shown.deliveries[0], all[4]);
    assert_eq!(all[4].failures.list()[0].answer, "no");
    assert_eq!(shown.message.expect("a message").body.len(), 10);
    process.stats("what was settled", |stats| (stats.queued, stats.retrying, stats.dead) == (2, 1, 1));
}

#[test]
fn a_message_goes_to_each_of_its_destinations_and_with_the_last_delivery_it_is_purged() {
    let redis = Redis::start();
    let process = Process::with(&redis.url(), &TWO, Limits::default(), standing());
    process.enqueue(1, Some(1));
    process.enqueue(2, Some(1));
    let list = process.list(&Filter::default());
    assert_eq!(
        list.iter().map(|delivery| delivery.destination.as_str()).collect::<Vec<_>>(),
        ["app", "mail"].repeat(2)
    );
    for queue in &process.queues {
        let want = TakeLimit { max: 9, bytes: usize::MAX };
        for _both in 0..2 {
            let taken = process.run(process.store.take(queue, want)).expect("an answer").deliveries;
            assert_eq!(taken.len(), 1, "its lane holds the other one");
            taken.into_iter().for_each(|delivery| process.settle(delivery, dead()));
        }
    }
    let purge = |filter: &Filter| process.run(process.store.purge(filter, None, 9)).expect("purged").deliveries;
    let mail = Filter { destination: Some("mail".to_owned()), ..Filter::default() };
    assert_eq!(purge(&mail), 2);
    assert_eq!(purge(&mail), 0);
    assert_eq!(process.list(&Filter::default()).len(), 2);
    assert_eq!(redis.command::<u64>(&["XLEN", "doorward:{shop}:events"]), 2);
    assert_eq!(purge(&Filter::default()), 2);
    assert!(process.list(&Filter::default()).is_empty());
    assert_eq!(keys(&redis), ["doorward:{shop}:events"], "an empty stream");
    assert_eq!(redis.command::<u64>(&["XLEN", "doorward:{shop}:events"]), 0);
}

#[test]
fn what_is_replayed_is_delivered_again_in_the_order_of_its_lane() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    (0..3).for_each(|event| process.enqueue(event, Some(1)));
    process.take(9).into_iter().for_each(|delivery| process.settle(delivery, dead()));
    process.take(9).into_iter().for_each(|delivery| process.settle(delivery, delivered()));
    let list = process.list(&Filter::default());
    let replay = |at: usize, destination| process.run(process.store.replay(SHOP, list[at].id, destination));
    assert!(matches!(replay(0, None), Err(AdminError::Waiting(State::Queued))));
    assert!(matches!(replay(0, Some("other")), Err(AdminError::NoSuchDestination(..))));
    assert_eq!(replay(2, None).expect("replayed"), 1);
    assert!(matches!(replay(2, None), Err(AdminError::Waiting(State::Blocked))));
    let all = in_state(State::Delivered);
    assert_eq!(process.run(process.store.replay_all(&all, None, 9, |_| true)).expect("replayed").deliveries, 1);
    // Event 2 is the head, and is not overtaken.
    assert_eq!(process.states(), [State::Queued, State::Blocked, State::Blocked]);
    assert_eq!(process.numbers(9), ["2"]);
    process.take(9).into_iter().for_each(|delivery| process.settle(delivery, delivered()));
    let taken = process.take(9);
    assert_eq!((taken.len(), taken[0].tries().attempts, taken[0].tries().before_replay), (1, 1, 1));
    assert_eq!(String::from_utf8_lossy(taken[0].message().event_id.as_bytes()), "0");
    taken.into_iter().for_each(|delivery| process.settle(delivery, dead()));
    assert_eq!(process.numbers(9), ["1"]);
    let gone = process.run(process.store.replay("nobody", list[0].id, None));
    assert!(matches!(gone, Err(AdminError::NoSuchSource(..))), "{gone:?}");
}

#[test]
fn a_replay_or_a_purge_says_what_it_did_although_its_first_answer_was_lost() {
    let redis = Redis::start();
    let (proxy, clock) = (Proxy::before(redis.port()), standing());
    let start = |url: &str| Process::with(url, &[(SHOP, "default")], Limits::default(), clock.clone());
    let (process, operator) = (start(&redis.url()), start(&format!("redis://127.0.0.1:{}", proxy.port())));
    process.enqueue(1, None);
    process.take(9).into_iter().for_each(|delivery| process.settle(delivery, dead()));
    let id = process.list(&Filter::default())[0].id;
    operator.run(operator.store.show(SHOP, id)).expect("it is there");
    // Whose destinations there are, and what is to be replayed.
    proxy.lose_answer(2);
    assert_eq!(operator.run(operator.store.replay(SHOP, id, None)).expect("replayed"), 1);
    process.take(9).into_iter().for_each(|delivery| process.settle(delivery, dead()));
    // Destinations, list, and destinations again.
    proxy.lose_answer(3);
    assert_eq!(operator.run(operator.store.purge(&Filter::default(), None, 9)).expect("purged").deliveries, 1);
}

#[test]
fn what_is_delivered_is_kept_for_its_time_and_then_deleted() {
    let redis = Redis::start();
    let process = Process::with(&redis.url(), &TWO, Limits::default(), standing());
    (0..3).for_each(|event| process.enqueue(event, None));
    let want = TakeLimit { max: 9, bytes: usize::MAX };
    let take =
        |queue: usize| process.run(process.store.take(&process.queues[queue], want)).expect("an answer").deliveries;
    take(0).into_iter().for_each(|delivery| process.settle(delivery, delivered()));
    let mut taken = take(1);
    let length = || redis.command::<u64>(&["XLEN", "doorward:{shop}:events"]);
    process.settle(taken.remove(0), delivered());
    process.settle(taken.remove(0), dead());
    process.settle(taken.remove(0), retry(1));
    process.clock.advance(KEEP - Duration::from_mins(5));
    process.stats("a look", |stats| stats.oldest.is_none() && stats.queued == 0);
    assert_eq!(length(), 3);
    process.clock.advance(Duration::from_mins(6));
    wait_until("the sweep", || {
        process.clock.advance(Duration::from_secs(31));
        length() == 2
    });
    assert_eq!(events(&process.list(&Filter::default())), ["2", "2", "1", "1"]);
    assert_eq!(redis.command::<u64>(&["HLEN", "doorward:{shop}:d:app:records"]), 2);
}
