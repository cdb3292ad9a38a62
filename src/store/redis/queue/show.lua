-- Shows one entry whole: number, fields and record, or nothing. Argument: its number.
local entry = redis.call('XRANGE', stream, ARGV[1], ARGV[1])[1]
if not entry then return false end
return {entry[1], entry[2], redis.call('HGET', records, entry[1]) or ''}
