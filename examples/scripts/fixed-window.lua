-- @name fixed-window
-- A rate limit per window of time. The first request opens the window. The cheapest limiter, and
-- the coarsest: around the end of a window twice the limit may pass.
--
-- KEYS[1]  the caller's counter
-- ARGV[1]  requests allowed per window
-- ARGV[2]  length of the window in seconds
-- Reply    {1 when allowed else 0, requests left, milliseconds until the window ends}
local limit = tonumber(ARGV[1])
local used = redis.call('INCR', KEYS[1])
if used == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
local allowed = used <= limit and 1 or 0
return { allowed, math.max(limit - used, 0), redis.call('PTTL', KEYS[1]) }
