-- Records what attempts came to. Whoever knows that an event is delivered may say so; what else came of an attempt counts
-- only from the gateway that still has the event in hand.
-- Arguments: the consumer, and for each attempt: the event's number, the verdict, its attempts before and those of them
-- before its last replay, the pause until the next one in milliseconds, its lane or nothing, and the record without state.
-- Answers with how many were recorded.
local me, now = ARGV[1], clock()
local recorded = 0

local function is_mine(number)
  local pending = redis.pcall('XPENDING', stream, GROUP, number, number, 1)
  return not pending.err and pending[1] ~= nil and pending[1][2] == me
end

local function is_there(number)
  return #redis.call('XRANGE', stream, number, number) > 0
end

-- What is pending is neither due nor dead. Redis that is out of memory lets a script write that has written before, and XACK is always allowed: so what is
-- finished can be recorded, and room be made.
local function delivered(number, state, lane, record)
  if redis.call('XACK', stream, GROUP, number) == 0 then
    -- Nobody has it in hand.
    local found = redis.call('ZREM', due, number) + redis.call('ZREM', dead, number)
    if lane ~= '' then found = found + redis.call('ZREM', parked, place(lane, number)) end
    if found == 0 and not is_there(number) then return false end
  end
  if state == RETRYING then redis.call('ZREM', retrying, number) end
  redis.call('ZADD', done, now, number)
  redis.call('HSET', records, number, DELIVERED .. record)
  hand_over(lane, number)
  return true
end

local function retry(number, pause, record)
  redis.call('XACK', stream, GROUP, number)
  redis.call('ZADD', due, now + pause, number)
  redis.call('ZADD', retrying, millis(number), number)
  redis.call('HSET', records, number, RETRYING .. record)
end

local function give_up(number, lane, record)
  redis.call('XACK', stream, GROUP, number)
  redis.call('ZREM', retrying, number)
  redis.call('ZADD', dead, millis(number), number)
  redis.call('HSET', records, number, DEAD .. record)
  hand_over(lane, number)
end

for at = 2, #ARGV, 7 do
  local number, verdict, attempts, spent, pause, lane, record = unpack(ARGV, at, at + 6)
  local state, attempts_now, spent_now = standing(number)
  if spent == spent_now and state ~= DELIVERED then
    if verdict == DELIVERED then
      if delivered(number, state, lane, record) then recorded = recorded + 1 end
    elseif attempts == attempts_now and is_mine(number) then
      if verdict == RETRYING then retry(number, pause, record) else give_up(number, lane, record) end
      recorded = recorded + 1
    end
  end
end
return recorded
