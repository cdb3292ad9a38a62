-- Has finished events delivered again, from now on. Arguments: the letters of the states that are meant, and the numbers.
-- Answers with how many are delivered again.
local now, again = clock(), 0
for i = 2, #ARGV do
  local number = ARGV[i]
  local state, attempts = standing(number)
  if string.find(ARGV[1], state, 1, true) then
    local json = string.match(redis.call('HGET', records, number), ';(.*)$')
    local notes = cjson.decode(json)
    notes.replayed = now
    redis.call('ZREM', dead, number)
    redis.call('ZREM', done, number)
    redis.call('ZADD', retrying, millis(number), number)
    -- After the loss of the group it may be about to be read anyway.
    local unread = redis.call('XRANGE', stream, last_read(), number, 'COUNT', 1)
    if #unread == 0 then redis.call('ZADD', due, 0, number) end
    redis.call('HSET', records, number, RETRYING .. attempts .. ',' .. attempts .. ';' .. cjson.encode(notes))
    again = again + 1
  end
end
return again
