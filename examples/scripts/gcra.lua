-- @name gcra
-- A rate limit that spreads requests evenly and allows a burst: the generic cell rate algorithm.
-- All it keeps is one time, the moment at which the caller's past requests are paid for.
--
-- KEYS[1]  that time in microseconds
-- ARGV[1]  requests allowed per period
-- ARGV[2]  length of the period in milliseconds
-- ARGV[3]  how many requests may come at once
-- ARGV[4]  how many requests this one counts for
-- Reply    {1 when allowed else 0, requests left at once, milliseconds until this one would be
--          allowed, milliseconds until the whole burst is available again}
-- Whole microseconds: times are so large that fractions would be rounded away.
local interval_us = math.max(math.floor(tonumber(ARGV[2]) * 1000 / tonumber(ARGV[1])), 1)
local burst_us = interval_us * tonumber(ARGV[3])
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]

local paid_us = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now_us)
local after_us = paid_us + interval_us * tonumber(ARGV[4])
local wait_us = after_us - burst_us - now_us
local allowed = wait_us <= 0
if allowed then
  paid_us = after_us
  -- %.0f: as a plain number it would be written with an exponent by older servers.
  redis.call('SET', KEYS[1], string.format('%.0f', paid_us), 'PX',
    math.max(math.ceil((paid_us - now_us) / 1000), 1))
end
return {
  allowed and 1 or 0,
  math.floor((burst_us - (paid_us - now_us)) / interval_us),
  allowed and 0 or math.ceil(wait_us / 1000),
  math.ceil((paid_us - now_us) / 1000),
}
