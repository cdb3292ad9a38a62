-- Records what became of claims. Whoever knows that something is delivered may say so, unless it was replayed since; the rest counts
-- only from the one whose claim it still is: the deadline is the claim's, and nobody has recorded an attempt since.
-- Arguments: now, and for each: id, outcome (V delivered, R retry, D dead, G given back), attempts before and those of them before
-- the last replay (both empty: whatever they are), the deadline, microseconds until it is due again, its lane (nothing without one,
-- ? when it is not known), and the record without state. Answers with how many counted.
-- Redis that is out of memory lets a script write that has begun with a removing command.
redis.call('ZREM', due, '')
local counted = 0

-- First of all, so that nothing is recorded when it fails.
local function leave(id, lane)
  if lane == '?' then promote_after({[id] = true}) elseif lane ~= '' then promote(lane, id) end
end

local function delivered(id, state, lane, record)
  leave(id, lane)
  redis.call('ZREM', due, id)
  if redis.call('ZREM', state == 'D' and dead or open, id) == 0 then return false end
  if state == 'R' then redis.call('ZREM', retrying, id) end
  redis.call('HSET', records, id, 'V' .. record)
  return true
end

for at = 2, #ARGV, 8 do
  local id, outcome, attempts, before, deadline, pause, lane, record = unpack(ARGV, at, at + 7)
  local state, attempts_now, before_now = standing(id)
  if state == 'V' or state == 'P' or before ~= '' and before ~= before_now then
    -- It has ended, or begun again.
  elseif outcome == 'V' then
    if delivered(id, state, lane, record) then counted = counted + 1 end
  elseif (attempts == '' or attempts == attempts_now) and tonumber(redis.call('ZSCORE', due, id) or -1) == tonumber(deadline) then
    counted = counted + 1
    if outcome == 'D' then
      leave(id, lane)
      redis.call('ZREM', due, id)
      redis.call('ZREM', open, id)
      if state == 'R' then redis.call('ZREM', retrying, id) end
      redis.call('ZADD', dead, millis(id), id)
      redis.call('HSET', records, id, 'D' .. record)
    else
      redis.call('ZADD', due, now + pause, id)
      if outcome == 'R' then
        redis.call('ZADD', retrying, millis(id), id)
        redis.call('HSET', records, id, 'R' .. record)
      end
    end
  end
end
return counted
