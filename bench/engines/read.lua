-- A document as a whole, at one position. KEYS: 1 head, 2 records.

return { tonumber(redis.call('HGET', KEYS[1], 'r')), redis.call('HGETALL', KEYS[2]) }
