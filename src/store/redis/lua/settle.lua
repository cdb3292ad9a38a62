-- Records the outcomes of claims. A success counts unless the delivery was replayed since. Other outcomes count only for the current
-- claim: the deadline is that of the claim, and no attempt was recorded since.
-- Arguments: now, and for each outcome: id, outcome (V delivered, R retry, D dead, G given back), earlier attempts and those before the
-- last replay (both empty: not compared), the deadline, the pause before the next attempt (us), the lane (empty: none, ?: unknown), and
-- the record without the state. Returns how many outcomes counted.
local counted = 0

-- Reads all records in one call.
local ids, known = {}, {}
for at = 2, #ARGV, 8 do ids[#ids + 1] = ARGV[at] end
local found = redis.call('HMGET', records, unpack(ids))
for i, id in ipairs(ids) do known[id] = found[i] or '' end

-- Called before anything else is written, so that nothing is recorded when it fails.
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
  local state, attempts_now, before_now = state_of(known[id])
  if state == 'V' or state == 'P' or before ~= '' and before ~= before_now then
    -- It is delivered or purged already, or was replayed since.
  elseif outcome == 'V' then
    -- It is open if `open` or `due` has it (one of the keys may have been deleted by hand). ZRANK is faster than ZSCORE here.
    local stands = state == 'D' and redis.call('ZREM', dead, id) == 1
    if stands or state ~= 'D' and (redis.call('ZRANK', open, id) or redis.call('ZSCORE', due, id)) then
      finish(id, state, lane)
      record(id, 'V' .. text)
    end
  elseif state ~= 'D' and (attempts == '' or attempts == attempts_now) and tonumber(redis.call('ZSCORE', due, id) or -1) == tonumber(deadline) then
    -- When Redis is out of memory, it still lets a script write whose first write is not a `denyoom` command, such as ZREM.
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
