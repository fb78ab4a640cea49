-- @name json-take
-- Takes elements from the front of a stored JSON array. What is taken is removed in the same
-- step, so no element is given to two callers and none is lost in between. As in json-merge.lua,
-- empty arrays inside of elements become empty objects.
--
-- KEYS[1]  a JSON array; the key is deleted with its last element
-- ARGV[1]  how many elements at most
-- Reply    a JSON array of what was taken, `[]` if there is nothing
local stored = redis.call('GET', KEYS[1])
if not stored then
  return '[]'
end
local taken, left, count = {}, {}, tonumber(ARGV[1])
for position, element in ipairs(cjson.decode(stored)) do
  if position <= count then
    taken[position] = element
  else
    left[position - count] = element
  end
end
if #left == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], cjson.encode(left), 'KEEPTTL')
end
-- An empty table would be encoded as an object.
return #taken == 0 and '[]' or cjson.encode(taken)
