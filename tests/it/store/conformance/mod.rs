//! What every store of queued events promises, tried with random histories against a model. Another store is one more
//! test here.

mod history;
mod model;
mod named;
mod process;
mod server;
mod world;

use std::cell::Cell;

use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestRunner;

use self::history::History;
use self::server::Server;
use self::world::World;

/// How many histories are tried, and the seed from which they are made. More are tried when `DOORWARD_HISTORIES` says
/// so; what `DOORWARD_SEED` says are those of a run that failed.
fn config(usual: u32) -> Config {
    let set = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let cases = set("DOORWARD_HISTORIES").map_or(usual, |count| u32::try_from(count).expect("not that many"));
    let random = || if cases == usual { 1 } else { getrandom::u64().expect("a random number") };
    let seed = set("DOORWARD_SEED").unwrap_or_else(random);
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}

fn check(usual: u32, server: Option<&Server>) {
    let config = config(usual);
    let (seed, cases) = (config.rng_seed, config.cases);
    let (tried, found) = (Cell::new(0), Cell::new(false));
    let result = TestRunner::new(config).run(&history::histories(), |history: History| {
        tried.set(tried.get() + u32::from(!found.get()));
        let checked = World::run(&history, server);
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

#[test]
fn whatever_happens_to_gateways_and_their_cluster_it_keeps_what_stores_promise() {
    check(40, Some(&Server::cluster()));
}
