-- @name queue-add
-- Adds a job to a reliable queue. Adding an id that is still in the queue changes nothing.
--
-- KEYS[1]  ready: a list of job ids
-- KEYS[2]  jobs: a hash of payloads by id
-- ARGV[1]  an id for the job
-- ARGV[2]  its payload
-- Reply    1, or 0 if the job was there already
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('LPUSH', KEYS[1], ARGV[1])
return 1
