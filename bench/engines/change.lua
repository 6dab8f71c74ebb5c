-- A change of a document's entry, as one would write it by hand.
-- KEYS: 1 head, 2 records, 3 changes by revision, 4 stream. ARGV: 1 the entry's key, 2 the
-- revision that it must have, 3 value, 4 what the stream gets, 5 time, 6 channel, 7 name.

local held = redis.call('HGET', KEYS[2], ARGV[1])
local revision = held and struct.unpack('>I8', held) or 0
if revision ~= tonumber(ARGV[2]) then
  return {}
end
local head = redis.call('HMGET', KEYS[1], 'r', 'b', '/changes')
local next = (tonumber(head[1]) or 0) + 1
local last = (tonumber(head[3]) or 0) + 1
local bytes = (tonumber(head[2]) or 0) - (held and #held or 0) + #ARGV[3] + 16
redis.call('HSET', KEYS[1], 'r', next, 't', ARGV[5], 'b', bytes, '/changes', last)
redis.call('HSET', KEYS[2], ARGV[1], struct.pack('>I8I8', next, 0) .. ARGV[3])
redis.call('ZADD', KEYS[3], next, ARGV[1])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, last .. '-' .. next, 'v', ARGV[4])
redis.call('SPUBLISH', ARGV[6], ARGV[7])
return { next, last }
