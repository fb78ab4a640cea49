-- @name lock-acquire
-- Takes a lock for some time. Each holder gets a higher token than the one before: whatever the
-- lock protects must refuse tokens lower than one it has seen (fenced-set.lua does), because a
-- holder that was asleep may still act after its time is up.
--
-- KEYS[1]  the lock: the holder's token, expires by itself
-- KEYS[2]  the last token given; never delete it
-- ARGV[1]  milliseconds until the lock frees itself
-- Reply    the token, or nil if somebody else holds the lock
if redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], token, 'PX', ARGV[1])
return token
