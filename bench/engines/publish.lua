-- A publication of a channel that keeps the last hundred.
-- KEYS: 1 head, 2 stream. ARGV: 1 publication, 2 time, 3 channel, 4 name.

local last = redis.call('HINCRBY', KEYS[1], 'r', 1)
redis.call('HSET', KEYS[1], 't', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, last .. '-' .. last, 'v', ARGV[1])
redis.call('SPUBLISH', ARGV[3], ARGV[4])
return { last }
