//! The Lua scripts of claims and dedupe records, and their arguments. Each is atomic, and may be repeated by the same
//! attempt.

use std::sync::LazyLock;
use std::time::Duration;

use super::script::Call;
use super::script::Script;
use crate::message::Keys;
use crate::store::Earlier;
use crate::store::Keyspace;
use crate::store::KnownBy;
use crate::store::Token;
use crate::verify::event_key::Ignored;

/// A script that can ask for an event that was ignored: `-1` when it was as this type, `-2` as another one, or nothing.
macro_rules! script {
    ($text:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                "local function ignored(key, kind)
                   local state = redis.call('GET', key)
                   if state then return state == 'I' .. kind and -1 or -2 end
                 end
                 ",
                $text
            ))
        })
    };
}

/// Claims all keys of an event for some milliseconds. With a third argument that is not empty, the type, the last key
/// is that of an ignored event.
///
/// `-1` when the first key is done, and `-2` when another one is, or when the event was ignored as another type; the
/// remaining milliseconds when another attempt holds a key, or `0` and all are claimed.
pub(crate) static CLAIM: LazyLock<Script> = script!(
    "local kind = ARGV[3]
     local last = kind == '' and #KEYS or #KEYS - 1
     for i = 1, last do
       local state = redis.call('GET', KEYS[i])
       if state then
         if string.sub(state, 1, 1) == 'D' then return i == 1 and -1 or -2 end
         if state ~= 'P' .. ARGV[1] then return math.max(redis.call('PTTL', KEYS[i]), 1) end
       end
     end
     if kind ~= '' and ignored(KEYS[last + 1], kind) == -2 then return -2 end
     for i = 1, last do redis.call('SET', KEYS[i], 'P' .. ARGV[1], 'PX', ARGV[2]) end
     return 0"
);

/// Remembers an event that was ignored, with its type, for some milliseconds: `0` when it is new, `-1` when it was
/// there with this type, and `-2` as another one.
pub(crate) static IGNORE: LazyLock<Script> = script!(
    "local before = ignored(KEYS[1], ARGV[1])
     if before then return before end
     redis.call('SET', KEYS[1], 'I' .. ARGV[1], 'PX', ARGV[2])
     return 0"
);

/// Lets go of the keys that this attempt holds: at once, or after some milliseconds.
pub(crate) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, key in ipairs(KEYS) do
           if redis.call('GET', key) == 'P' .. ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
         end
         return 0",
    )
});

/// What a script says of an event that came earlier.
pub(crate) fn earlier(answer: i64) -> Earlier {
    match answer {
        -1 => Earlier::Finished(KnownBy::Id),
        ..0 => Earlier::Finished(KnownBy::Content),
        remaining => Earlier::InFlight(Duration::from_millis(remaining.unsigned_abs())),
    }
}

/// The type for a script that looks for an ignored event; nothing where none is remembered.
pub(crate) fn kind(ignored: Option<Ignored>) -> String {
    ignored.map(|ignored| ignored.typed.hex()).unwrap_or_default()
}

/// Lets go of a claim after some time.
pub(crate) fn released(space: &Keyspace, keys: Keys, token: Token, after: Duration) -> Call {
    RELEASE.call(names(space, keys)).argument(token.text()).argument(millis(after).to_string())
}

impl Token {
    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    pub(crate) fn done(self) -> String {
        format!("D{:032x}", self.0)
    }
}

pub(crate) fn names(space: &Keyspace, keys: Keys) -> impl Iterator<Item = String> {
    keys.iter().map(|key| space.name(key))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
