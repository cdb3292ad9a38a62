-- Stores a message, its deliveries and its dedupe records in one step, unless it came earlier.
-- Keys: the dedupe records, that of an ignored event where there is a type, the stream, and of each destination ready, lanes, blocked
-- and open. Arguments: now, the token of the attempt, how long it is remembered in milliseconds, the type as for a claim, how many
-- destinations, the lane or nothing of each, and the fields of the message.
-- Answers as a claim does, or with 1 when this very attempt has stored it before, which a wait of a millisecond is not. What is found
-- done is written again: only what a connection has written can be confirmed to it.
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
  -- A clock of its own may be set back, and ids must grow.
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
-- A key of another type ends the script and undoes nothing. Whatever names a message that is not there is skipped, but for the head of
-- a lane.
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
