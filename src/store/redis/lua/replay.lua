-- Replays finished deliveries: they are due now, or blocked if their lane has an open delivery. The last key stores the answer for a
-- minute, for a repeated call whose first answer was lost. Arguments: now, the destination's name, the letters of the selected states,
-- and the ids, the oldest first. Returns the number of replayed deliveries.
local before = redis.call('GET', KEYS[#KEYS])
if before then return tonumber(before) end
local name, again = ARGV[2], 0
for i = 4, #ARGV do
  local id = ARGV[i]
  local record = redis.call('HGET', records, id) or ''
  local state, attempts, rest = string.match(record, '^(%a)(%d+),%d+,%d*,(.*)$')
  if state and string.find(ARGV[3], state, 1, true) then
    local entry = redis.call('XRANGE', events, id, id)[1]
    if entry then
      local now_ms = string.format('%.0f', math.floor(now / 1000))
      redis.call('ZREM', dead, id)
      redis.call('ZADD', open, millis(id), id)
      redis.call('HSET', records, id, 'R' .. attempts .. ',' .. attempts .. ',' .. now_ms .. ',' .. rest)
      local lane = ''
      for named in string.gmatch(entry[2][1] == 'to' and entry[2][2] or '', '[^ ]+') do
        local it, its_lane = string.match(named, '^([^=]*)=?(.*)$')
        if it == name then lane = its_lane end
      end
      if lane == '' or redis.call('HSETNX', lanes, lane, id) == 1 then
        take_again(id)
      else
        redis.call('ZADD', blocked, 0, blocked_member(lane, id))
      end
      again = again + 1
    else
      -- The message was deleted by hand.
      redis.call('ZREM', dead, id)
      redis.call('HDEL', records, id)
    end
  end
end
redis.call('SET', KEYS[#KEYS], again, 'PX', 60000)
return again
