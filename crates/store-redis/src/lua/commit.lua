-- One commit: all that may fail comes before the first write.
-- KEYS: 1 life, 2 partition, 3 records, 4 keys in order, 5 changes by revision, 6 deletions by
-- time, 7 due, 8 expiries, 9 list, 10 the commit's id, then streams.
-- ARGV: 1 server, 2 time, 3 the partition's name, 4 its name within expiries, 5 channel of
-- hints, 6 a fresh incarnation, 7 digest ('' without an id), 8 bytes that a partition may
-- hold, then operations: fences, other checks, writes.

local LARGEST = 9007199254740991
local NAME, EXPIRY, DIGEST = ARGV[3], ARGV[4], ARGV[7]

local lived = life(KEYS[1], ARGV[1])
if not lived then
  return { 'life' }
end
local found = partition(KEYS[2])
local now = time_of(found, ARGV[2])
local incarnation, revision = standing(found, lived)

if DIGEST ~= '' then
  local known = redis.call('GET', KEYS[10])
  if known then
    local digest, at, told = string.match(known, '^(%x+) (%d+) (.*)$')
    if now < tonumber(at) + KEPT then
      if digest ~= DIGEST then
        return { 'reused' }
      end
      local reply = { 'ok' }
      for word in string.gmatch(told, '%d+') do
        reply[#reply + 1] = word
      end
      return reply
    end
  end
end

local records = {}
local function record(key)
  local one = records[key]
  if not one then
    one = { key = key, size = 0 }
    local raw = redis.call('HGET', KEYS[3], key)
    if raw and #raw >= HEADER then
      one.was = true
      one.revision, one.expires = header(raw)
      one.live = is_live(raw, now)
      one.size = #key + #raw - HEADER
    end
    records[key] = one
  end
  return one
end

-- Checks. Fences are text of one length, so that they compare as numbers do.
local at = 9
local fence = found and found.f or '00000000000000000000'
while at <= #ARGV do
  local check = ARGV[at]
  if check == 'fence' then
    if ARGV[at + 1] < fence then
      return { 'fenced', fence }
    end
    fence = ARGV[at + 1]
    at = at + 2
  elseif check == 'position' then
    if ARGV[at + 1] ~= incarnation or ARGV[at + 2] ~= revision then
      return { 'conflict', incarnation, revision }
    end
    at = at + 3
  elseif check == 'incarnation' then
    if ARGV[at + 1] ~= incarnation then
      return { 'conflict', incarnation, revision }
    end
    at = at + 2
  elseif check == 'revision' then
    local one = record(ARGV[at + 1])
    if not one.live or text(one.revision) ~= ARGV[at + 2] then
      return { 'conflict', incarnation, revision, one.key }
    end
    at = at + 3
  elseif check == 'absent' then
    local one = record(ARGV[at + 1])
    if one.live then
      return { 'conflict', incarnation, revision, one.key }
    end
    at = at + 2
  else
    break
  end
end

-- The partition after the commit.
local made = not found
local after = found or { i = ARGV[6], r = '0', k = '0', b = '0', streams = {} }
local fields = {}
local function set(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
local changed_streams = {}
if ARGV[at] == 'begin' then
  if found then
    return { 'conflict', incarnation, revision }
  end
  if ARGV[at + 1] ~= '0' then
    after.i = ARGV[at + 1]
  end
  -- What was deleted before it came here is not known here.
  after.r, after.k = ARGV[at + 2], ARGV[at + 2]
  local heads = tonumber(ARGV[at + 3])
  at = at + 4
  for _ = 1, heads do
    local last = tonumber(ARGV[at + 1])
    after.streams[ARGV[at]] = { first = last + 1, last = last }
    changed_streams[ARGV[at]] = true
    at = at + 2
  end
end
local next_revision = text(tonumber(after.r) + 1)

-- Writes, in order, into what is to be done.
local touched, appends, trims, sequences = {}, {}, {}, {}
local sweeps, swept = false, 0
local function touch(one)
  if not one.touched then
    one.touched = true
    touched[#touched + 1] = one
  end
end
while at <= #ARGV do
  local write = ARGV[at]
  if write == 'put' then
    local one = record(ARGV[at + 1])
    touch(one)
    one.value = ARGV[at + 2]
    one.until_time = 0
    if ARGV[at + 3] ~= '' then
      one.until_time = math.min(now + tonumber(ARGV[at + 3]), LARGEST)
    end
    at = at + 4
  elseif write == 'delete' then
    local one = record(ARGV[at + 1])
    touch(one)
    one.value = nil
    at = at + 2
  elseif write == 'sweep' then
    local one = record(ARGV[at + 1])
    sweeps = true
    if one.was and not one.live and not one.touched then
      touch(one)
      swept = swept + 1
    end
    at = at + 2
  elseif write == 'append' then
    local name = ARGV[at + 1]
    local span = after.streams[name]
    if not span then
      span = { first = 1, last = 0 }
      after.streams[name] = span
    end
    span.last = span.last + 1
    changed_streams[name] = true
    sequences[#sequences + 1] = text(span.last)
    appends[#appends + 1] = { KEYS[tonumber(ARGV[at + 2])], text(span.last), ARGV[at + 3] }
    at = at + 4
  elseif write == 'trim' then
    local name = ARGV[at + 1]
    local span = after.streams[name]
    local first = span and math.min(tonumber(ARGV[at + 3]), span.last + 1)
    if span and first > span.first then
      span.first = first
      changed_streams[name] = true
      trims[name] = KEYS[tonumber(ARGV[at + 2])]
    end
    at = at + 4
  elseif write == 'wake' then
    after.w = ''
    if ARGV[at + 1] ~= '' then
      after.w = text(math.min(now + tonumber(ARGV[at + 1]), LARGEST))
    end
    after.wakes = true
    at = at + 2
  else
    -- A beginning that is not the first write.
    return { 'conflict', incarnation, revision }
  end
end
if sweeps and swept == 0 then
  return { 'idle' }
end

local before = tonumber(after.b)
local bytes, grows = before, made or #appends > 0
for _, one in ipairs(touched) do
  bytes = bytes - one.size
  if one.value then
    grows = true
    bytes = bytes + #one.key + #one.value
  end
end
if bytes > tonumber(ARGV[8]) and bytes > before then
  return { 'large', text(bytes) }
end

-- From here on nothing may fail: a script that does is not rolled back. With its memory full
-- the server refuses a script's first write, if that is one that may grow, and no later one.
-- So a commit that only removes begins with a removal, of nothing.
if not grows then
  redis.call('HDEL', KEYS[2], '')
end
set('r', next_revision)
set('t', text(now))
set('b', text(bytes))
set('f', fence)
local beside = after.x
for _, one in ipairs(touched) do
  if one.value and one.key == '' then
    beside = 'never'
  elseif one.value and one.until_time ~= 0 and not beside then
    beside = 'now'
  end
end
if beside ~= after.x then
  set('x', beside)
end
if after.l ~= lived then
  if not made then
    after.i = incarnation
  end
  set('i', after.i)
  set('l', lived)
end
if made then
  set('k', after.k)
end
if after.wakes then
  set('w', after.w)
end
for name in pairs(changed_streams) do
  local span = after.streams[name]
  set('/' .. name, text(span.first) .. ' ' .. text(span.last))
end
redis.call('HSET', KEYS[2], unpack(fields))
if beside == 'now' then
  redis.call('HSET', KEYS[3], '', struct.pack('>I8', now))
end
if made then
  redis.call('ZADD', KEYS[9], 0, NAME)
end
if after.wakes then
  if after.w == '' then
    redis.call('ZREM', KEYS[7], NAME)
  else
    redis.call('ZADD', KEYS[7], after.w, NAME)
  end
end
for _, one in ipairs(touched) do
  local key = one.key
  if one.was and one.expires ~= 0 then
    redis.call('ZREM', KEYS[8], EXPIRY .. key)
  end
  if one.value then
    local raw = struct.pack('>I8I8', tonumber(next_revision), one.until_time) .. one.value
    redis.call('HSET', KEYS[3], key, raw)
    redis.call('ZADD', KEYS[5], next_revision, key)
    if not one.was then
      redis.call('ZADD', KEYS[4], 0, key)
      redis.call('ZREM', KEYS[6], key)
    end
    if one.until_time ~= 0 then
      redis.call('ZADD', KEYS[8], text(one.until_time), EXPIRY .. key)
    end
  elseif one.was then
    redis.call('HDEL', KEYS[3], key)
    redis.call('ZREM', KEYS[4], key)
    redis.call('ZADD', KEYS[5], next_revision, key)
    redis.call('ZADD', KEYS[6], text(now), key)
  end
end
for _, append in ipairs(appends) do
  redis.call('XADD', append[1], append[2] .. '-' .. next_revision, 'v', append[3])
end
for name, key in pairs(trims) do
  local span = after.streams[name]
  if span.first > span.last then
    redis.call('UNLINK', key)
  else
    redis.call('XTRIM', key, 'MINID', '=', text(span.first) .. '-0')
  end
end

-- Forgets deletions that need no longer be known, more of them than a commit can add.
local old = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', text(now - KEPT), 'LIMIT', 0, 256)
if #old > 0 then
  local known_from = tonumber(after.k)
  for _, key in ipairs(old) do
    known_from = math.max(known_from, tonumber(redis.call('ZSCORE', KEYS[5], key)))
  end
  redis.call('ZREM', KEYS[5], unpack(old))
  redis.call('ZREM', KEYS[6], unpack(old))
  redis.call('HSET', KEYS[2], 'k', text(known_from))
end

local reply = { 'ok', after.i, next_revision }
for _, sequence in ipairs(sequences) do
  reply[#reply + 1] = sequence
end
if DIGEST ~= '' then
  local told = DIGEST .. ' ' .. text(now) .. ' ' .. table.concat(reply, ' ', 2)
  redis.call('SET', KEYS[10], told, 'PX', KEPT)
end
-- A hint may be lost; a user who may not publish is no reason to fail.
redis.pcall('SPUBLISH', ARGV[5], NAME)
if sweeps then
  return { 'swept', text(swept) }
end
return reply
