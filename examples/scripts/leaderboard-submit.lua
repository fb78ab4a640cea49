-- @name leaderboard-submit
-- Keeps a player's best score. Equal scores share a rank, and the next one is skipped: 1 2 2 4.
--
-- KEYS[1]  the board: a sorted set of players
-- ARGV[1]  the player
-- ARGV[2]  the score
-- Reply    {1 when it is the player's best so far else 0, the player's rank from 1}
local better = redis.call('ZADD', KEYS[1], 'GT', 'CH', ARGV[2], ARGV[1])
local best = redis.call('ZSCORE', KEYS[1], ARGV[1])
return { better, redis.call('ZCOUNT', KEYS[1], '(' .. best, '+inf') + 1 }
