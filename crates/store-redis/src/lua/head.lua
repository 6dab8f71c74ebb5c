-- KEYS: 1 life, 2 partition. ARGV: 1 server, 2 time.

local found = partition(KEYS[2])
if not found then
  return { 'none' }
end
local lived = life(KEYS[1], ARGV[1])
if not lived then
  return { 'life' }
end
local incarnation, revision = standing(found, lived)
return { 'ok', incarnation, revision, found.f, streams_of(found) }
