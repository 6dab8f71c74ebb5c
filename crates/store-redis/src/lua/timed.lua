-- What of an index by time has come. KEYS: 1 index. ARGV: 1 server, 2 time, 3 limit.

return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(time(ARGV[2])), 'LIMIT', 0, ARGV[3])
