-- Shows the delivery of one message, and changes nothing. Arguments: now, the destination's name, and the id.
-- Answers with the id, record, due time, 1 when it is blocked, and all fields; or with nothing.
local entry = redis.call('XRANGE', events, ARGV[3], ARGV[3])[1]
local part = entry and facts(ARGV[2], entry[1], entry[2], redis.call('ZSCORE', open, entry[1]) ~= false)
if not part then return false end
return {entry[1], part[1], part[2], part[3], entry[2]}
