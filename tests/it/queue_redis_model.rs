//! The scripts of the queue in Redis, called in any order by gateways that sleep, repeat themselves and lose their answers:
//! every event is in exactly one place at any time, and all of them are finished in the end.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::collection;
use proptest::prelude::*;
use proptest::test_runner::Config;
use redis::Commands as _;
use redis::Value;

use crate::harness::Redis;

macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("../../src/store/redis/queue/common.lua"), include_str!($file))
    };
}

const BEGIN: &str = script!("../../src/store/redis/queue/begin.lua");
const TAKE: &str = script!("../../src/store/redis/queue/take.lua");
const SETTLE: &str = script!("../../src/store/redis/queue/settle.lua");
const RELEASE: &str = script!("../../src/store/redis/queue/release.lua");
const REPLAY: &str = script!("../../src/store/redis/queue/replay.lua");
const PURGE: &str = script!("../../src/store/redis/queue/purge.lua");
const LOOK: &str = script!("../../src/store/redis/queue/look.lua");

const KEYS: [&str; 8] = ["stream", "due", "retrying", "dead", "done", "records", "lanes", "parked"];
const GROUP: &str = "doorward";
const HOUR: &str = "3600000";

#[derive(Debug, Clone)]
enum Step {
    Enqueue(Option<u8>),
    /// By this gateway, so many at most; with those whose gateways have gone silent, which all have.
    Take(u8, u8, bool),
    /// What came of one of all attempts ever made, however long ago.
    Settle(prop::sample::Index, Verdict),
    /// A gateway forgets some of what it has in hand, and gives it back.
    Release(u8, bool),
    LoseGroup,
    /// Somebody wants one of the events, or not, whatever its state.
    Replay(prop::sample::Index),
    Purge(prop::sample::Index),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Delivered,
    RetryNow,
    RetryLater,
    Dead,
}

#[derive(Debug, Clone)]
struct Attempt {
    gateway: u8,
    number: String,
    lane: Option<u8>,
    tries: u32,
    spent: u32,
}

/// Number, fields and record.
type Entry = (String, Vec<String>, String);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Delivered),
        2 => Just(Verdict::RetryNow),
        1 => Just(Verdict::RetryLater),
        1 => Just(Verdict::Dead),
    ];
    let step = prop_oneof![
        6 => prop_oneof![Just(None), (0..3_u8).prop_map(Some)].prop_map(Step::Enqueue),
        5 => (0..3_u8, 1..5_u8, prop::bool::weighted(0.2)).prop_map(|(by, max, silent)| Step::Take(by, max, silent)),
        8 => (any::<prop::sample::Index>(), verdict).prop_map(|(attempt, verdict)| Step::Settle(attempt, verdict)),
        1 => (0..3_u8, any::<bool>()).prop_map(|(by, for_good)| Step::Release(by, for_good)),
        1 => Just(Step::LoseGroup),
        1 => any::<prop::sample::Index>().prop_map(Step::Replay),
        1 => any::<prop::sample::Index>().prop_map(Step::Purge),
    ];
    collection::vec(step, 1..80)
}

/// A queue and what was done with it.
struct Queue {
    link: redis::Connection,
    /// The lanes of all events.
    events: BTreeMap<String, Option<u8>>,
    attempts: Vec<Attempt>,
    /// Replayed events come behind those that came after them.
    replayed: bool,
}

impl Queue {
    fn new(redis: &Redis) -> Self {
        let link = redis::Client::open(redis.url()).expect("an address").get_connection().expect("a connection");
        let mut queue = Self { link, events: BTreeMap::new(), attempts: Vec::new(), replayed: false };
        queue.run::<()>(&["FLUSHALL"]);
        queue.begin();
        queue
    }

    fn begin(&mut self) {
        // As whoever finds that there is no group, one after the other.
        for _ in 0..2 {
            self.call::<()>(BEGIN, &[]);
        }
    }

    fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.link).expect(words[0])
    }

    fn call<T: redis::FromRedisValue>(&mut self, script: &str, arguments: &[&str]) -> T {
        redis::cmd("EVAL")
            .arg(script)
            .arg(KEYS.len())
            .arg(&KEYS)
            .arg(arguments)
            .query(&mut self.link)
            .expect("an answer")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Enqueue(lane) => {
                let name = lane.map(lane_name);
                let mut words = vec!["XADD", "stream", "*"];
                words.extend(name.iter().flat_map(|name| ["lane", name]));
                words.extend(["body", "x"]);
                let number = self.run(&words);
                self.events.insert(number, *lane);
            }
            Step::Take(by, max, silent) => drop(self.take(*by, *max, *silent)),
            Step::Settle(which, verdict) if !self.attempts.is_empty() => {
                let attempt = which.get(&self.attempts).clone();
                self.settle(&attempt, *verdict);
            }
            Step::Settle(..) => {}
            Step::Replay(which) => self.replayed |= self.change(REPLAY, which).is_some(),
            Step::Purge(which) => {
                if let Some(gone) = self.change(PURGE, which) {
                    self.events.remove(&gone);
                }
            }
            Step::Release(by, for_good) => {
                self.call::<()>(RELEASE, &[&by.to_string(), if *for_good { "1" } else { "0" }]);
            }
            Step::LoseGroup => {
                self.run::<()>(&["XGROUP", "DESTROY", "stream", GROUP]);
                self.begin();
            }
        }
    }

    /// Changes one of the events if it is finished.
    fn change(&mut self, script: &str, which: &prop::sample::Index) -> Option<String> {
        let numbers: Vec<_> = self.events.keys().cloned().collect();
        let number = numbers.get(which.index(numbers.len().max(1)))?;
        let record: String = self.run::<Option<String>>(&["HGET", "records", number]).unwrap_or_default();
        let finished = record.starts_with(['V', 'D']);
        assert_eq!(self.call::<u8>(script, &["VD", number]), u8::from(finished), "{number}: {record:?}");
        finished.then(|| number.clone())
    }

    fn take(&mut self, by: u8, max: u8, silent: bool) -> Vec<Attempt> {
        let finished: BTreeSet<_> = self.members("dead").into_iter().chain(self.members("done")).collect();
        let held = self.pending();
        let (name, max_text) = (by.to_string(), max.to_string());
        let (lease, silence) = if silent { ("0", "1") } else { (HOUR, "0") };
        let arguments = [&name, lease, &max_text, silence, "32", "4194304", "1024"];
        let (_more, _pause, taken): (i64, i64, Vec<Entry>) = self.call(TAKE, &arguments);
        assert!(taken.len() <= usize::from(max));
        let taken: Vec<_> = taken
            .into_iter()
            .map(|(number, fields, record)| {
                assert!(!finished.contains(&number), "{number} is finished");
                assert!(silent || !held.contains_key(&number), "{number} is in hand");
                let lane = self.events[&number];
                assert_eq!(fields.first().is_some_and(|field| field == "lane"), lane.is_some());
                let (tries, spent) = tries(&record);
                Attempt { gateway: by, number, lane, tries, spent }
            })
            .collect();
        self.attempts.extend(taken.iter().cloned());
        taken
    }

    fn settle(&mut self, attempt: &Attempt, verdict: Verdict) {
        let Attempt { gateway, number, lane, tries: before, spent } = attempt;
        let record: String = self.run::<Option<String>>(&["HGET", "records", number]).unwrap_or_default();
        let owner = self.pending().get(number).cloned();
        let counts = match verdict {
            Verdict::Delivered => tries(&record).1 == *spent,
            Verdict::RetryNow | Verdict::RetryLater | Verdict::Dead => {
                owner == Some(gateway.to_string()) && tries(&record) == (*before, *spent)
            }
        };
        let counts = counts && self.events.contains_key(number) && !record.starts_with('V');
        let (letter, pause) = match verdict {
            Verdict::Delivered => ("V", "0"),
            Verdict::RetryNow => ("R", "0"),
            Verdict::RetryLater => ("R", HOUR),
            Verdict::Dead => ("D", "0"),
        };
        let lane = lane.map(lane_name).unwrap_or_default();
        let (tries, spent_text) = (before.to_string(), spent.to_string());
        let after = format!("{},{spent};{{}}", before + 1);
        let arguments = [&gateway.to_string(), number, letter, &tries, &spent_text, pause, &lane, &after];
        for expected in [i64::from(counts), 0] {
            let again = expected == 0 && counts;
            // Recorded once, however often it is said.
            if !again || !record.starts_with('V') {
                assert_eq!(self.call::<i64>(SETTLE, &arguments), expected, "{attempt:?} {verdict:?} on {record:?}");
            }
        }
    }

    fn members(&mut self, key: &str) -> Vec<String> {
        self.run(&["ZRANGE", key, "0", "-1"])
    }

    /// What is in hand, and whose.
    fn pending(&mut self) -> BTreeMap<String, String> {
        let pending: Vec<(String, String, i64, i64)> = self.run(&["XPENDING", "stream", GROUP, "-", "+", "10000"]);
        pending.into_iter().map(|(number, owner, ..)| (number, owner)).collect()
    }

    /// Every event is in one place, and of those in hand each has a lane for itself.
    fn check(&mut self) {
        let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let parked: Vec<String> = self.members("parked").iter().map(|member| unparked(member)).collect();
        let pending: Vec<String> = self.pending().into_keys().collect();
        let (due, dead, done) = (self.members("due"), self.members("dead"), self.members("done"));
        for (place, numbers) in
            [("parked", &parked), ("pending", &pending), ("due", &due), ("dead", &dead), ("done", &done)]
        {
            numbers.iter().for_each(|number| places.entry(number.clone()).or_default().push(place));
        }
        let unread = self.unread();
        for number in self.events.keys() {
            let known = places.get(number).map_or(0, Vec::len);
            // A group that begins anew reads what it had read before.
            let new = usize::from(unread.contains(number) && !dead.contains(number) && !done.contains(number));
            assert_eq!(known + new, 1, "{number} is in {:?}, unread: {}", places.get(number), new);
        }
        let mut lanes = BTreeMap::new();
        for number in &pending {
            if let Some(lane) = self.events[number] {
                assert_eq!(lanes.insert(lane, number), None, "two events of lane {lane} are tried at one time");
            }
        }
    }

    fn unread(&mut self) -> BTreeSet<String> {
        let groups: Vec<BTreeMap<String, Value>> = self.run(&["XINFO", "GROUPS", "stream"]);
        let Value::BulkString(last) = &groups[0]["last-delivered-id"] else { panic!("an id") };
        let after = format!("({}", String::from_utf8_lossy(last));
        let entries: Vec<(String, Vec<String>)> = self.run(&["XRANGE", "stream", &after, "+"]);
        entries.into_iter().map(|(number, _)| number).collect()
    }

    /// Delivers what is left, in the order of the lanes.
    fn drain(&mut self) {
        let mut last: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
        loop {
            for number in self.members("due") {
                self.run::<()>(&["ZADD", "due", "XX", "0", &number]);
            }
            let taken = self.take(9, 4, true);
            if taken.is_empty() {
                break;
            }
            for attempt in taken {
                if let Some(lane) = attempt.lane {
                    let number = parts(&attempt.number);
                    let in_order = last.insert(lane, number).is_none_or(|last| last < number);
                    assert!(in_order || self.replayed, "{attempt:?} after {last:?}");
                }
                self.settle(&attempt, Verdict::Delivered);
            }
        }
        let seen: Vec<i64> = self.call(LOOK, &[HOUR, HOUR]);
        let finished = self.members("dead").len() + self.members("done").len();
        assert_eq!(finished, self.events.len());
        let dead = i64::try_from(self.members("dead").len()).expect("few");
        assert_eq!(seen, [0, 0, dead, -1, 0, 0], "queued, retrying, dead, oldest, work, old");
    }
}

fn lane_name(lane: u8) -> String {
    format!("{lane:016x}")
}

fn parts(number: &str) -> (u64, u64) {
    let (millis, sequence) = number.split_once('-').expect("a number");
    (millis.parse().expect("digits"), sequence.parse().expect("digits"))
}

fn unparked(member: &str) -> String {
    let (millis, sequence) = parts(member.split_once(':').expect("a lane").1);
    format!("{millis}-{sequence}")
}

/// The attempts in a record, and those before the last replay.
fn tries(record: &str) -> (u32, u32) {
    let Some((head, _)) = record.split_once(';') else { return (0, 0) };
    let (attempts, spent) = head[1..].split_once(',').expect("two numbers");
    (attempts.parse().expect("a number"), spent.parse().expect("a number"))
}

#[test]
fn whatever_gateways_do_every_event_is_in_one_place_and_finished_in_the_end() {
    let redis = Redis::start();
    proptest!(Config { cases: 100, failure_persistence: None, ..Config::default() }, |(steps in steps())| {
        let mut queue = Queue::new(&redis);
        for step in &steps {
            queue.step(step);
            queue.check();
        }
        queue.drain();
        queue.check();
    });
}
