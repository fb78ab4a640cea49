-- @name sliding-window
-- A rate limit that holds for every span of time, wherever it begins. Exact, and keeps one entry
-- for each allowed request.
--
-- KEYS[1]  the caller's requests: a sorted set of request ids scored by time in ms
-- ARGV[1]  requests allowed in any window
-- ARGV[2]  length of the window in milliseconds
-- ARGV[3]  an id that no other request has
-- Reply    {1 when allowed else 0, requests left}
local limit, window_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - window_ms)
local used = redis.call('ZCARD', KEYS[1])
if used >= limit then
  return { 0, 0 }
end
redis.call('ZADD', KEYS[1], now_ms, ARGV[3])
redis.call('PEXPIRE', KEYS[1], window_ms)
return { 1, limit - used - 1 }
