-- `now` in microseconds since 1970: the first argument, or the time of Redis if that is 0. Do not concatenate it with a text: Lua keeps
-- only 14 digits then.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
