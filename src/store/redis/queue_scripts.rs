//! The Lua scripts of queues. Each moves deliveries atomically, so that none is lost between two places, and may be
//! repeated.

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
script!(MEND, "now", "delivery", "mend");
script!(LIST, "now", "delivery", "facts", "list");
script!(SHOW, "now", "delivery", "facts", "show");
script!(REPLAY, "now", "delivery", "replay");
script!(PURGE, "now", "delivery", "purge");
