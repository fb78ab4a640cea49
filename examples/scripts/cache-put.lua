-- @name cache-put
-- Stores what the holder of a lease has computed. To invalidate an entry, delete both keys: who is
-- computing an outdated value then has no lease any more and cannot put it.
--
-- KEYS[1]  the entry: a hash of `value` and `fresh_until_ms`
-- KEYS[2]  the lease on it
-- ARGV[1]  the id that cache-get was called with
-- ARGV[2]  the value
-- ARGV[3]  milliseconds it is fresh
-- ARGV[4]  milliseconds it may be used after that, while somebody computes a new one
-- Reply    1, or 0 if the lease is lost and nothing was stored
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'value', ARGV[2], 'fresh_until_ms', now_ms + tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) + tonumber(ARGV[4]))
redis.call('DEL', KEYS[2])
return 1
