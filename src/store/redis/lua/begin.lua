-- Makes destinations known. Keys: their set, and the stream, the delivered and the dead of version 0.1. Arguments: their names.
-- Answers with how many events 0.1 still has to deliver; nothing else is done while there are any.
local length, done, dead = redis.pcall('XLEN', KEYS[2]), redis.pcall('ZCARD', KEYS[3]), redis.pcall('ZCARD', KEYS[4])
if type(length) == 'number' and type(done) == 'number' and type(dead) == 'number' and length > done + dead then
  return length - done - dead
end
-- Redis that is out of memory lets a script write that has begun with a removing command.
redis.call('SREM', KEYS[1], '')
redis.call('SADD', KEYS[1], unpack(ARGV))
return 0
