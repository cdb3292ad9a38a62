-- Looks, and changes nothing. Keys, of each destination: ready, due, blocked, retrying, dead and open. Argument: now.
-- Answers, for each, with how many are open, retrying, blocked and dead, the millisecond of the oldest that is open or -1, and 1 when
-- there is something to take.
local answer = {}
for at = 1, #KEYS, 6 do
  local ready, due, blocked, retrying, dead, open = unpack(KEYS, at, at + 5)
  local oldest = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES')[2]
  local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
  local work = redis.call('LLEN', ready) > 0 or next and tonumber(next) <= now
  local counts = {redis.call('ZCARD', open), redis.call('ZCARD', retrying), redis.call('ZCARD', blocked), redis.call('ZCARD', dead)}
  for _, count in ipairs(counts) do answer[#answer + 1] = count end
  answer[#answer + 1] = oldest and tonumber(oldest) or -1
  answer[#answer + 1] = work and 1 or 0
end
return answer
