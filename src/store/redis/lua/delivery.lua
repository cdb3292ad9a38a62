-- The keys of one destination, in the order in which its scripts are told them:
--   events    the messages, a stream; the first field of each names its destinations and lanes: `NAME[=LANE] …`
--   ready     ids of deliveries that were never taken, a list
--   due       ids by the microsecond from which on they may be taken: a retry, or a claim until its deadline
--   lanes     the delivery of each lane that is open and not blocked: the lane's head
--   blocked   deliveries that wait for their lane: LANE:ID, of one length
--   records   what is known of what was tried, by id: see `standing`
--   retrying  ids by millisecond: tried or replayed, open, and not blocked
--   dead      ids by millisecond: given up
--   open      ids by millisecond: all that is still to be delivered
local events, ready, due, lanes, blocked, records, retrying, dead, open = unpack(KEYS)

local function millis(id)
  return tonumber(string.match(id, '^%d+'))
end

-- State, attempts, and those of them before the last replay. A record is STATE ATTEMPTS,BEFORE,REPLAYED,SETTLED,STATUS;FAILURES
-- without the space. States: Q waits for its first attempt and has no record, R retrying, V delivered, D dead, P purged.
local function standing(record)
  if record and record ~= '' then
    local state, attempts, before = string.match(record, '^(%a)(%d+),(%d+),')
    if state then return state, attempts, before end
  end
  return 'Q', '0', '0'
end

-- Parts of one length, so that the order of the texts is that of the ids.
local function place(lane, id)
  local first, second = string.match(id, '^(%d+)-(%d+)$')
  return lane .. ':' .. string.rep('0', 20 - #first) .. first .. '-' .. string.rep('0', 20 - #second) .. second
end

-- May be taken from now on, another time.
local function take_again(id)
  redis.call('ZADD', due, now, id)
  redis.call('ZADD', retrying, millis(id), id)
end

-- A delivery has ended: if it was the head of its lane, or the lane has lost its head, the oldest that is blocked follows.
local function promote(lane, id)
  local current = redis.call('HGET', lanes, lane)
  if current and current ~= id then
    redis.call('ZREM', blocked, place(lane, id))
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

-- The same where the lanes are not known.
local function promote_after(ended)
  local heads = redis.call('HGETALL', lanes)
  for i = 1, #heads, 2 do
    if ended[heads[i + 1]] then promote(heads[i], heads[i + 1]) end
  end
end
