-- Takes deliveries, and claims them until a deadline: half of them from `due` and half from `ready`, if both have enough, first from the
-- one with the oldest delivery.
-- Arguments: now, the lease (us), the maximum number, the maximum number of bytes (one delivery is taken in any case), and the maximum
-- number of scanned deliveries. Returns the deadline, the time until there may be more to take (us) or -1, and id, fields and record of
-- each delivery.
local deadline, max, most_bytes, most_seen = now + ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
local pause = next and math.max(next - now, 0) or -1
local waiting = pause == 0 and redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, max) or {}
local fresh = redis.call('LRANGE', ready, 0, max - 1)
if pause ~= 0 and #fresh == 0 then return {deadline, pause, {}} end
local taken, claims, bytes, seen, full = {}, {'ZADD', due}, 0, 0, false
-- As a text, so that Redis does not format the number for each.
local score = string.format('%.0f', deadline)
-- Deliveries that were found to be finished, or whose message was deleted by hand.
local ended, any_ended = {}, false

-- Reads all records in one call.
local known, ids = {}, {}
for i = 1, #waiting, 2 do ids[#ids + 1] = waiting[i] end
for _, id in ipairs(fresh) do ids[#ids + 1] = id end
local found = redis.call('HMGET', records, unpack(ids))
for i, id in ipairs(ids) do known[id] = found[i] or '' end

local function weight(fields)
  local told = fields[3] == 'weight' and tonumber(fields[4])
  if told then return told end
  local sum = 0
  for _, part in ipairs(fields) do sum = sum + #part end
  return sum
end

-- Messages of `ready` are mostly consecutive, so they are read in ranges: one, then eight and more, about as many as fit. When less than
-- half of a range was wanted, ranges begin with one again, and are doubled.
local cache, step, growth = {}, 1, 8

local function read(id, is_fresh)
  if not cache[id] then
    local count = is_fresh and math.min(step, max - #taken, math.max(1, math.floor((most_bytes - bytes) / (bytes / (#taken + 1) + 1)))) or 1
    local hits = 0
    for _, entry in ipairs(redis.call('XRANGE', events, id, count > 1 and '+' or id, 'COUNT', count)) do
      if known[entry[1]] then
        cache[entry[1]] = entry[2]
        hits = hits + 1
      end
    end
    if is_fresh and hits * 2 < count then
      step, growth = 1, 2
    elseif is_fresh then
      step = math.min(step * growth, 32)
    end
  end
  return cache[id]
end

local function drop(id, is_gone)
  ended[id], any_ended = true, true
  redis.call('ZREM', due, id)
  redis.call('ZREM', retrying, id)
  redis.call('ZREM', open, id)
  if is_gone then redis.call('HDEL', records, id) end
end

-- Takes a delivery, or drops it if it is finished. Returns false when a limit is reached.
local function admit(id, is_fresh)
  if full or #taken == max or seen == most_seen then return false end
  seen = seen + 1
  local record = known[id]
  if record ~= '' and string.find(record, '^[VDP]') then
    drop(id, false)
    return true
  end
  local fields = read(id, is_fresh)
  if not fields then
    drop(id, true)
    return true
  end
  local more = weight(fields)
  full = #taken > 0 and bytes + more > most_bytes
  if full then return false end
  bytes = bytes + more
  claims[#claims + 1] = score
  claims[#claims + 1] = id
  taken[#taken + 1] = {id, fields, record}
  return true
end

local of_waiting, of_fresh = 0, 0

local function from_waiting(most)
  while of_waiting < most and waiting[2 * of_waiting + 1] and admit(waiting[2 * of_waiting + 1], false) do of_waiting = of_waiting + 1 end
end

local function from_fresh(most)
  while of_fresh < most and fresh[of_fresh + 1] and admit(fresh[of_fresh + 1], true) do of_fresh = of_fresh + 1 end
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
-- When Redis is out of memory, it still lets a script write whose first write is not a `denyoom` command, such as ZREM.
if of_fresh > 0 then redis.call('LTRIM', ready, of_fresh, -1) else redis.call('ZREM', due, '') end
if #taken > 0 then redis.call(unpack(claims)) end
if any_ended then promote_after(ended) end
-- Ended deliveries unblock others.
if full or any_ended or #taken == max or seen == most_seen then
  pause = 0
elseif pause == 0 then
  pause = math.max((redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or now) - now, 0)
end
return {deadline, pause, taken}
