-- Returns the facts of a message's delivery to the destination `name`: record, due time (us) or an empty text, and 1 when it is blocked;
-- nil when there is no such delivery. With `is_known`, the delivery exists even if the message does not name the destination.
local function facts(name, id, fields, is_known)
  local record = redis.call('HGET', records, id) or ''
  if string.sub(record, 1, 1) == 'P' then return nil end
  local lane
  for named in string.gmatch(fields[1] == 'to' and fields[2] or '', '[^ ]+') do
    local it, its_lane = string.match(named, '^([^=]*)=?(.*)$')
    if it == name then lane = its_lane end
  end
  if not lane and record == '' and not is_known then return nil end
  local is_blocked = lane and lane ~= '' and redis.call('ZSCORE', blocked, blocked_member(lane, id))
  local score = redis.call('ZSCORE', due, id)
  return {record, score or '', is_blocked and 1 or 0}
end
