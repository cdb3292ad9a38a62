-- Gives back what a gateway has in hand without knowing it, because an answer was lost.
-- Arguments: the consumer, whether it goes for good (1), and the numbers of the events that it knows of.
-- Answers with how many were given back.
local me, goes, known = ARGV[1], ARGV[2] == '1', {}
for i = 3, #ARGV do known[ARGV[i]] = true end
local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 100000, me)
if pending.err then return 0 end
local given = 0
for _, entry in ipairs(pending) do
  local number = entry[1]
  if not known[number] then
    redis.call('XACK', stream, GROUP, number)
    redis.call('ZADD', due, 0, number)
    given = given + 1
  end
end
-- What a consumer has in hand would be lost with it.
if goes and #pending == given then redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, me) end
return given
