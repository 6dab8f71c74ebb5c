-- What changed after a revision, whole revisions only, about a page of them at a time.
-- KEYS: 1 life, 2 partition, 3 records, 4 changes by revision, 5 deletions by time.
-- ARGV: 1 server, 2 time, 3 and 4 the position to follow from, 5 revision of the last page,
-- 6 bytes of a page.

local found = partition(KEYS[2])
local incarnation, revision, now = '0', '0', 0
if found then
  local lived = life(KEYS[1], ARGV[1])
  if not lived then
    return { 'life' }
  end
  now = time_of(found, ARGV[2])
  incarnation, revision = standing(found, lived)
end
local since = tonumber(ARGV[4])
local from_zero = ARGV[3] == '0' and ARGV[4] == '0'
if not from_zero then
  local known_from = found and tonumber(found.k) or 0
  if ARGV[3] ~= incarnation or since < known_from or since > tonumber(revision) then
    return { 'lagged', incarnation, revision }
  end
end

-- The fourth is the revision to go on after, or '' if this is all.
local reply = { 'ok', incarnation, revision, '', streams_of(found) }
local CHUNK = 256 -- more than the writes of one commit, so there is a whole revision in it
local after, bytes = ARGV[5], 0
while true do
  local flat = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, CHUNK)
  local count = #flat / 2
  if count == CHUNK then
    local last = flat[#flat]
    while flat[count * 2] == last do
      count = count - 1
    end
  end
  for at = 1, count do
    local key, changed = flat[at * 2 - 1], text(tonumber(flat[at * 2]))
    local raw = redis.call('HGET', KEYS[3], key)
    local tell = true
    if not raw then
      local deleted = redis.call('ZSCORE', KEYS[5], key)
      if not deleted then
        return { 'corrupt', 'neither a record nor its deletion is known' }
      end
      if now >= tonumber(deleted) + KEPT then
        if not from_zero then
          return { 'lagged', incarnation, revision }
        end
        tell = false
      end
    end
    if tell then
      if raw and not is_live(raw, now) then
        raw = nil
      end
      reply[#reply + 1] = key
      reply[#reply + 1] = changed
      reply[#reply + 1] = raw or ''
      bytes = bytes + #key + (raw and #raw or 0)
    end
    after = changed
    local is_last_of_revision = at == count or flat[at * 2 + 2] ~= flat[at * 2]
    if bytes > tonumber(ARGV[6]) and is_last_of_revision then
      reply[4] = after
      return reply
    end
  end
  if #flat / 2 < CHUNK then
    return reply
  end
end
