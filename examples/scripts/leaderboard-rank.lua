-- @name leaderboard-rank
-- A player's place on a board where equal scores share a rank.
--
-- KEYS[1]  the board: a sorted set of players
-- ARGV[1]  the player
-- Reply    {rank from 1, score, how many share that rank}, or nil for a stranger
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then
  return false
end
local rank = redis.call('ZCOUNT', KEYS[1], '(' .. score, '+inf') + 1
return { rank, score, redis.call('ZCOUNT', KEYS[1], score, score) }
