-- Deletes messages whose deliveries are all purged, or delivered and past their retention. At the begin of a round, also repairs due
-- times that a clock which was set has left too far in the future, and removes ids whose message was deleted by hand.
-- Keys: the stream, and for each destination due, dead, open and records. Arguments: now, the id after which to continue or an empty
-- text for a new round, the maximum number of messages, the number of bytes after which to end, and for each destination its name and
-- retention (ms). Returns the last scanned id, or an empty text at the end of the round, and the numbers of scanned and of deleted
-- messages.
local behind, most, most_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local AHEAD = 25 * 3600 * 1000000
local now_ms = math.floor(now / 1000)
local count, index, keep, least = 0, {}, {}, math.huge
for at = 5, #ARGV, 2 do
  count = count + 1
  index[ARGV[at]], keep[count] = count, tonumber(ARGV[at + 1])
  least = math.min(least, keep[count])
end

if behind == '' then
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  local before = first and '(' .. string.match(first[1], '^%d+') or '+inf'
  for n = 1, count do
    local due, dead, open, records = unpack(KEYS, 4 * n - 2, 4 * n + 1)
    -- Leases and pauses last at most a day.
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, now + AHEAD, '+inf', 'LIMIT', 0, most)) do redis.call('ZADD', due, now, id) end
    local gone = redis.call('ZRANGEBYSCORE', dead, '-inf', before, 'LIMIT', 0, most)
    if #gone > 0 then
      redis.call('ZREM', dead, unpack(gone))
      redis.call('HDEL', records, unpack(gone))
    end
    if redis.call('HLEN', records) > redis.call('XLEN', KEYS[1]) then
      for _, id in ipairs(redis.call('HRANDFIELD', records, 20)) do
        if #redis.call('XRANGE', KEYS[1], id, id) == 0 and not redis.call('ZSCORE', open, id) then redis.call('HDEL', records, id) end
      end
    end
  end
end

local function is_past(id, to)
  for name in string.gmatch(to, '[^ ]+') do
    local n = index[string.match(name, '^[^=]*')]
    local record = n and redis.call('HGET', KEYS[4 * n + 1], id)
    local state, settled = string.match(record or '', '^(%a)%d+,%d+,%d*,(%d*),')
    if state ~= 'P' and (state ~= 'V' or (tonumber(settled) or 0) + keep[n] > now_ms) then return false end
  end
  return true
end

local from, to = behind == '' and '-' or '(' .. behind, string.format('%.0f', math.max(now_ms - least, 0))
local past, seen, bytes, step = {}, 0, 0, 4
while seen < most and bytes < most_bytes do
  local entries = redis.call('XRANGE', KEYS[1], from, to, 'COUNT', math.min(step, most - seen))
  if #entries == 0 then
    behind = ''
    break
  end
  for _, entry in ipairs(entries) do
    local id, fields = entry[1], entry[2]
    for i = 2, #fields, 2 do bytes = bytes + #fields[i] end
    if fields[1] == 'to' and is_past(id, fields[2]) then past[#past + 1] = id end
    seen, behind, from = seen + 1, id, '(' .. id
  end
  -- Reads about as many entries as fit into the remaining bytes.
  step = math.max(1, math.min(64, math.floor((most_bytes - bytes) / (bytes / seen + 1))))
end
if #past > 0 then
  redis.call('XDEL', KEYS[1], unpack(past))
  for n = 1, count do redis.call('HDEL', KEYS[4 * n + 1], unpack(past)) end
end
return {behind, seen, #past}
