//! Gateways that are killed, stopped or cut off at any moment. `tests/kill N` runs this with as many kills as one
//! likes.

mod file;
mod redis;

use std::collections::HashMap;
use std::time::Duration;

use crate::harness::load::Arrival;

const KILLS: u64 = 12;
/// How long a gateway takes to start, at most; and how long a moment is at which it is killed.
pub const START: Duration = Duration::from_millis(30);
pub const MOMENT: Duration = Duration::from_millis(150);

/// How often it is killed: as often as `DOORWARD_TESTS_KILLS` says.
pub fn kills() -> u64 {
    std::env::var("DOORWARD_TESTS_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"))
}

/// Nothing has arrived after it was recorded as delivered; `recorded` says how many events had arrived then.
#[track_caller]
pub fn assert_none_again(arrivals: &[Arrival], recorded: &HashMap<String, usize>) {
    let again = arrivals
        .iter()
        .enumerate()
        .filter(|(at, arrival)| recorded.get(&arrival.id).is_some_and(|recorded| at >= recorded));
    assert_eq!(again.map(|(_, arrival)| &arrival.id).collect::<Vec<_>>(), Vec::<&String>::new(), "recorded before");
}
