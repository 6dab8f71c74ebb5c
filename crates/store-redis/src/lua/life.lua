-- Takes over a bucket for a server process, and decides whether its data goes on as it was.
-- KEYS: 1 life. ARGV: 1 process, 2 history, 3 whether a restart keeps everything that was
-- acknowledged (1 or 0), 4 whether the server was made master of data that it had copied,
-- 5 a fresh life.

local process, history, keeps = ARGV[1], ARGV[2], ARGV[3]
local server = process .. '/' .. history .. '/' .. keeps
local known = redis.call('GET', KEYS[1])
local goes_on = nil
if known then
  local was, before, kept, lived = string.match(known, '^([^/]*)/([^/]*)/([01]) (.*)$')
  local same = was == process and before == history
  -- Another process: the same server again, if what it kept was everything.
  local restarted = was ~= process and kept == '1' and keeps == '1' and ARGV[4] == '0'
  if same or restarted then
    goes_on = lived
  end
end
redis.call('SET', KEYS[1], server .. ' ' .. (goes_on or ARGV[5]))
return { 'ok' }
