-- @name cache-get
-- Reads a cache so that of many callers who miss at once a single one computes the value: it gets
-- a lease. The others get the outdated value while there is one, and wait otherwise.
--
-- KEYS[1]  the entry: a hash of `value` and `fresh_until_ms`
-- KEYS[2]  the lease on it
-- ARGV[1]  an id that no other caller has, to put the value with
-- ARGV[2]  milliseconds the computation may take
-- Reply    {'fresh', value}             use it
--          {'fill', old value or nil}   compute the value, then call cache-put
--          {'stale', old value}         use it, somebody computes a new one
--          {'wait'}                     ask again in a moment
local entry = redis.call('HMGET', KEYS[1], 'value', 'fresh_until_ms')
local value = entry[1]
if value then
  local time = redis.call('TIME')
  if time[1] * 1000 + math.floor(time[2] / 1000) < tonumber(entry[2]) then
    return { 'fresh', value }
  end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return { 'fill', value }
end
if value then
  return { 'stale', value }
end
return { 'wait' }
