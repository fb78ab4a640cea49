-- @name leaderboard-top
-- A page of a board where equal scores share a rank. Of equals, the name that sorts later is
-- listed first, as ZREVRANGE has it.
--
-- KEYS[1]  the board: a sorted set of players
-- ARGV[1]  how many entries to skip
-- ARGV[2]  how many entries to list
-- Reply    a list of {rank, player, score}
local first, count = tonumber(ARGV[1]), tonumber(ARGV[2])
if count < 1 then
  return {}
end
local found = redis.call('ZREVRANGE', KEYS[1], first, first + count - 1, 'WITHSCORES')
local page, rank = {}, 0
for at = 1, #found, 2 do
  local place, score = (at + 1) / 2, found[at + 1]
  if place == 1 then
    -- Those before this page may share its first rank.
    rank = redis.call('ZCOUNT', KEYS[1], '(' .. score, '+inf') + 1
  elseif score ~= found[at - 1] then
    rank = first + place
  end
  page[place] = { rank, found[at], score }
end
return page
