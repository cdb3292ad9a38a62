-- The keys of one destination, in the order in which its scripts get them. Invariant: an open delivery is in exactly one of `ready`,
-- `due` and `blocked`, and at most one open delivery of a lane is not in `blocked`.
--   events    the messages, a stream; the first field of each names its destinations and lanes: `NAME[=LANE] …`
--   ready     ids of deliveries that were never taken, the oldest first: a list
--   due       ids by the microsecond from which on they may be taken: the time of a retry, or the deadline of a claim
--   lanes     the delivery of each lane that is open and not blocked: the lane's head
--   blocked   deliveries that wait for their lane: LANE:ID, of one length
--   records   the record of earlier attempts, by id: see `state_of`
--   retrying  ids by millisecond: open deliveries that were attempted or replayed, and are not blocked
--   dead      ids by millisecond: dead letters
--   open      ids by millisecond: all open deliveries
local events, ready, due, lanes, blocked, records, retrying, dead, open = unpack(KEYS)

local function millis(id)
  return tonumber(string.match(id, '^%d+'))
end

-- Returns state, attempts, and attempts before the last replay. A record is the letter of the state, then
-- ATTEMPTS,BEFORE,REPLAYED,SETTLED,STATUS;FAILURES. States: Q queued (without a record), R retrying, V delivered, D dead, P purged.
local function state_of(record)
  if record and record ~= '' then
    local state, attempts, before = string.match(record, '^(%a)(%d+),(%d+),')
    if state then return state, attempts, before end
  end
  return 'Q', '0', '0'
end

-- The member of `blocked`: LANE:ID with zero-padded numbers, so that the lexical order is that of the ids.
local function blocked_member(lane, id)
  local first, second = string.match(id, '^(%d+)-(%d+)$')
  return lane .. ':' .. string.rep('0', 20 - #first) .. first .. '-' .. string.rep('0', 20 - #second) .. second
end

-- Makes a delivery due now, for another attempt.
local function take_again(id)
  redis.call('ZADD', due, now, id)
  redis.call('ZADD', retrying, millis(id), id)
end

-- After the end of a delivery: if it was the head of its lane, or the lane has no head, unblocks the oldest blocked one of the lane.
local function promote(lane, id)
  local current = redis.call('HGET', lanes, lane)
  if current and current ~= id then
    redis.call('ZREM', blocked, blocked_member(lane, id))
    return
  end
  local first, second
  repeat
    local next = redis.call('ZRANGEBYLEX', blocked, '[' .. lane .. ':', '(' .. lane .. ';', 'LIMIT', 0, 1)[1]
    if not next then
      redis.call('HDEL', lanes, lane)
      return
    end
    redis.call('ZREM', blocked, next)
    first, second = string.match(next, ':0*(%d+)-0*(%d+)$')
  until first
  local head = first .. '-' .. second
  redis.call('HSET', lanes, lane, head)
  if redis.call('HEXISTS', records, head) == 1 then take_again(head) else redis.call('RPUSH', ready, head) end
end

-- The same for ended deliveries whose lanes are not known.
local function promote_after(ended)
  local heads = redis.call('HGETALL', lanes)
  for i = 1, #heads, 2 do
    if ended[heads[i + 1]] then promote(heads[i], heads[i + 1]) end
  end
end
