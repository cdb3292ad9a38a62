//! What every store of queued events promises, tried with random histories against a model, and the histories that show what
//! is not kept yet.

mod adapter;
mod history;
mod known;
mod model;
mod unwritten;
mod world;

use std::cell::Cell;

use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestRunner;

use self::history::History;
use self::world::Server;
use self::world::World;

/// What is known not to be kept yet. Random histories are made around it, and a test with a history of its own shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// With so many events behind others of their lanes as a file's queue notes, nothing is taken any more.
    TooManyBehind,
    /// When all that a file's queue has read at once is behind others of their lanes, nobody reads on.
    ParkedWindow,
    /// What an attempt that ended without a word had in hand stays so until a restart.
    DroppedStays,
    /// A file takes what came of an attempt as often as it is told.
    ToldTwice,
    /// A take from Redis may be heavier than it should.
    HeavyTake,
    /// A process that still has an event in hand is given it again when its lease is over.
    TakesItsOwn,
    /// A replay or purge in Redis whose answer was lost is answered as if it had done nothing.
    ChangeToldWrong,
}

/// All of them.
const KNOWN: [Known; 7] = [
    Known::TooManyBehind,
    Known::ParkedWindow,
    Known::DroppedStays,
    Known::ToldTwice,
    Known::HeavyTake,
    Known::TakesItsOwn,
    Known::ChangeToldWrong,
];

/// The one that `DOORWARD_SHOW` names: histories are not made around it, to see how they show it.
fn shown() -> Option<Known> {
    let name = std::env::var("DOORWARD_SHOW").ok()?;
    Some(*KNOWN.iter().find(|fault| format!("{fault:?}") == name).expect("the name of one of them"))
}

/// How many histories are tried, and the seed from which they are made. More are tried when `DOORWARD_HISTORIES` says so; what
/// `DOORWARD_SEED` says are those of a run that failed.
fn config(usual: u32) -> Config {
    let set = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let cases = set("DOORWARD_HISTORIES").map_or(usual, |count| u32::try_from(count).expect("not that many"));
    let random = || if cases == usual { 1 } else { getrandom::u64().expect("a random number") };
    let seed = set("DOORWARD_SEED").unwrap_or_else(random);
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}

fn check(usual: u32, server: Option<&Server>) {
    let config = config(usual);
    let (seed, cases, shown) = (config.rng_seed, config.cases, shown());
    let (tried, found) = (Cell::new(0), Cell::new(false));
    let result = TestRunner::new(config).run(&history::histories(), |history: History| {
        tried.set(tried.get() + u32::from(!found.get()));
        let checked = World::run(&history, server, shown);
        found.set(found.get() || checked.is_err());
        checked.map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("history {} of {cases}, DOORWARD_SEED is {seed:?}\n{error}", tried.get());
    }
}

#[test]
fn whatever_happens_to_a_file_it_keeps_what_stores_promise() {
    check(300, None);
}

#[test]
fn whatever_happens_to_gateways_and_their_redis_it_keeps_what_stores_promise() {
    check(80, Some(&Server::start()));
}
