//! The Lua scripts of claims and dedupe records, and their arguments. Each is atomic, and idempotent for one attempt.

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

/// A script with the function `ignored(key, kind)`: -1 when the event was ignored with this type, -2 as another one,
/// nil when it was not.
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

/// Claims all keys of an event.
///
/// `KEYS`: the keys of the event, its id first; then the key of an ignored event, if there is a type. `ARGV`: the token
/// of the attempt, the lease (ms), the type or an empty text. Returns 0 when all keys are claimed; -1 when the event is
/// finished by its id, -2 by another key or because it was ignored as another type; otherwise the remaining lease (ms)
/// of the attempt that holds a key.
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

/// Records an event that is ignored. `KEYS`: its key. `ARGV`: its type, the time to live (ms). Returns 0 when it is
/// new,
/// -1 when it was recorded with this type, -2 as another one.
pub(crate) static IGNORE: LazyLock<Script> = script!(
    "local before = ignored(KEYS[1], ARGV[1])
     if before then return before end
     redis.call('SET', KEYS[1], 'I' .. ARGV[1], 'PX', ARGV[2])
     return 0"
);

/// Releases the keys that an attempt holds. `KEYS`: the keys of the event. `ARGV`: the token, after how many
/// milliseconds.
pub(crate) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, key in ipairs(KEYS) do
           if redis.call('GET', key) == 'P' .. ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
         end
         return 0",
    )
});

/// Decodes the answer of a script about an event that came earlier.
pub(crate) fn earlier(answer: i64) -> Earlier {
    match answer {
        -1 => Earlier::Finished(KnownBy::Id),
        ..0 => Earlier::Finished(KnownBy::Content),
        remaining => Earlier::InFlight(Duration::from_millis(remaining.unsigned_abs())),
    }
}

/// The argument with the type of the event; empty where types are signed.
pub(crate) fn kind(ignored: Option<Ignored>) -> String {
    ignored.map(|ignored| ignored.typed.hex()).unwrap_or_default()
}

/// The call that releases a claim after some time.
pub(crate) fn release(space: &Keyspace, keys: Keys, token: Token, after: Duration) -> Call {
    RELEASE.call(names(space, keys)).argument(token.text()).argument(millis(after).to_string())
}

impl Token {
    pub(crate) fn text(self) -> String {
        const_hex::encode(self.0.to_be_bytes())
    }

    pub(crate) fn done(self) -> String {
        ["D", &self.text()].concat()
    }
}

pub(crate) fn names(space: &Keyspace, keys: Keys) -> impl Iterator<Item = String> {
    keys.iter().map(|key| space.name(key))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
