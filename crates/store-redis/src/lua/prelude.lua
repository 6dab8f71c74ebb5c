-- What the scripts share. Numbers are doubles here: revisions, sequences and times stay below
-- 2^53; what may be larger (incarnations, fences, what a check asks for) stays text.

local KEPT = 600000 -- ms that ids and deletions are known

local function text(number)
  return string.format('%.0f', number)
end

-- The store's time in ms: the server's, unless a test gives its own.
local function time(given)
  if given ~= '' then
    return tonumber(given)
  end
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- A partition without its contents, or nil: i incarnation, l the life in which that holds,
-- r revision, f fence, k known_from, b bytes, t time of the last commit, w wake time, x whether
-- that time also stands among the records, as eight bytes in the place of the empty key: not
-- before one of them has an expiry, `now` from then on, `never` once that key is a record.
local function partition(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then
    return nil
  end
  local found = { streams = {} }
  for at = 1, #flat, 2 do
    local name, value = flat[at], flat[at + 1]
    if string.sub(name, 1, 1) == '/' then
      local first, last = string.match(value, '^(%d+) (%d+)$')
      found.streams[string.sub(name, 2)] = { first = tonumber(first), last = tonumber(last) }
    else
      found[name] = value
    end
  end
  return found
end

-- The partition's time: what was done at some time is never before it again, whatever the
-- server's clock does.
local function time_of(found, given)
  local now = time(given)
  if found and tonumber(found.t) > now then
    return tonumber(found.t)
  end
  return now
end

-- The life of the bucket's data, or nil if `server` has not yet taken it over (life.lua).
local function life(key, server)
  local known = redis.call('GET', key)
  if known and string.sub(known, 1, #server + 1) == server .. ' ' then
    return string.sub(known, #server + 2)
  end
  return nil
end

-- Where a partition stands. In another life than that of its last commit it is another
-- incarnation, the same for everybody who asks before the next commit writes it down.
local function standing(found, lived)
  if not found then
    return '0', '0'
  end
  if found.l == lived then
    return found.i, found.r
  end
  local hash = redis.sha1hex(found.i .. ' ' .. lived)
  return text(tonumber(string.sub(hash, 1, 13), 16) + 1), found.r
end

-- The streams of a partition: a list of names, firsts and lasts, in no order (a script's own
-- order of text depends on the server's locale).
local function streams_of(found)
  local told = {}
  for name, span in pairs(found and found.streams or {}) do
    told[#told + 1] = name
    told[#told + 1] = text(span.first)
    told[#told + 1] = text(span.last)
  end
  return told
end

-- Revision and expiry (0: none) in front of a record's value.
local HEADER = 16
local function header(raw)
  local revision, expires = struct.unpack('>I8I8', raw)
  return revision, expires
end

local function is_live(raw, now)
  local _, expires = header(raw)
  return expires == 0 or now < expires
end
