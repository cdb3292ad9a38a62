//! The store in Redis, by its own interface.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use doorward::base::clock::Clock;
use doorward::base::clock::Manual;
use doorward::base::limits::Limits;
use doorward::base::supervisor::Supervisor;
use doorward::base::time::Moment;
use doorward::message::Message;
use doorward::store::Delivery;
use doorward::store::DestinationId;
use doorward::store::Earlier;
use doorward::store::Enqueued;
use doorward::store::FailedAttempt;
use doorward::store::Filter;
use doorward::store::Keyspace;
use doorward::store::Kind;
use doorward::store::KnownBy;
use doorward::store::Once;
use doorward::store::Options;
use doorward::store::Outcome;
use doorward::store::Queue;
use doorward::store::QueueTerms;
use doorward::store::RedisUrl;
use doorward::store::Route;
use doorward::store::State;
use doorward::store::Stats;
use doorward::store::Store;
use doorward::store::Summary;
use doorward::store::TakeLimit;
use doorward::store::Taken;
use doorward::store::Token;
use doorward::store::Unavailable;
use doorward::verify::event_key::Key;
use doorward::verify::event_key::Keys;
use doorward::verify::event_key::Lane;
use http::HeaderValue;
use http::Method;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::harness::redis::Redis;
use crate::harness::wait_until;

pub const KEEP: Duration = Duration::from_secs(3600);
pub const LEASE: Duration = Duration::from_secs(60);
pub const SHOP: &str = "shop";

/// One gateway process, as far as its store goes.
pub struct Process {
    runtime: Handle,
    pub store: Store,
    pub queues: Vec<Queue>,
    pub clock: Arc<Manual>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A clock that shows the time of the machine, and stands still.
pub fn standing() -> (Clock, Arc<Manual>) {
    Clock::manual(Moment::now())
}

impl Process {
    pub fn start(url: &str) -> Self {
        Self::with(url, &[(SHOP, "default")], Limits::default(), standing())
    }

    pub fn with(url: &str, queues: &[(&str, &str)], limits: Limits, clock: (Clock, Arc<Manual>)) -> Self {
        Self::try_with(url, queues, limits, clock).expect("it starts")
    }

    #[expect(clippy::needless_pass_by_value, reason = "calls are shorter")]
    pub fn try_with(
        url: &str,
        queues: &[(&str, &str)],
        limits: Limits,
        (clock, manual): (Clock, Arc<Manual>),
    ) -> Result<Self, Unavailable> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (end, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || drop(runtime.block_on(ended)));
        let supervisor = Supervisor::default();
        let spaces: Vec<_> = queues.iter().map(|(source, _)| Keyspace::of_source(source)).collect();
        let options = Options {
            kind: &Kind::Redis(RedisUrl::parse(url).expect("an address")),
            spaces: &spaces,
            max_events: 0,
            min_free: 0,
            fsync: false,
            timeout: Duration::from_millis(500),
            durability: None,
            lease: LEASE,
            limits: &limits,
            clocks: (clock.clone(), clock),
            supervisor: &supervisor,
        };
        let store = Store::open(&options).expect("a store");
        let terms = |(source, name): &(&str, &str)| {
            let id = DestinationId { source: (*source).to_owned(), name: (*name).to_owned() };
            QueueTerms { id, keep: KEEP }
        };
        let terms: Vec<_> = queues.iter().map(terms).collect();
        let queues = handle.block_on(store.register(&terms))?;
        handle.block_on(async { store.maintain(&supervisor) });
        Ok(Self { runtime: handle, store, queues, clock: manual, end: Some(end), thread: Some(thread) })
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn to(&self, lane: Option<u64>) -> Vec<Route> {
        self.queues.iter().map(|queue| Route { queue: queue.clone(), lane: lane.map(Lane) }).collect()
    }

    pub fn try_enqueue(&self, number: u32, lane: Option<u64>, size: usize) -> Result<Enqueued, Unavailable> {
        let message = message(number, size);
        let once = once(&message, u128::from(number));
        self.run(self.store.enqueue(Arc::new(message), &self.to(lane), Some(&once)))
    }

    pub fn enqueue(&self, number: u32, lane: Option<u64>) {
        assert_eq!(self.try_enqueue(number, lane, 10).expect("stored"), Enqueued::Stored);
    }

    pub fn try_take(&self, max: usize) -> Result<Taken, Unavailable> {
        self.run(self.store.take(&self.queues[0], TakeLimit { max, bytes: usize::MAX }))
    }

    pub fn take(&self, max: usize) -> Vec<Delivery> {
        self.try_take(max).expect("an answer").deliveries
    }

    /// The numbers of what is taken, which is given back.
    pub fn numbers(&self, max: usize) -> Vec<String> {
        let taken = self.take(max);
        let numbers = taken.iter().map(number).collect();
        drop(taken);
        self.flush();
        numbers
    }

    pub fn flush(&self) {
        for queue in &self.queues {
            self.run(self.store.flush(queue)).expect("recorded");
        }
    }

    pub fn settle(&self, delivery: Delivery, outcome: Outcome) {
        delivery.settle(outcome);
        self.flush();
    }

    /// What a look shows from now on.
    pub fn stats(&self, wanted: &str, is: impl Fn(Stats) -> bool) {
        wait_until(wanted, || {
            self.clock.advance(Duration::from_millis(10));
            self.clock.advance(Duration::from_secs(2));
            is(self.run(self.store.stats(&self.queues[0])).expect("stats"))
        });
    }

    pub fn list(&self, filter: &Filter) -> Vec<Summary> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.run(self.store.list(filter, after, 2)).expect("a page");
            all.extend(page.deliveries);
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    pub fn states(&self) -> Vec<State> {
        self.list(&Filter::default()).iter().map(|delivery| delivery.state).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.end.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

pub fn message(number: u32, size: usize) -> Message {
    Message {
        source: HeaderValue::from_static(SHOP),
        event_id: HeaderValue::from(number),
        kind: Some(HeaderValue::from_static("order")),
        received_at: Moment::now(),
        method: Method::POST,
        headers: vec![(http::HeaderName::from_static("x-a"), HeaderValue::from_static("b"))],
        body: Bytes::from(vec![b'x'; size]),
        target: "/in?a=1".into(),
        trace: None,
        verified: true,
        keys: Some(Keys { id: Key(u128::from(number).to_be_bytes()), guard: None, ignored: None }),
    }
}

pub fn once(message: &Message, token: u128) -> Once {
    let source = message.source.to_str().expect("a name");
    Once { space: Keyspace::of_source(source), keys: message.keys.expect("keys"), token: Token(token), ttl: KEEP }
}

pub fn number(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().event_id.as_bytes().to_vec()).expect("text")
}

pub fn delivered() -> Outcome {
    Outcome::Delivered { at: Moment::now(), status: Some(204) }
}

pub fn failed() -> FailedAttempt {
    let reason = "it answered 500".to_owned();
    FailedAttempt { at: Moment::now(), ms: 3, status: Some(500), reason, answer: "no".to_owned() }
}

pub fn retry(after: u64) -> Outcome {
    Outcome::Retry { after: Duration::from_secs(after), failed: failed() }
}

pub fn dead() -> Outcome {
    Outcome::Dead { failed: failed() }
}

#[test]
fn what_is_queued_is_taken_as_it_was_once_and_is_known_from_then_on() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    let sent = message(1, 10);
    let enqueue = |token| {
        let once = once(&sent, token);
        process.run(process.store.enqueue(Arc::new(sent.clone()), &process.to(None), Some(&once))).expect("an answer")
    };
    assert_eq!(process.run(process.store.claim(&once(&sent, 7), LEASE)).expect("an answer"), None);
    assert!(matches!(enqueue(8), Enqueued::Earlier(Earlier::InFlight(_))), "another attempt has a claim");
    assert_eq!(enqueue(7), Enqueued::Stored, "its own claim is no obstacle");
    assert_eq!(enqueue(7), Enqueued::Stored, "the same attempt asks again");
    assert_eq!(enqueue(8), Enqueued::Earlier(Earlier::Finished(KnownBy::Id)));
    let mut taken = process.take(9);
    let delivery = taken.pop().expect("one");
    assert!(taken.is_empty());
    assert_eq!(**delivery.message(), Message { keys: None, ..sent.clone() });
    assert!(process.take(9).is_empty());
    process.settle(delivery, retry(5));
    assert!(process.take(9).is_empty());
    let next = process.try_take(9).expect("an answer").next_due.expect("a due time");
    assert_eq!(next, Clock::Manual(Arc::clone(&process.clock)).instant() + Duration::from_secs(5));
    process.clock.advance(Duration::from_secs(5));
    let delivery = process.take(9).pop().expect("it is due");
    assert_eq!((delivery.tries().attempts, delivery.tries().failures.list()), (1, vec![failed_at(&delivery)]));
    process.settle(delivery, delivered());
    process.clock.advance(LEASE * 2);
    assert!(process.take(9).is_empty());
    let list = process.list(&Filter::default());
    assert_eq!((list[0].state, list[0].attempts, list[0].status), (State::Delivered, 2, Some(204)));
}

fn failed_at(delivery: &Delivery) -> FailedAttempt {
    FailedAttempt { at: delivery.tries().failures.list()[0].at, ..failed() }
}

#[test]
fn a_claim_that_is_not_settled_is_due_again_when_its_lease_is_over() {
    let redis = Redis::start();
    let clock = standing();
    let one = Process::with(&redis.url(), &[(SHOP, "default")], Limits::default(), clock.clone());
    let other = Process::with(&redis.url(), &[(SHOP, "default")], Limits::default(), clock);
    one.enqueue(1, None);
    let held = one.take(9).pop().expect("one");
    one.clock.advance(LEASE - Duration::from_millis(1));
    assert!(other.take(9).is_empty());
    one.clock.advance(Duration::from_millis(1));
    let mut taken = other.take(9);
    // What failed counts for nothing when the lease is lost.
    one.settle(held, dead());
    assert_eq!(one.states(), [State::Queued]);
    other.settle(taken.pop().expect("one"), retry(0));
    assert_eq!(one.states(), [State::Retrying]);
}

#[test]
fn a_success_counts_although_the_lease_is_lost_but_not_after_a_replay() {
    let redis = Redis::start();
    let clock = standing();
    let start = || Process::with(&redis.url(), &[(SHOP, "default")], Limits::default(), clock.clone());
    let [one, two, three] = [start(), start(), start()];
    one.enqueue(1, None);
    let late = one.take(9).pop().expect("one");
    one.clock.advance(LEASE);
    let later = two.take(9).pop().expect("one");
    one.clock.advance(LEASE);
    let last = three.take(9).pop().expect("one");
    three.settle(last, dead());
    two.settle(later, delivered());
    assert_eq!(one.states(), [State::Delivered]);
    let id = one.list(&Filter::default())[0].id;
    assert_eq!(one.run(one.store.replay(SHOP, id, None)).expect("replayed"), 1);
    one.settle(late, delivered());
    assert_eq!(one.states(), [State::Retrying]);
    assert_eq!(three.take(9)[0].tries().before_replay, 1);
}

#[test]
fn a_delivery_that_is_dropped_is_there_at_once() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    process.enqueue(1, None);
    drop(process.take(1));
    process.flush();
    let delivery = process.take(1).pop().expect("one");
    assert_eq!(delivery.tries().attempts, 0);
}

#[test]
fn the_deliveries_of_a_lane_are_taken_one_after_the_other_and_hold_up_no_other_lane() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    for event in 0..300 {
        process.enqueue(event, Some(1));
    }
    process.enqueue(300, Some(2));
    process.enqueue(301, None);
    assert_eq!(process.numbers(999), ["0", "300", "301"]);
    let mut taken = process.take(999);
    process.settle(taken.remove(0), retry(60));
    assert!(process.take(9).is_empty());
    process.stats("what is blocked", |stats| (stats.blocked, stats.queued, stats.retrying) == (299, 2, 1));
    process.clock.advance(Duration::from_secs(60));
    for event in 0..300 {
        // The lease of the others is over now and then.
        let taken = process.take(9);
        let head = taken.into_iter().find(|delivery| delivery.lane() == Some(Lane(1))).expect("the head");
        assert_eq!(number(&head), event.to_string());
        process.settle(head, if event % 2 == 0 { delivered() } else { dead() });
    }
    process.stats("nothing to be blocked", |stats| (stats.blocked, stats.dead) == (0, 150));
    drop(taken);
}

#[test]
fn what_may_be_taken_is_found_between_what_waits_for_its_lane() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    let free = |event: u32| event.is_multiple_of(7) || event > 60;
    (0..80).for_each(|event| process.enqueue(event, (!free(event)).then_some(1)));
    let wanted: Vec<_> = (0..80).filter(|event| free(*event) || *event == 1).map(|event| event.to_string()).collect();
    assert_eq!(process.numbers(99), wanted);
}

#[test]
fn whatever_may_leave_something_to_take_wakes_whoever_waits() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    let raised = |what: &str, act: &dyn Fn()| {
        let seen = process.queues[0].signal().count();
        act();
        process.flush();
        wait_until(what, || process.queues[0].signal().count() > seen);
    };
    raised("an event", &|| process.enqueue(1, None));
    raised("a retry", &|| process.take(1).into_iter().for_each(|delivery| process.settle(delivery, retry(0))));
    raised("what is given back", &|| drop(process.take(1)));
    (2..4).for_each(|event| process.enqueue(event, Some(1)));
    let first = process.take(9).into_iter().find(|delivery| number(delivery) == "2").expect("the first of its lane");
    let first = std::cell::Cell::new(Some(first));
    raised("the end of the first of a lane", &|| process.settle(first.take().expect("one"), delivered()));
}

#[test]
fn a_connection_outlives_the_runtime_from_which_it_was_asked_for_first() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    let store = process.run(async { process.store.local() });
    let probing = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _not_yet = probing.block_on(async { store.ready(false) });
    drop(probing);
    let claimed = process.run(store.claim(&once(&message(1, 10), 1), LEASE));
    assert_eq!(claimed.expect("an answer"), None);
}

#[test]
fn what_stands_behind_deliveries_in_hand_is_taken_at_once() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    (0..2).for_each(|event| process.enqueue(event, None));
    let held = process.take(2);
    process.clock.advance(LEASE + Duration::from_millis(1));
    process.enqueue(2, None);
    let now = Clock::Manual(Arc::clone(&process.clock)).instant();
    for _held in 0..2 {
        let taken = process.try_take(1).expect("an answer");
        assert_eq!((taken.deliveries.len(), taken.next_due), (0, Some(now)), "there may be more");
    }
    assert_eq!(process.numbers(1), ["2"]);
    drop(held);
}

#[test]
fn a_take_is_shared_by_what_is_due_and_what_is_new_and_the_oldest_is_first() {
    let redis = Redis::start();
    let process = Process::start(&redis.url());
    (0..6).for_each(|event| process.enqueue(event, None));
    for delivery in process.take(6) {
        delivery.settle(retry(1));
    }
    process.flush();
    process.clock.advance(Duration::from_secs(2));
    (6..12).for_each(|event| process.enqueue(event, None));
    assert_eq!(process.numbers(4), ["0", "1", "6", "7"]);
    process.clock.advance(Duration::from_secs(1));
    assert_eq!(process.numbers(1).len(), 1);
    assert_eq!(process.numbers(99).len(), 12);
}

#[test]
fn a_take_ends_at_its_bytes_but_for_the_first_one() {
    let redis = Redis::start();
    let limits = |bytes| {
        let mut limits = Limits::default();
        limits.redis.take_bytes = bytes;
        limits
    };
    let weight = message(1, 1000).weight();
    let start = |bytes| Process::with(&redis.url(), &[(SHOP, "default")], limits(bytes), standing());
    let process = start(1);
    for event in 0..4 {
        assert_eq!(process.try_enqueue(event, None, 1000).expect("stored"), Enqueued::Stored);
    }
    assert_eq!(process.numbers(9), ["0"]);
    assert_eq!(start(2 * weight - 1).numbers(9).len(), 1);
    assert_eq!(start(2 * weight).numbers(9).len(), 2);
    assert_eq!(start(4 * weight).numbers(9).len(), 4);
}

#[test]
fn a_redis_where_version_0_1_has_events_to_deliver_is_refused() {
    let redis = Redis::start();
    redis.command::<()>(&["XADD", "doorward:{shop}:stream", "1-1", "id", "1"]);
    redis.command::<()>(&["XADD", "doorward:{shop}:stream", "1-2", "id", "2"]);
    redis.command::<()>(&["ZADD", "doorward:{shop}:done", "5", "1-1"]);
    let start = || Process::try_with(&redis.url(), &[(SHOP, "default")], Limits::default(), standing());
    let why = start().err().expect("refused").to_string();
    assert!(why.contains("version 0.1 still has 1 events of shop to deliver"), "{why}");
    redis.command::<()>(&["ZADD", "doorward:{shop}:done", "5", "1-2"]);
    start().expect("it starts").enqueue(1, None);
}

#[test]
fn a_destination_that_is_registered_later_is_looked_after() {
    let redis = Redis::start();
    let mut process = Process::start(&redis.url());
    let terms = ["default", "other"]
        .map(|name| QueueTerms { id: DestinationId { source: SHOP.to_owned(), name: name.to_owned() }, keep: KEEP });
    process.queues = process.run(process.store.register(&terms)).expect("registered");
    process.enqueue(1, None);
    process.queues.remove(0);
    let delivery = process.take(9).pop().expect("one");
    process.settle(delivery, dead());
    process.stats("one to be dead", |stats| stats.dead == 1);
}
