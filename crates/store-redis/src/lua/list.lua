-- Names of partitions, of each bucket apart. KEYS: lists. ARGV: 1 server, 2 time, 3 to,
-- 4 limit of each, then from where in each (as ZRANGEBYLEX has them).

local reply = {}
for at, key in ipairs(KEYS) do
  reply[at] = redis.call('ZRANGEBYLEX', key, ARGV[4 + at], ARGV[3], 'LIMIT', 0, ARGV[4])
end
return reply
