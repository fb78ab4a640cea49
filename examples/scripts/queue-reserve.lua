-- @name queue-reserve
-- Takes the oldest job of a reliable queue for some time. Until it is acknowledged the job stays
-- known, so a worker that dies does not take it along.
--
-- KEYS[1]  ready: a list of job ids
-- KEYS[2]  jobs: a hash of payloads by id
-- KEYS[3]  reserved: a sorted set of job ids scored by deadline in ms
-- ARGV[1]  milliseconds the worker has
-- Reply    {id, payload}, or nil if nothing is ready
local id = redis.call('RPOP', KEYS[1])
if not id then
  return false
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[3], now_ms + tonumber(ARGV[1]), id)
return { id, redis.call('HGET', KEYS[2], id) }
