-- Looks, and changes nothing. Arguments: the lease and how long delivered events are kept, in milliseconds.
-- Answers with how many events are queued, retrying and dead, the millisecond of the oldest that is not finished or -1,
-- 1 when there is something to take, and 1 when there is something to delete.
local lease, keep, now = ARGV[1], ARGV[2], clock()
local oldest, work = -1, 0

local function open(number)
  if number and (oldest < 0 or millis(number) < oldest) then oldest = millis(number) end
end

local new = redis.call('XRANGE', stream, last_read(), '+', 'COUNT', 1)[1]
if new then
  open(new[1])
  work = 1
end
local pending = redis.pcall('XPENDING', stream, GROUP)
if not pending.err and pending[1] > 0 then
  open(pending[2])
  if #redis.call('XPENDING', stream, GROUP, 'IDLE', lease, '-', '+', 1) > 0 then work = 1 end
end
local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
open(next[1])
if next[2] and tonumber(next[2]) <= now then work = 1 end
open(redis.call('ZRANGE', retrying, 0, 0)[1])

local counts = {redis.call('ZCARD', retrying), redis.call('ZCARD', dead)}
local queued = redis.call('XLEN', stream) - redis.call('ZCARD', done) - counts[1] - counts[2]
local old = redis.call('ZRANGEBYSCORE', done, '-inf', now - keep, 'LIMIT', 0, 1)
return {math.max(queued, 0), counts[1], counts[2], oldest, work, #old}
