-- Begins every script of a queue. All keys of one queue, in the order in which every call names them:
--   stream    the events, in a consumer group: what a gateway has in hand is pending there, with its time
--   due       numbers of events that wait for an attempt, by the millisecond from which on it may be made
--   retrying  numbers of events that were tried or replayed and are not finished, by their millisecond
--   dead      numbers of events that were given up, by their millisecond
--   done      numbers of delivered events, by the millisecond in which that was recorded
--   records   what is known of events that were tried: state, attempts, those before the last replay, and JSON
--   lanes     the number of the event that holds each lane
--   parked    events that wait for their lane: LANE:NUMBER
-- An event without a record is queued. The number of an event is that of its entry on the stream.
local stream, due, retrying, dead, done, records, lanes, parked = unpack(KEYS)
local GROUP = 'doorward'
local QUEUED, RETRYING, DELIVERED, DEAD = 'Q', 'R', 'V', 'D'

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function millis(number)
  return tonumber(string.match(number, '^%d+'))
end

local function standing(number)
  local record = redis.call('HGET', records, number)
  if not record then return QUEUED, '0', '0' end
  return string.match(record, '^(%a)(%d+),(%d+);')
end

-- Parts of one length, so that the order of the texts is that of the numbers.
local function place(lane, number)
  local first, second = string.match(number, '^(%d+)-(%d+)$')
  return lane .. ':' .. string.rep('0', 20 - #first) .. first .. '-' .. string.rep('0', 20 - #second) .. second
end

-- Where events begin that nobody has read.
local function last_read()
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    local facts = {}
    for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
    if facts.name == GROUP then return '(' .. facts['last-delivered-id'] end
  end
  return '-'
end

-- An event is finished: the next one of its lane may be tried at once.
local function hand_over(lane, number)
  if lane == '' or redis.call('HGET', lanes, lane) ~= number then return end
  local next = redis.call('ZRANGEBYLEX', parked, '[' .. lane .. ':', '(' .. lane .. ';', 'LIMIT', 0, 1)[1]
  if not next then
    redis.call('HDEL', lanes, lane)
    return
  end
  redis.call('ZREM', parked, next)
  local first, second = string.match(next, ':0*(%d+)-0*(%d+)$')
  redis.call('HSET', lanes, lane, first .. '-' .. second)
  redis.call('ZADD', due, 0, first .. '-' .. second)
end
