-- Entries of a stream. KEYS: 1 life, 2 partition, 3 stream.
-- ARGV: 1 server, 2 time, 3 name, 4 from, 5 limit, 6 bytes of a page.

local span = redis.call('HGET', KEYS[2], '/' .. ARGV[3])
local first, last = string.match(span or '1 0', '^(%d+) (%d+)$')
local from, limit, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if from < tonumber(first) then
  return { 'trimmed', first }
end
local reply = { 'ok', last }
local count, bytes, chunk = 0, 0, 16
while from <= tonumber(last) and count < limit do
  local entries =
    redis.call('XRANGE', KEYS[3], text(from) .. '-0', '+', 'COUNT', math.min(chunk, limit - count))
  if #entries == 0 then
    return { 'corrupt', 'no entry ' .. text(from) .. ' of a stream' }
  end
  for _, entry in ipairs(entries) do
    local sequence, revision = string.match(entry[1], '^(%d+)-(%d+)$')
    if tonumber(sequence) ~= from then
      return { 'corrupt', 'no entry ' .. text(from) .. ' of a stream' }
    end
    local value = entry[2][2]
    bytes = bytes + #value
    if bytes > most and count > 0 then
      return reply
    end
    reply[#reply + 1] = sequence
    reply[#reply + 1] = revision
    reply[#reply + 1] = value
    count = count + 1
    from = from + 1
  end
  if bytes < 65536 then
    chunk = 256
  end
end
return reply
