-- Takes events: those whose gateway has gone silent, those that are due, and then new ones.
-- Arguments: the consumer, the lease in milliseconds, how many at most, 1 to look for the silent, how many at a step, after
-- how many bytes it ends, and after how many entries that it has looked at.
-- Answers with 1 when there may be more, in how many milliseconds the next one is due or -1, and the events: number,
-- fields and record.
local me, lease, max, silent = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local STEP, MOST_BYTES, MOST_SEEN = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local taken, bytes, seen = {}, 0, 0

local function wants()
  return #taken < max and bytes < MOST_BYTES and seen < MOST_SEEN
end

local function step()
  return math.min(STEP, max - #taken)
end

local function admit(number, fields)
  seen = seen + 1
  local record = redis.call('HGET', records, number) or ''
  local state = string.sub(record, 1, 1)
  local lane = fields[1] == 'lane' and fields[2]
  -- A group that was lost and made again reads everything again.
  if state == DELIVERED or state == DEAD then
    redis.call('XACK', stream, GROUP, number)
    if lane then hand_over(lane, number) end
    return
  end
  if lane then
    local holder = redis.call('HGET', lanes, lane)
    if not holder then
      redis.call('HSET', lanes, lane, number)
    elseif holder ~= number then
      redis.call('XACK', stream, GROUP, number)
      redis.call('ZADD', parked, 0, place(lane, number))
      return
    end
  end
  for i = 2, #fields, 2 do bytes = bytes + #fields[i] end
  taken[#taken + 1] = {number, fields, record}
end

local cursor = '0-0'
while silent and wants() do
  local claimed = redis.pcall('XAUTOCLAIM', stream, GROUP, me, lease, cursor, 'COUNT', step())
  if claimed.err then return claimed end
  for _, entry in ipairs(claimed[2]) do
    if entry and entry[2] then admit(entry[1], entry[2]) end
  end
  cursor = claimed[1]
  if cursor == '0-0' then break end
end

local now = clock()
while wants() do
  local numbers = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, step())
  if #numbers == 0 then break end
  local claim = {'XCLAIM', stream, GROUP, me, 0}
  for _, number in ipairs(numbers) do claim[#claim + 1] = number end
  claim[#claim + 1] = 'FORCE'
  local claimed = redis.pcall(unpack(claim))
  if claimed.err then return claimed end
  redis.call('ZREM', due, unpack(numbers))
  local there = {}
  for _, entry in ipairs(claimed) do
    if entry and entry[2] then
      there[entry[1]] = true
      admit(entry[1], entry[2])
    end
  end
  for _, number in ipairs(numbers) do
    -- Somebody has deleted the entry by hand.
    if not there[number] then
      redis.call('ZREM', retrying, number)
      redis.call('HDEL', records, number)
    end
  end
end

while wants() do
  local read = redis.pcall('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', step(), 'STREAMS', stream, '>')
  if not read then break end
  if read.err then return read end
  for _, entry in ipairs(read[1][2]) do admit(entry[1], entry[2]) end
end

local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
local pause = next and math.max(tonumber(next) - now, 0) or -1
return {(#taken == max or not wants()) and 1 or 0, pause, taken}
