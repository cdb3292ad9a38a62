-- Takes deliveries: half of them from those that are due and half from those that were never taken, if there are so many of both;
-- first from where the oldest is. What is taken is claimed until a deadline, and nothing else is.
-- Arguments: now, the lease in microseconds, how many at most, of how many bytes together (one in any case), and how many are looked
-- at. Answers with the deadline, the microseconds until the next one is due or -1, and id, fields and record of each.
-- Redis that is out of memory lets a script write that has begun with a removing command.
redis.call('ZREM', due, '')
local deadline, max, most_bytes, most_seen = now + ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local taken, bytes, seen, full = {}, 0, 0, false
-- Finished, or deleted by hand.
local ended, any_ended = {}, false

local function weight(fields)
  local told = fields[3] == 'weight' and tonumber(fields[4])
  if told then return told end
  local sum = 0
  for _, part in ipairs(fields) do sum = sum + #part end
  return sum
end

local function drop(id, is_gone)
  ended[id], any_ended = true, true
  redis.call('ZREM', due, id)
  redis.call('ZREM', retrying, id)
  redis.call('ZREM', open, id)
  if is_gone then redis.call('HDEL', records, id) end
end

-- False when there is no room for it.
local function admit(id)
  if full or #taken == max or seen == most_seen then return false end
  seen = seen + 1
  local record = redis.call('HGET', records, id) or ''
  if string.find(record, '^[VDP]') then
    drop(id, false)
    return true
  end
  local entry = redis.call('XRANGE', events, id, id)[1]
  if not entry then
    drop(id, true)
    return true
  end
  local more = weight(entry[2])
  full = #taken > 0 and bytes + more > most_bytes
  if full then return false end
  bytes = bytes + more
  redis.call('ZADD', due, deadline, id)
  taken[#taken + 1] = {id, entry[2], record}
  return true
end

local waiting = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, max)
local fresh = redis.call('LRANGE', ready, 0, max - 1)
local of_waiting, of_fresh = 0, 0

local function from_waiting(most)
  while of_waiting < most and waiting[2 * of_waiting + 1] and admit(waiting[2 * of_waiting + 1]) do of_waiting = of_waiting + 1 end
end

local function from_fresh(most)
  while of_fresh < most and fresh[of_fresh + 1] and admit(fresh[of_fresh + 1]) do of_fresh = of_fresh + 1 end
end

local half = math.ceil(max / 2)
if fresh[1] and (not waiting[1] or millis(fresh[1]) * 1000 < tonumber(waiting[2])) then
  from_fresh(half)
  from_waiting(max)
  from_fresh(max)
else
  from_waiting(half)
  from_fresh(max)
  from_waiting(max)
end
if of_fresh > 0 then redis.call('LTRIM', ready, of_fresh, -1) end
if any_ended then promote_after(ended) end

local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
local pause = next and math.max(next - now, 0) or -1
-- What was looked at and dropped leaves more to take.
if any_ended and #taken == 0 then pause = 0 end
return {deadline, pause, taken}
