-- Now, in microseconds since 1970: the first argument, or Redis's own time where that is 0. Not to be joined to a text, which keeps
-- only 14 digits.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
