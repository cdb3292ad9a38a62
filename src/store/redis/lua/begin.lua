-- Registers destinations. Keys: the set of their names; the keys `stream`, `done` and `dead` of version 0.1. Arguments: the names.
-- Returns how many events version 0.1 still has to deliver; registers nothing while there are any.
local length, done, dead = redis.pcall('XLEN', KEYS[2]), redis.pcall('ZCARD', KEYS[3]), redis.pcall('ZCARD', KEYS[4])
if type(length) == 'number' and type(done) == 'number' and type(dead) == 'number' and length > done + dead then
  return length - done - dead
end
-- When Redis is out of memory, it still lets a script write whose first write is not a `denyoom` command, such as SREM.
redis.call('SREM', KEYS[1], '')
redis.call('SADD', KEYS[1], unpack(ARGV))
return 0
