-- The commonest commit: a record that is there and does not expire gets a new value, and a
-- stream that is there an entry. It does what commit.lua would, without what such a commit
-- never needs; whatever is otherwise is left to commit.lua, by the answer `whole`.
-- KEYS: 1 life, 2 partition, 3 records, 4 changes by revision, 5 stream.
-- ARGV: 1 server, 2 time, 3 the partition's name, 4 channel of hints, 5 the incarnation that is
-- demanded or '', 6 key, 7 the revision that it must have or '', 8 value, 9 the stream's field,
-- 10 entry, 11 bytes that a partition may hold.

local HEADER = 16
local found = redis.call('HMGET', KEYS[2], 'l', 'i', 'r', 't', 'b', ARGV[9], 'x')
local raw = redis.call('HGET', KEYS[3], ARGV[6])
if not (raw and #raw >= HEADER and found[1] and found[6]) then
  return { 'whole' }
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ' ' .. found[1] then
  return { 'whole' }
end
local revision, expires = struct.unpack('>I8I8', raw)
if expires ~= 0 then
  return { 'whole' }
end
if ARGV[5] ~= '' and ARGV[5] ~= found[2] then
  return { 'conflict', found[2], found[3] }
end
if ARGV[7] ~= '' and tonumber(ARGV[7]) ~= revision then
  return { 'conflict', found[2], found[3], ARGV[6] }
end
local bytes = found[5] - #raw + HEADER + #ARGV[8]
if bytes > tonumber(ARGV[11]) then
  return { 'whole' }
end
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
now = math.max(now, tonumber(found[4]))
local next_revision = found[3] + 1
local told = string.format('%.0f', next_revision)
local first, last = string.match(found[6], '^(%d+ )(%d+)$')
last = string.format('%.0f', last + 1)

-- From here on nothing may fail; with its memory full the server refuses the first write.
redis.call('HSET', KEYS[2], 'r', told, 't', now, 'b', bytes, ARGV[9], first .. last)
redis.call('HSET', KEYS[3], ARGV[6], struct.pack('>I8I8', next_revision, 0) .. ARGV[8])
if found[7] == 'now' then
  redis.call('HSET', KEYS[3], '', struct.pack('>I8', now))
end
redis.call('ZADD', KEYS[4], told, ARGV[6])
redis.call('XADD', KEYS[5], last .. '-' .. told, 'v', ARGV[10])
redis.pcall('SPUBLISH', ARGV[4], ARGV[3])
return { 'ok', found[2], told, last }
