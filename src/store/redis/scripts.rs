//! The scripts of claims and marks: each is one step of Redis, and may be repeated by the same attempt.

use std::sync::LazyLock;

use super::script::Script;

/// `-1` when the first key is done, and `-2` when another one is, or when the event was ignored as another type; the remaining
/// milliseconds when another attempt holds a key, or `0` and all are claimed.
/// With a third argument, the type, the last key is that of an ignored event.
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = ARGV[3] and #KEYS - 1 or #KEYS
         for i = 1, last do
           local state = redis.call('GET', KEYS[i])
           if state then
             if string.sub(state, 1, 1) == 'D' then
               return i == 1 and -1 or -2
             end
             if state ~= 'P' .. ARGV[1] then return math.max(redis.call('PTTL', KEYS[i]), 1) end
           end
         end
         if last < #KEYS then
           local ignored = redis.call('GET', KEYS[#KEYS])
           if ignored and ignored ~= 'I' .. ARGV[3] then return -2 end
         end
         for i = 1, last do redis.call('SET', KEYS[i], 'P' .. ARGV[1], 'PX', ARGV[2]) end
         return 0",
    )
});

/// Remembers an event that was ignored, with its type, for some milliseconds: `0` when it is new, `-1` when it was there with
/// this type, and `-2` as another one.
pub(super) static IGNORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local ignored = redis.call('GET', KEYS[1])
         if not ignored then
           redis.call('SET', KEYS[1], 'I' .. ARGV[1], 'PX', ARGV[2])
           return 0
         end
         return ignored == 'I' .. ARGV[1] and -1 or -2",
    )
});

/// Lets go of the keys that this attempt holds: at once, or after some milliseconds.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, key in ipairs(KEYS) do
           if redis.call('GET', key) == 'P' .. ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
         end
         return 0",
    )
});

/// Checks, appends and marks done in one step; the last key is the stream. As for a claim, or `1` when this very attempt
/// has published before. What is found done is marked again: only what a connection has written can be confirmed to it. With
/// a fourth argument that is not empty, the type, the key before the stream is that of an ignored event.
pub(super) static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = ARGV[4] == '' and #KEYS - 1 or #KEYS - 2
         for i = 1, last do
           local state = redis.call('GET', KEYS[i])
           if state and string.sub(state, 1, 1) == 'D' then
             redis.call('PEXPIRE', KEYS[i], ARGV[2])
             if state == 'D' .. ARGV[1] then return 1 end
             return i == 1 and -1 or -2
           end
           if state then return math.max(redis.call('PTTL', KEYS[i]), 1) + 1 end
         end
         if last < #KEYS - 1 then
           local ignored = redis.call('GET', KEYS[last + 1])
           if ignored and ignored ~= 'I' .. ARGV[4] then return -2 end
         end
         local entry = {'XADD', KEYS[#KEYS]}
         if ARGV[3] ~= '0' then
           table.insert(entry, 'MAXLEN') table.insert(entry, '~') table.insert(entry, ARGV[3])
         end
         table.insert(entry, '*')
         for i = 5, #ARGV do table.insert(entry, ARGV[i]) end
         redis.call(unpack(entry))
         for i = 1, last do redis.call('SET', KEYS[i], 'D' .. ARGV[1], 'PX', ARGV[2]) end
         return 0",
    )
});
