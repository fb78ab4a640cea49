-- @name queue-ack
-- Reports a reserved job as done.
--
-- KEYS[1]  jobs: a hash of payloads by id
-- KEYS[2]  reserved: a sorted set of job ids scored by deadline in ms
-- ARGV[1]  the job's id
-- Reply    1, or 0 if it is not reserved: its time was up and it will be, or was, done again
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
