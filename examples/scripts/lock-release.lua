-- @name lock-release
-- Gives a lock back, unless it is somebody else's by now.
--
-- KEYS[1]  the lock
-- ARGV[1]  the token that lock-acquire gave
-- Reply    1, or 0 if it was not held with this token any more
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
