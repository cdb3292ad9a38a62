//! All files of a store, whichever there are, cut short, longer than they were, or with other bytes, anywhere.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::http::connect;
use crate::harness::load::Mode;
use crate::harness::provider::github::Github;
use crate::harness::random::Random;
use crate::harness::random::rounds;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;
use crate::store::damage::body;
use crate::store::damage::dead;
use crate::store::damage::settled;

const EVENTS: usize = 150;
/// More ids than a page has.
const IDS_ON_A_PAGE: usize = 4096 / 16;

#[test]
fn queued_events_survive_damage_to_any_file_of_a_gateway_that_was_killed() {
    check(Mode::Queue, "KILL");
}

#[test]
fn queued_events_survive_damage_to_any_file_of_a_gateway_that_ended() {
    check(Mode::Queue, "TERM");
}

#[test]
fn delivered_events_are_remembered_after_damage_to_any_file_of_a_gateway_that_was_killed() {
    check(Mode::Upstream, "KILL");
}

#[test]
fn delivered_events_are_remembered_after_damage_to_any_file_of_a_gateway_that_ended() {
    check(Mode::Upstream, "TERM");
}

/// What happens to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u64),
    /// It ends there.
    Cut(u64),
    /// Its last bytes from there on were never written.
    Unwritten(u64),
    /// So many bytes stand behind it that are not its own.
    Longer(u64),
}

fn check(mode: Mode, signal: &str) {
    let base = Base::new(mode, signal);
    let mut random = Random::new(3);
    for (name, bytes) in base.lengths.last().expect("some events") {
        for _ in 0..rounds(1) {
            base.check(name, Damage::Flip(random.below(*bytes)));
            base.check(name, Damage::Cut(random.below(*bytes)));
            let last = bytes - 1 - random.below(64.min(*bytes));
            let at_the_end = [Damage::Cut(last), Damage::Unwritten(last), Damage::Longer(1 + random.below(5000))];
            base.check(name, at_the_end[random.below(3) as usize]);
        }
    }
}

/// The files that a gateway has left.
struct Base {
    mode: Mode,
    folder: TempDir,
    /// How long each file was when so many events had been acknowledged; the last are those that were left.
    lengths: Vec<BTreeMap<String, u64>>,
}

impl Base {
    fn new(mode: Mode, signal: &str) -> Self {
        let app = Upstream::start();
        // What is queued waits for the gateway that finds the damage.
        let url = if mode == Mode::Upstream { app.url() } else { "http://127.0.0.1:1/app".to_owned() };
        let gateway = Gateway::start(&sections(mode, &url));
        let connection = connect(gateway.address());
        let mut lengths = Vec::new();
        for number in 0..EVENTS {
            assert_eq!(delivery(number).send_on(&connection).status, 200);
            lengths.push(files(gateway.folder()));
        }
        gateway.signal(signal);
        let folder = gateway.wait().folder.expect("its folder");
        lengths.push(files(folder.path()));
        Self { mode, folder, lengths }
    }

    fn check(&self, name: &str, damage: Damage) {
        let what = format!("{:?}: {name}: {damage:?}", self.mode);
        let folder = tempfile::tempdir().expect("a folder");
        for name in self.lengths.last().expect("some events").keys() {
            std::fs::copy(self.folder.path().join(name), folder.path().join(name)).expect("copied");
        }
        apply(&folder.path().join(name), damage);
        let app = Upstream::start();
        let sections = sections(self.mode, &app.url());
        let gateway = match Gateway::try_spawn(folder.path(), &sections) {
            Ok(gateway) => gateway,
            Err(said) => {
                assert!(said.contains("exit status: 1") && said.contains("store.db"), "{what}: {said}");
                assert!(!said.contains("panick"), "{what}: {said}");
                eprintln!("{what}: {said}");
                return;
            }
        };
        let whole: Vec<usize> = self.whole(name, damage).collect();
        let lost: Vec<usize> = match self.mode {
            Mode::Queue => {
                let lost = || {
                    let came = came(&app, &what);
                    whole.iter().copied().filter(|number| !came.contains(number)).collect::<Vec<_>>()
                };
                // They are behind all others, which have been attempted when these have come. The gauges say nothing at first.
                for number in EVENTS..EVENTS + 2 {
                    delivery(number).send_until_taken(gateway.address());
                    wait_until("what came last", || came(&app, &what).contains(&number));
                }
                settled(&gateway, folder.path(), |gone| lost().len() <= dead(&gateway) + gone + hit(name, damage));
                lost()
            }
            Mode::Upstream => {
                let connection = connect(gateway.address());
                whole
                    .into_iter()
                    .filter(|number| {
                        let answer = delivery(*number).send_on(&connection);
                        assert_eq!(answer.status, 200, "{what}: {answer:?}");
                        answer.text() != DUPLICATE
                    })
                    .collect()
            }
        };
        assert!(lost.is_empty() || matches!(damage, Damage::Flip(_)) || name == "store.db", "{what}: {lost:?}");
        assert!(lost.len() <= IDS_ON_A_PAGE, "{what}: {lost:?}");
        gateway.assert_no_panic(&what);
    }

    /// The events of which no byte is gone: what came later stands later in all files but the first.
    fn whole(&self, name: &str, damage: Damage) -> impl Iterator<Item = usize> {
        let end = match damage {
            Damage::Cut(end) | Damage::Unwritten(end) if name != "store.db" && !name.ends_with("-shm") => end,
            Damage::Flip(_) | Damage::Cut(_) | Damage::Unwritten(_) | Damage::Longer(_) => u64::MAX,
        };
        (0..EVENTS).filter(move |number| self.lengths[*number].get(name).is_none_or(|length| *length <= end))
    }
}

/// How many events a byte may cost.
fn hit(name: &str, damage: Damage) -> usize {
    match damage {
        // SQLite reads a WAL up to what is damaged.
        Damage::Flip(_) | Damage::Cut(_) | Damage::Unwritten(_) if name.ends_with("-wal") => EVENTS,
        Damage::Flip(_) if !name.ends_with("-shm") => 1,
        Damage::Cut(_) | Damage::Unwritten(_) if name == "store.db" => EVENTS,
        Damage::Flip(_) | Damage::Cut(_) | Damage::Unwritten(_) | Damage::Longer(_) => 0,
    }
}

fn came(app: &Upstream, what: &str) -> BTreeSet<usize> {
    let mut came = BTreeSet::new();
    for message in app.received() {
        let id = message.header("doorward-event-id").expect("an id");
        let number: usize = id.parse().unwrap_or_else(|_| panic!("{what}: {id}"));
        assert_eq!(message.body, body(number), "{what}: {id} was altered");
        assert!(came.insert(number), "{what}: {id} came twice");
    }
    came
}

fn apply(path: &Path, damage: Damage) {
    let mut bytes = std::fs::read(path).expect("a file");
    match damage {
        Damage::Flip(at) => bytes[at as usize] ^= 0x55,
        Damage::Cut(end) => bytes.truncate(end as usize),
        Damage::Unwritten(from) => bytes[from as usize..].fill(0),
        Damage::Longer(more) => bytes.resize(bytes.len() + more as usize, 0x55),
    }
    std::fs::write(path, bytes).expect("written");
}

fn delivery(number: usize) -> crate::harness::provider::delivery::Delivery {
    Github::delivery(&number.to_string(), body(number))
}

fn sections(mode: Mode, url: &str) -> String {
    let so = if mode == Mode::Queue { "queue" } else { "upstream" };
    let more = format!("[store]\nurl = \"sqlite:store.db\"\n[admin]\ntoken = \"plain:{TOKEN}\"\n");
    format!("{}{more}", Github::delivering(&format!("{so} = {{ url = \"{url}\" }}")))
}

/// The files of a store that are not empty, with their lengths.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().expect("text");
        let length = entry.metadata().ok()?.len();
        (name.starts_with("store.db") && length > 0).then_some((name, length))
    });
    named.collect()
}
