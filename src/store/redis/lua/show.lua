-- Shows the delivery of one message. Read-only. Arguments: now, the destination's name, and the id.
-- Returns the id, record, due time, 1 when it is blocked, and all fields; false when there is no such delivery.
local entry = redis.call('XRANGE', events, ARGV[3], ARGV[3])[1]
local part = entry and facts(ARGV[2], entry[1], entry[2], redis.call('ZSCORE', open, entry[1]) ~= false)
if not part then return false end
return {entry[1], part[1], part[2], part[3], entry[2]}
