-- Makes the consumer group. One that somebody has deleted begins anew: all events that are not finished are read again, in
-- the order in which they came, and wait for nothing that was known before.
if not redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM').err then redis.call('DEL', due, lanes, parked) end
return 0
