-- KEYS: 1 channel, which lies in a slot as keys do. ARGV: 1 server, 2 time, 3 message.

redis.call('SPUBLISH', KEYS[1], ARGV[3])
return { 'ok' }
