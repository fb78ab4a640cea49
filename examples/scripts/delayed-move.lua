-- @name delayed-move
-- Moves jobs that are due into a reliable queue, in the order of their times. Call it every
-- second or so, from any number of places; workers then use queue-reserve.
--
-- KEYS[1]  delayed: a sorted set of job ids scored by due time in ms
-- KEYS[2]  ready: a list of job ids
-- ARGV[1]  how many jobs at most
-- Reply    how many there were
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  redis.call('LPUSH', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end
return #due
