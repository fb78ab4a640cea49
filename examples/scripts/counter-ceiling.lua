-- @name counter-ceiling
-- Adds to a counter unless that would bring it above a ceiling: seats, credits, quotas.
--
-- KEYS[1]  the counter
-- ARGV[1]  how much to add, a whole number; below zero gives back
-- ARGV[2]  the ceiling
-- Reply    {1 when added else 0, the counter afterwards}
local now = tonumber(redis.call('GET', KEYS[1]) or '0')
if now + tonumber(ARGV[1]) > tonumber(ARGV[2]) then
  return { 0, now }
end
return { 1, redis.call('INCRBY', KEYS[1], ARGV[1]) }
