//! The Lua scripts of queues. Each moves deliveries atomically between keys, and is idempotent.

use std::sync::LazyLock;

use crate::store::redis::script::Script;

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file, ".lua"))),+)));
    };
}

script!(BEGIN, "begin");
script!(ENQUEUE, "enqueue");
script!(TAKE, "now", "delivery", "take");
script!(SETTLE, "now", "delivery", "settle");
script!(STATS, "now", "stats");
script!(SWEEP, "now", "sweep");
script!(REPAIR, "now", "delivery", "repair");
script!(LIST, "now", "delivery", "facts", "list");
script!(SHOW, "now", "delivery", "facts", "show");
script!(REPLAY, "now", "delivery", "replay");
script!(PURGE, "now", "delivery", "purge");
