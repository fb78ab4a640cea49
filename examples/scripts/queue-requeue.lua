-- @name queue-requeue
-- Puts jobs whose worker let the deadline pass back to the front of the queue. Call it every
-- second or so, from any number of places.
--
-- KEYS[1]  ready: a list of job ids
-- KEYS[2]  reserved: a sorted set of job ids scored by deadline in ms
-- ARGV[1]  how many jobs at most
-- Reply    how many there were
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local late = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
-- The end of the list is its front; the latest of them first, so that the oldest goes first again.
for position = #late, 1, -1 do
  redis.call('RPUSH', KEYS[1], late[position])
  redis.call('ZREM', KEYS[2], late[position])
end
return #late
