-- Statistics. Read-only. Keys, for each destination: ready, due, lanes, blocked, retrying, dead and open. Argument: now.
-- Returns for each: the numbers of open, retrying, blocked and dead deliveries, the millisecond of the oldest open one or -1, 1 when
-- there is something to take, and 1 when a key is missing (the invariants of `delivery.lua` do not hold).
local answer = {}
for at = 1, #KEYS, 7 do
  local ready, due, lanes, blocked, retrying, dead, open = unpack(KEYS, at, at + 6)
  local oldest = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES')[2]
  local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
  local fresh, waiting = redis.call('LLEN', ready), redis.call('ZCARD', due)
  local is_open, tried = redis.call('ZCARD', open), redis.call('ZCARD', retrying)
  local behind, given_up = redis.call('ZCARD', blocked), redis.call('ZCARD', dead)
  local is_whole = is_open == fresh + waiting + behind and tried <= is_open - behind
    and (behind == 0 or redis.call('EXISTS', lanes) == 1)
  local work = fresh > 0 or next and tonumber(next) <= now
  for _, count in ipairs({is_open, tried, behind, given_up}) do answer[#answer + 1] = count end
  answer[#answer + 1] = oldest and tonumber(oldest) or -1
  answer[#answer + 1] = work and 1 or 0
  answer[#answer + 1] = is_whole and 0 or 1
end
return answer
