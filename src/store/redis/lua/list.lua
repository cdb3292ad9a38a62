-- Lists deliveries in the order of their ids. Read-only.
-- Arguments: now, the destination's name, 1 for the newest first, the first and the last id (an id, "(ID" to exclude it, a millisecond,
-- "+" or "-"), the maximum number, the set that has all wanted deliveries (open, dead, retrying) or an empty text, the maximum number
-- of entries read at once, and the number of bytes after which to end.
-- Returns the last scanned id, or an empty text at the end, and for each delivery its id, record, due time, 1 when it is blocked, and
-- the message's fields without the large ones.
local name, newest_first, from, to, max = ARGV[2], ARGV[3] == '1', ARGV[4], ARGV[5], tonumber(ARGV[6])
local set = ({open = open, dead = dead, retrying = retrying})[ARGV[7]]
local STEP, MOST_BYTES = tonumber(ARGV[8]), tonumber(ARGV[9])
local HIDDEN = {request = true, body = true, weight = true}
local shown, bytes, seen, last = {}, 0, 0, ''

local function show(entry, is_known)
  local id, fields, kept = entry[1], entry[2], {}
  for i = 1, #fields, 2 do
    bytes = bytes + #fields[i + 1]
    if not HIDDEN[fields[i]] then
      kept[#kept + 1] = fields[i]
      kept[#kept + 1] = fields[i + 1]
    end
  end
  local part = facts(name, id, fields, is_known)
  if part then shown[#shown + 1] = {id, part[1], part[2], part[3], kept} end
end

local function precedes(a, b)
  local sequence = '%d+$'
  local a1, a2, b1, b2 = millis(a), tonumber(string.match(a, sequence)), millis(b), tonumber(string.match(b, sequence))
  if newest_first then a1, a2, b1, b2 = b1, b2, a1, a2 end
  return a1 < b1 or a1 == b1 and a2 < b2
end

-- The ids from `set`. All ids of a millisecond are read, to sort them. The second result is whether there are more.
local function indexed()
  local bound = {['+'] = '+inf', ['-'] = '-inf'}
  local by = newest_first and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE'
  local first, final = bound[from] or from, bound[to] or to
  local behind = string.match(from, '^%((.*)$')
  local ids, more = {}, false
  local function add(found)
    for _, id in ipairs(found) do
      if not behind or precedes(behind, id) then ids[#ids + 1] = id end
    end
  end
  if behind then
    add(redis.call(by, set, millis(behind), millis(behind)))
    first = '(' .. millis(behind)
  end
  local found = redis.call(by, set, first, final, 'LIMIT', 0, max + 1)
  if #found > max then
    more = true
    local edge = millis(found[#found])
    for i = #found, 1, -1 do
      if millis(found[i]) == edge then table.remove(found, i) end
    end
    add(redis.call(by, set, edge, edge))
  end
  add(found)
  table.sort(ids, precedes)
  return ids, more
end

if set then
  local ids, more = indexed()
  for _, id in ipairs(ids) do
    if bytes >= MOST_BYTES then return {last, shown} end
    local entry = redis.call('XRANGE', events, id, id)[1]
    if entry then show(entry, true) end
    last = id
  end
  return {more and last or '', shown}
end
local step = 4
while #shown < max and seen < max and bytes < MOST_BYTES do
  local by = newest_first and 'XREVRANGE' or 'XRANGE'
  local entries = redis.call(by, events, from, to, 'COUNT', math.min(step, max - seen))
  if #entries == 0 then
    last = ''
    break
  end
  for _, entry in ipairs(entries) do
    show(entry, false)
    seen, last, from = seen + 1, entry[1], '(' .. entry[1]
  end
  step = math.max(1, math.min(STEP, math.floor((MOST_BYTES - bytes) / (bytes / seen + 1))))
end
return {last, shown}
