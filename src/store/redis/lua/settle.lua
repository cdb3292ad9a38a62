-- Records what became of claims. Whoever knows that something is delivered may say so, unless it was replayed since; the rest counts
-- only from the one whose claim it still is: the deadline is the claim's, and nobody has recorded an attempt since.
-- Arguments: now, and for each: id, outcome (V delivered, R retry, D dead, G given back), attempts before and those of them before
-- the last replay (both empty: whatever they are), the deadline, microseconds until it is due again, its lane (nothing without one,
-- ? when it is not known), and the record without state. Answers with how many counted.
local counted = 0

-- Their records in one call.
local ids, known = {}, {}
for at = 2, #ARGV, 8 do ids[#ids + 1] = ARGV[at] end
local found = redis.call('HMGET', records, unpack(ids))
for i, id in ipairs(ids) do known[id] = found[i] or '' end

-- First of all, so that nothing is recorded when it fails.
local function leave(id, lane)
  if lane == '?' then promote_after({[id] = true}) elseif lane ~= '' then promote(lane, id) end
end

local no_more_due, no_more_open, no_more_retrying = {'ZREM', due}, {'ZREM', open}, {'ZREM', retrying}
local recorded = {'HSET', records}

local function record(id, text)
  known[id] = text
  recorded[#recorded + 1] = id
  recorded[#recorded + 1] = text
end

local function finish(id, state, lane)
  leave(id, lane)
  no_more_due[#no_more_due + 1] = id
  no_more_open[#no_more_open + 1] = id
  if state == 'R' then no_more_retrying[#no_more_retrying + 1] = id end
  counted = counted + 1
end

for at = 2, #ARGV, 8 do
  local id, outcome, attempts, before, deadline, pause, lane, text = unpack(ARGV, at, at + 7)
  local state, attempts_now, before_now = standing(known[id])
  if state == 'V' or state == 'P' or before ~= '' and before ~= before_now then
    -- It has ended, or begun again.
  elseif outcome == 'V' then
    -- Somebody may have deleted one of the keys that say that it is still to be delivered. To be told a score takes longer than a rank.
    local stands = state == 'D' and redis.call('ZREM', dead, id) == 1
    if stands or state ~= 'D' and (redis.call('ZRANK', open, id) or redis.call('ZSCORE', due, id)) then
      finish(id, state, lane)
      record(id, 'V' .. text)
    end
  elseif state ~= 'D' and (attempts == '' or attempts == attempts_now) and tonumber(redis.call('ZSCORE', due, id) or -1) == tonumber(deadline) then
    -- Redis that is out of memory lets a script write that has begun with a removing command.
    redis.call('ZREM', due, '')
    if outcome == 'D' then
      finish(id, state, lane)
      redis.call('ZADD', dead, millis(id), id)
      record(id, 'D' .. text)
    else
      counted = counted + 1
      redis.call('ZADD', due, now + pause, id)
      if outcome == 'R' then
        redis.call('ZADD', retrying, millis(id), id)
        record(id, 'R' .. text)
      end
    end
  end
end
for _, command in ipairs({no_more_due, no_more_open, no_more_retrying, recorded}) do
  if #command > 2 then redis.call(unpack(command)) end
end
return counted
