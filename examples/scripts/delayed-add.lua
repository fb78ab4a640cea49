-- @name delayed-add
-- Adds a job that becomes ready later. The clock is the server's, so workers need not agree.
--
-- KEYS[1]  delayed: a sorted set of job ids scored by due time in ms
-- KEYS[2]  jobs: a hash of payloads by id, the one that the reliable queue uses
-- ARGV[1]  an id for the job
-- ARGV[2]  its payload
-- ARGV[3]  milliseconds from now until it is due
-- Reply    1, or 0 if the job was there already
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then
  return 0
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[3]), ARGV[1])
