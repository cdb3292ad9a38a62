-- Deletes finished events. Arguments: the letters of the states that are meant, and the numbers. Answers with how many are
-- deleted.
local gone = 0
for i = 2, #ARGV do
  local number = ARGV[i]
  local state = standing(number)
  if string.find(ARGV[1], state, 1, true) then
    redis.call('XDEL', stream, number)
    redis.call('ZREM', dead, number)
    redis.call('ZREM', done, number)
    redis.call('HDEL', records, number)
    gone = gone + 1
  end
end
return gone
