-- @name fenced-set
-- Writes a value on behalf of the holder of a lock, and refuses a holder that was overtaken.
--
-- KEYS[1]  the value
-- KEYS[2]  the highest token that has written it
-- ARGV[1]  the writer's token, from lock-acquire
-- ARGV[2]  the new value
-- Reply    1, or 0 if a later holder has written already
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[2]) or '0') then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
