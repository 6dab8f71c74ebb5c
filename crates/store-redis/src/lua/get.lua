-- KEYS: 1 life, 2 partition, 3 records. ARGV: 1 server, 2 time, 3 key.

local raw = redis.call('HGET', KEYS[3], ARGV[3])
if not raw or #raw < HEADER then
  return { 'none' }
end
local _, expires = header(raw)
if expires ~= 0 then
  local found = { t = redis.call('HGET', KEYS[2], 't') }
  if time_of(found, ARGV[2]) >= expires then
    return { 'none' }
  end
end
return { 'ok', raw }
