//! The scripts of a queue. Each does one step of an event's way in one piece, so that nothing can be lost between two
//! steps, and may be repeated.

use std::sync::LazyLock;

use crate::store::Keyspace;
use crate::store::redis::script::Call;
use crate::store::redis::script::Script;

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("common.lua"), include_str!($file))))
    };
}

pub(super) static BEGIN: LazyLock<Script> = script!("begin.lua");
pub(super) static TAKE: LazyLock<Script> = script!("take.lua");
pub(super) static SETTLE: LazyLock<Script> = script!("settle.lua");
pub(super) static RELEASE: LazyLock<Script> = script!("release.lua");
pub(super) static LOOK: LazyLock<Script> = script!("look.lua");
pub(super) static TRIM: LazyLock<Script> = script!("trim.lua");
pub(super) static LIST: LazyLock<Script> = script!("list.lua");
pub(super) static SHOW: LazyLock<Script> = script!("show.lua");
pub(super) static REPLAY: LazyLock<Script> = script!("replay.lua");
pub(super) static PURGE: LazyLock<Script> = script!("purge.lua");

/// The names of the keys of one queue, as the scripts expect them.
const KEYS: [&str; 8] = ["stream", "due", "retrying", "dead", "done", "records", "lanes", "parked"];

/// A call of a script on the queue in a keyspace.
pub(super) fn call(script: &'static Script, space: &Keyspace) -> Call {
    script.call(KEYS.map(|key| format!("{}{key}", space.prefix())))
}

/// The stream of the queue in a keyspace.
pub(super) fn stream(space: &Keyspace) -> String {
    format!("{}{}", space.prefix(), KEYS[0])
}
