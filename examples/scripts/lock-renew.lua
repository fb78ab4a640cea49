-- @name lock-renew
-- Prolongs a lock that is still held with this token.
--
-- KEYS[1]  the lock
-- ARGV[1]  the token that lock-acquire gave
-- ARGV[2]  milliseconds from now until the lock frees itself
-- Reply    1, or 0 if the lock is lost: stop what it protected
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
