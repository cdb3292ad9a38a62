-- Deletes delivered events past their time, and consumers of gateways that are gone.
-- Arguments: the consumer, how long events are kept and how long consumers, in milliseconds, and how many events at most.
-- Answers with how many were deleted.
local me, keep, quiet, part = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local old = redis.call('ZRANGEBYSCORE', done, '-inf', clock() - keep, 'LIMIT', 0, part)
if #old > 0 then
  redis.call('XDEL', stream, unpack(old))
  redis.call('HDEL', records, unpack(old))
  redis.call('ZREM', done, unpack(old))
end
local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
for _, consumer in ipairs(consumers.err and {} or consumers) do
  local facts = {}
  for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
  if facts.pending == 0 and facts.idle > quiet and facts.name ~= me then
    redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, facts.name)
  end
end
return #old
