-- Stores a message, its deliveries and its dedupe records, unless the event came earlier.
-- Keys: the dedupe records; that of an ignored event, if there is a type; the stream; and for each destination `ready`, `lanes`,
-- `blocked` and `open`. Arguments: now, the token of the attempt, the time to live of the records (ms), the type as for a claim, the
-- number of destinations, the lane of each (empty: none), and the fields of the message.
-- Returns 0 when it is stored, 1 when the same attempt has stored it before, and otherwise like a claim (with a remaining lease of at
-- least 2 ms). A finished record is written again (PEXPIRE), because `WAIT` confirms only the writes of its own connection.
local token, ttl, kind, count = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local stream = #KEYS - 4 * count
local last = kind == '' and stream - 1 or stream - 2
for i = 1, last do
  local state = redis.call('GET', KEYS[i])
  if state and string.sub(state, 1, 1) == 'D' then
    redis.call('PEXPIRE', KEYS[i], ttl)
    if state == 'D' .. token then return 1 end
    return i == 1 and -1 or -2
  end
  if state and state ~= 'P' .. token then return math.max(redis.call('PTTL', KEYS[i]), 1) + 1 end
end
local ignored = kind ~= '' and redis.call('GET', KEYS[last + 1])
if ignored and ignored ~= 'I' .. kind then return -2 end

local id
if ARGV[1] == '0' then
  id = redis.call('XADD', KEYS[stream], '*', unpack(ARGV, 6 + count))
else
  -- The manual clock of tests may be set back, but ids must grow.
  local at = string.format('%.0f', ARGV[1] / 1000)
  id = redis.pcall('XADD', KEYS[stream], at .. '-*', unpack(ARGV, 6 + count))
  if id.err then
    local top = redis.call('XREVRANGE', KEYS[stream], '+', '-', 'COUNT', 1)[1]
    local newest = top and string.match(top[1], '^%d+') .. '-*' or '*'
    id = redis.call('XADD', KEYS[stream], newest, unpack(ARGV, 6 + count))
  end
end
local millis, sequence = string.match(id, '^(%d+)-(%d+)$')
local function deliver()
  for n = 1, count do
    local ready, lanes, blocked, open = unpack(KEYS, stream + 4 * n - 3, stream + 4 * n)
    local lane = ARGV[5 + n]
    if lane == '' or redis.call('HSETNX', lanes, lane, id) == 1 then
      redis.call('RPUSH', ready, id)
    else
      redis.call('ZADD', blocked, 0, lane .. ':' .. string.rep('0', 20 - #millis) .. millis .. '-' .. string.rep('0', 20 - #sequence) .. sequence)
    end
    redis.call('ZADD', open, millis, id)
  end
end
-- An error, such as a key of another type, does not roll back the writes before. The message is deleted then: ids without a message are
-- skipped everywhere, except the head of a lane, which is removed here.
local stored, why = pcall(deliver)
if not stored then
  for n = 1, count do
    local lanes, lane = KEYS[stream + 4 * n - 2], ARGV[5 + n]
    if lane ~= '' and redis.pcall('HGET', lanes, lane) == id then redis.call('HDEL', lanes, lane) end
  end
  redis.call('XDEL', KEYS[stream], id)
  return type(why) == 'table' and why or redis.error_reply(why)
end
for i = 1, last do redis.call('SET', KEYS[i], 'D' .. token, 'PX', ttl) end
return 0
