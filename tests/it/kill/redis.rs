//! Two gateways with a queue in one Redis, of which any is killed, stopped or cut off.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::load::forgotten;
use crate::harness::random::Random;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;
use crate::kill::MOMENT;
use crate::kill::START;
use crate::kill::assert_none_again;
use crate::kill::kills;

/// At each gateway.
const SENDERS: usize = 2;
/// The shortest that an attempt of one second allows.
const LEASE: Duration = Duration::from_secs(6);
/// Longer than Redis may take to answer, by default.
const STOP: Duration = Duration::from_millis(300);
const EVENTS: &str = "doorward:{github}:events";
const RECORDS: &str = "doorward:{github}:d:default:records";
const DUE: &str = "doorward:{github}:d:default:due";
const OPEN: &str = "doorward:{github}:d:default:open";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillOne,
    KillBoth,
    KillStarting,
    KillRedis,
    KillAll,
    /// A gateway is stopped for longer than its lease.
    StopOne,
    /// Redis is stopped for longer than it may take to answer.
    StopRedis,
    OutOfMemory,
    /// Connections are closed, some of them between a command and its answer.
    CutOff,
}

/// Each dozen of faults. The first comes last, and the others in any order: while a gateway is stopped, the leases of
/// those that were killed end.
const DOZEN: [Fault; 12] = [
    Fault::StopOne,
    Fault::KillOne,
    Fault::KillOne,
    Fault::KillBoth,
    Fault::KillStarting,
    Fault::KillStarting,
    Fault::KillRedis,
    Fault::KillRedis,
    Fault::KillAll,
    Fault::StopRedis,
    Fault::OutOfMemory,
    Fault::CutOff,
];

#[test]
fn killed_again_and_again_two_gateways_on_one_redis_lose_nothing_and_repeat_only_what_they_had_in_hand() {
    let (faults, begun, sink) = (kills(), Instant::now(), Sink::start(Mode::Queue));
    let addresses = [Upstream::nowhere(), Upstream::nowhere()];
    let mut site = Site::start(sink.address(), addresses);
    let loads = [0, 1].map(|at| Load::start(addresses[at], &format!("{at}-"), SENDERS));
    let Struck { faults: struck, claims, recorded } = strike(&mut site, faults, &sink);
    let acknowledged: Vec<_> = loads.into_iter().flat_map(Load::stop).collect();
    sink.wait_for(&acknowledged);
    wait_until("the queue to be empty", || site.redis.command::<usize>(&["ZCARD", OPEN]) == 0);
    for gateway in site.gateways.iter().flatten() {
        assert_eq!(forgotten(gateway, &acknowledged), Vec::<String>::new());
    }
    let arrivals = sink.arrivals();
    assert_none_again(&arrivals, &recorded);
    let mut times = HashMap::<&String, usize>::new();
    arrivals.iter().for_each(|arrival| *times.entry(&arrival.id).or_default() += 1);
    let too_often = times.iter().filter(|(id, times)| **times > 1 + claims.get(**id).map_or(0, HashSet::len));
    assert_eq!(too_often.collect::<Vec<_>>(), Vec::<(&&String, &usize)>::new(), "nobody had it in hand at a fault");
    eprintln!(
        "Redis: {faults} faults in {:?} ({struck:?}): {} events acknowledged, all of them arrived; {} recorded as delivered \
         after a fault, none of them arrived again; {} of {} in hand at a fault arrived twice",
        begun.elapsed(),
        acknowledged.len(),
        recorded.len(),
        arrivals.len() - times.len(),
        claims.len()
    );
    assert!(acknowledged.len() as u64 > faults && recorded.len() as u64 > faults / 2);
}

/// What became of the faults.
#[derive(Default)]
struct Struck {
    /// How many there were of each.
    faults: BTreeMap<Fault, u32>,
    /// Of each event that was in hand when a gateway had a fault, the claims: as often may it arrive once more.
    claims: HashMap<String, HashSet<String>>,
    /// What was recorded as delivered after a fault, with how many events had arrived then.
    recorded: HashMap<String, usize>,
}

fn strike(site: &mut Site, faults: u64, sink: &Sink) -> Struck {
    let (mut random, mut left, mut struck) = (Random::new(5), Vec::new(), Struck::default());
    for number in 0..faults {
        if number % 100 == 99 {
            eprintln!("Redis: {number} faults, {} events have arrived", sink.count());
        }
        if left.is_empty() {
            left = DOZEN.to_vec();
        }
        let others = left.len() - 1;
        let fault = left.swap_remove(if others > 0 { 1 + random.below(others as u64) as usize } else { 0 });
        *struck.faults.entry(fault).or_default() += 1;
        pause(&mut random, MOMENT);
        let in_hand = site.strike(fault, &mut random);
        // One time in four, the next fault comes before that.
        if in_hand.is_empty() && random.below(4) > 0 {
            let arrived: HashSet<_> = sink.arrivals().into_iter().map(|arrival| arrival.id).collect();
            let is_open = |id: &String| arrived.contains(id) && !struck.claims.contains_key(id);
            wait_until("what has arrived to be recorded", || !site.in_hand().keys().any(is_open));
        }
        let (delivered, arrived) = (site.delivered(), sink.count());
        // Who was stopped may still make the attempt that it had begun.
        for id in delivered.into_iter().filter(|id| !in_hand.contains_key(id)) {
            struck.recorded.entry(id).or_insert(arrived);
        }
        for (id, claim) in in_hand {
            struck.claims.entry(id).or_default().insert(claim);
        }
    }
    struck
}

/// The moment is what is tried; nothing is waited for.
fn pause(random: &mut Random, limit: Duration) {
    std::thread::sleep(Duration::from_micros(random.below(limit.as_micros() as u64)));
}

/// Gateways and the Redis that they share.
struct Site {
    redis: Redis,
    gateways: [Option<Gateway>; 2],
    folders: [TempDir; 2],
    sections: [String; 2],
    /// The ids of events by those of their entries, as far as these were read.
    events: HashMap<String, String>,
    read: String,
}

impl Site {
    fn start(app: SocketAddr, listen: [SocketAddr; 2]) -> Self {
        let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let store =
            format!("[store]\nurl = \"{}\"\nlease = \"{}s\"\ndurability = \"aof\"\n", redis.url(), LEASE.as_secs());
        let sections = listen.map(|listen| {
            Mode::Queue.sections(app, listen).replace("keep = \"2s\"", "keep = \"10s\", timeout = \"1s\"") + &store
        });
        let folders = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
        let (events, read) = (HashMap::new(), "-".to_owned());
        let mut site = Self { redis, gateways: [None, None], folders, sections, events, read };
        site.run();
        site
    }

    /// Starts what does not run.
    fn run(&mut self) {
        for at in 0..2 {
            let (folder, sections) = (self.folders[at].path(), &self.sections[at]);
            self.gateways[at].get_or_insert_with(|| Gateway::spawn(folder, sections, &[]));
        }
    }

    fn kill(&mut self, gateways: &[usize]) {
        let killed: Vec<_> = gateways.iter().filter_map(|&at| self.gateways[at].take()).collect();
        killed.iter().for_each(|gateway| gateway.signal("KILL"));
    }

    /// Has a fault, and goes on. What may arrive again after it: the events that anybody had in hand, with their
    /// claims.
    fn strike(&mut self, fault: Fault, random: &mut Random) -> HashMap<String, String> {
        let one = random.below(2) as usize;
        match fault {
            Fault::KillOne => self.kill(&[one]),
            Fault::KillBoth => self.kill(&[0, 1]),
            Fault::KillStarting => {
                self.kill(&[one]);
                self.gateways[one] = Some(Gateway::spawn_early(self.folders[one].path(), &self.sections[one]));
                pause(random, START);
                self.kill(&[one]);
            }
            Fault::KillAll => {
                self.kill(&[0, 1]);
                self.redis.kill();
                self.redis.run(&[]);
            }
            Fault::StopOne => return self.stop(one),
            Fault::KillRedis => {
                self.redis.kill();
                pause(random, STOP * 2);
                self.redis.run(&[]);
            }
            Fault::StopRedis => {
                self.redis.signal("STOP");
                std::thread::sleep(STOP);
                pause(random, STOP);
                self.redis.signal("CONT");
            }
            Fault::OutOfMemory => {
                self.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
                pause(random, MOMENT);
                self.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Fault::CutOff => {
                for _ in 0..5 {
                    self.redis.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
                    pause(random, START);
                }
            }
        }
        if self.gateways.iter().all(Option::is_some) {
            return HashMap::new();
        }
        let in_hand = self.in_hand();
        self.run();
        in_hand
    }

    fn stop(&mut self, one: usize) -> HashMap<String, String> {
        self.gateways[one].as_ref().expect("it runs").signal("STOP");
        // What it has asked for is not under way any more.
        std::thread::sleep(MOMENT);
        let in_hand = self.in_hand();
        std::thread::sleep(LEASE);
        self.gateways[one].as_ref().expect("it runs").signal("CONT");
        in_hand
    }

    /// The events that are claimed, or wait until they are tried again, with the time when that ends.
    fn in_hand(&mut self) -> HashMap<String, String> {
        let due: Vec<(String, String)> = self.redis.command(&["ZRANGE", DUE, "0", "-1", "WITHSCORES"]);
        self.read();
        due.into_iter().map(|(entry, until)| (self.events[&entry].clone(), until)).collect()
    }

    /// The events whose delivery is recorded.
    fn delivered(&mut self) -> Vec<String> {
        let records: HashMap<String, String> = self.redis.command(&["HGETALL", RECORDS]);
        self.read();
        let delivered = records.iter().filter(|(_, record)| record.starts_with('V'));
        delivered.filter_map(|(entry, _)| self.events.get(entry).cloned()).collect()
    }

    /// Reads what has come since.
    fn read(&mut self) {
        type Entry = (String, HashMap<String, Vec<u8>>);
        let entries: Vec<Entry> = self.redis.command(&["XRANGE", EVENTS, &self.read, "+"]);
        for (entry, mut fields) in entries {
            self.read = format!("({entry}");
            let id = fields.remove("id").expect("an id");
            self.events.insert(entry, String::from_utf8(id).expect("text"));
        }
    }
}
