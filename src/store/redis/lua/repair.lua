-- Restores deliveries that are in none of `ready`, `due` and `blocked`, because a key was deleted by hand or evicted. A delivery that is
-- not in `open` either is left alone, because it may have been delivered.
-- Arguments: now, the destination's name, the id after which to continue or an empty text for a new round, the maximum number of
-- messages, and the number of bytes after which to end. Returns the last scanned id, or an empty text at the end of the round, and the
-- number of misplaced deliveries.
local name, behind, most, most_bytes = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local MOVED = 5000

-- A list cannot be searched efficiently, so the first deliveries in `ready` are moved to `due`.
for _, id in ipairs(redis.call('LRANGE', ready, 0, MOVED - 1)) do redis.call('ZADD', due, 'NX', now, id) end
redis.call('LTRIM', ready, MOVED, -1)
local fresh = {}
for _, id in ipairs(redis.call('LRANGE', ready, 0, -1)) do fresh[id] = true end

local misplaced = 0

local function repair(id, lane)
  local state = state_of(redis.call('HGET', records, id))
  if state == 'D' then redis.call('ZADD', dead, millis(id), id) end
  if state ~= 'Q' and state ~= 'R' then
    redis.call('ZREM', open, id)
    redis.call('ZREM', retrying, id)
    return
  end
  local is_blocked = lane ~= '' and redis.call('ZSCORE', blocked, blocked_member(lane, id))
  local is_claimable = fresh[id] or redis.call('ZSCORE', due, id)
  local is_open = redis.call('ZSCORE', open, id)
  if not (is_open or is_blocked or is_claimable) then return end
  local is_head = lane == '' or redis.call('HSETNX', lanes, lane, id) == 1 or redis.call('HGET', lanes, lane) == id
  if not is_open then redis.call('ZADD', open, millis(id), id) end
  if not is_claimable and is_head then
    if is_blocked then redis.call('ZREM', blocked, blocked_member(lane, id)) end
    redis.call('ZADD', due, now, id)
  elseif not is_claimable and not is_blocked then
    redis.call('ZADD', blocked, 0, blocked_member(lane, id))
  end
  if state == 'R' and (is_claimable or is_head) then redis.call('ZADD', retrying, millis(id), id) end
  if not is_open or not is_claimable and (is_head or not is_blocked) then misplaced = misplaced + 1 end
end

local from, seen, bytes = behind == '' and '-' or '(' .. behind, 0, 0
while seen < most and bytes < most_bytes do
  local entry = redis.call('XRANGE', events, from, '+', 'COUNT', 1)[1]
  if not entry then
    behind = ''
    break
  end
  local id, fields = entry[1], entry[2]
  for i = 2, #fields, 2 do bytes = bytes + #fields[i] end
  for named in string.gmatch(fields[1] == 'to' and fields[2] or '', '[^ ]+') do
    local it, lane = string.match(named, '^([^=]*)=?(.*)$')
    if it == name then repair(id, lane) end
  end
  seen, behind, from = seen + 1, id, '(' .. id
end
if behind == '' then
  -- Invariants: every id in `retrying` is in `open`, and every id in `open` has a message.
  for _, id in ipairs(redis.call('ZRANGE', open, 0, most - 1)) do
    if #redis.call('XRANGE', events, id, id) == 0 then redis.call('ZREM', open, id) end
  end
  redis.call('ZINTERSTORE', retrying, 2, retrying, open, 'WEIGHTS', 1, 0)
end
return {behind, misplaced}
