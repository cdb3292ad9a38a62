-- Shows entries in the order of their numbers, and changes nothing.
-- Arguments: 1 for the newest first, where to begin and to end (a number, "(NUMBER" for behind it, a millisecond, "+" or
-- "-"), how many at most, "dead" or "retrying" for those only, how many at a step, and after how many bytes it ends.
-- Answers with 1 when there may be more, and with number, record, due time or nothing, and fields of each, without what takes
-- much room.
local newest_first, from, to, max = ARGV[1] == '1', ARGV[2], ARGV[3], tonumber(ARGV[4])
local index = ({dead = dead, retrying = retrying})[ARGV[5]]
local STEP, MOST_BYTES = tonumber(ARGV[6]), tonumber(ARGV[7])
local HIDDEN = {target = true, trace = true, headers = true, body = true}
local shown, bytes, more = {}, 0, 1

local function show(entry)
  local number, fields = entry[1], {}
  for i = 1, #entry[2], 2 do
    bytes = bytes + #entry[2][i + 1]
    if not HIDDEN[entry[2][i]] then
      fields[#fields + 1] = entry[2][i]
      fields[#fields + 1] = entry[2][i + 1]
    end
  end
  local record = redis.call('HGET', records, number) or ''
  shown[#shown + 1] = {number, record, redis.call('ZSCORE', due, number) or '', fields}
end

local function precedes(a, b)
  local sequence = '%d+$'
  local a1, a2, b1, b2 = millis(a), tonumber(string.match(a, sequence)), millis(b), tonumber(string.match(b, sequence))
  if newest_first then a1, a2, b1, b2 = b1, b2, a1, a2 end
  return a1 < b1 or a1 == b1 and a2 < b2
end

-- All of one millisecond are needed to put them in order.
local function indexed()
  local bound = {['+'] = '+inf', ['-'] = '-inf'}
  local by = newest_first and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE'
  local first, last = string.match(from, '^%(?(%d+)') or bound[from], string.match(to, '^%d+') or bound[to]
  local behind = string.match(from, '^%((.*)$')
  local numbers = {}
  local function add(found)
    for _, number in ipairs(found) do
      if not behind or precedes(behind, number) then numbers[#numbers + 1] = number end
    end
  end
  local found = redis.call(by, index, first, last, 'LIMIT', 0, max + 1)
  if #found > max then
    local edge = millis(found[#found])
    for i = #found, 1, -1 do
      if millis(found[i]) == edge then table.remove(found, i) end
    end
    add(redis.call(by, index, edge, edge))
  else
    more = 0
  end
  add(found)
  table.sort(numbers, precedes)
  return numbers
end

if index then
  for _, number in ipairs(indexed()) do
    local entry = redis.call('XRANGE', stream, number, number)[1]
    if entry then show(entry) end
  end
  return {more, shown}
end
while #shown < max and bytes < MOST_BYTES do
  local by = newest_first and 'XREVRANGE' or 'XRANGE'
  local entries = redis.call(by, stream, from, to, 'COUNT', math.min(STEP, max - #shown))
  if #entries == 0 then
    more = 0
    break
  end
  for _, entry in ipairs(entries) do
    show(entry)
    from = '(' .. entry[1]
  end
end
return {more, shown}
