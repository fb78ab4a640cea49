-- @name dedupe
-- Tells which of some ids are seen for the first time within a window, and remembers them.
--
-- KEYS[1]  seen: a sorted set of ids scored by the time in ms they were first seen
-- ARGV[1]  length of the window in milliseconds
-- ARGV[2…] the ids
-- Reply    the ids that are new, in their order
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - tonumber(ARGV[1]))
local new = {}
for position = 2, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', now_ms, ARGV[position]) == 1 then
    new[#new + 1] = ARGV[position]
  end
end
if #new > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return new
