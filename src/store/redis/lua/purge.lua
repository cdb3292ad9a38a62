-- Deletes finished deliveries, and messages with their last delivery. Keys: those of the destination, the key of the answer as for a
-- replay, and `records` of all destinations of the source. Arguments: now, the letters of the selected states, the number of
-- destinations, their names, and the ids. Returns the number of deleted deliveries.
local before = redis.call('GET', KEYS[10])
if before then return tonumber(before) end
local count, gone, all = tonumber(ARGV[3]), 0, {}
for n = 1, count do all[ARGV[3 + n]] = KEYS[10 + n] end

local function is_last(id, to)
  for named in string.gmatch(to, '[^ ]+') do
    local theirs = all[string.match(named, '^[^=]*')]
    if theirs ~= records and not (theirs and string.sub(redis.call('HGET', theirs, id) or '', 1, 1) == 'P') then return false end
  end
  return true
end

for i = 4 + count, #ARGV do
  local id = ARGV[i]
  local state = state_of(redis.call('HGET', records, id))
  if string.find(ARGV[2], state, 1, true) then
    redis.call('ZREM', dead, id)
    local entry = redis.call('XRANGE', events, id, id)[1]
    if not entry or is_last(id, entry[2][1] == 'to' and entry[2][2] or '') then
      redis.call('XDEL', events, id)
      for n = 1, count do redis.call('HDEL', KEYS[10 + n], id) end
    else
      redis.call('HSET', records, id, 'P0,0,,,;')
    end
    gone = gone + 1
  end
end
redis.call('SET', KEYS[10], gone, 'PX', 60000)
return gone
