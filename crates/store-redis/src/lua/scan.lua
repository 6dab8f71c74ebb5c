-- A page of records. KEYS: 1 life, 2 partition, 3 records, 4 keys in order.
-- ARGV: 1 server, 2 time, 3 from, 4 to (as ZRANGEBYLEX has them), 5 limit, 6 bytes of a page.

local found = partition(KEYS[2])
if not found then
  return { 'ok', '0', '0', '0' }
end
local lived = life(KEYS[1], ARGV[1])
if not lived then
  return { 'life' }
end
local now = time_of(found, ARGV[2])
local incarnation, revision = standing(found, lived)
local reply = { 'ok', incarnation, revision, '0' }
local from, limit, most = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local count, bytes, chunk = 0, 0, 16
while true do
  local keys = redis.call('ZRANGEBYLEX', KEYS[4], from, ARGV[4], 'LIMIT', 0, chunk)
  if #keys == 0 then
    return reply
  end
  local raws = redis.call('HMGET', KEYS[3], unpack(keys))
  for at, key in ipairs(keys) do
    local raw = raws[at]
    if not raw then
      return { 'corrupt', 'no record under a listed key' }
    end
    if is_live(raw, now) then
      bytes = bytes + #key + #raw - HEADER
      if count >= limit or (bytes > most and count > 0) then
        reply[4] = '1'
        return reply
      end
      count = count + 1
      reply[#reply + 1] = key
      reply[#reply + 1] = raw
    end
  end
  if #keys < chunk then
    return reply
  end
  from = '(' .. keys[#keys]
  -- Large records are taken few at a time, so that little is read in vain.
  if bytes < 65536 then
    chunk = 256
  end
end
