-- @name json-append
-- Puts elements at the end of a stored JSON array. The text is joined, not decoded and encoded
-- again: the cost does not grow with what is stored, and empty arrays and long numbers stay as
-- they are, which a round trip through cjson would change.
--
-- KEYS[1]  a JSON array, or nothing yet
-- ARGV[1]  a JSON array of elements to put at its end
-- Reply    the JSON text that is stored afterwards; an error if ARGV[1] is no JSON array
local added = ARGV[1]:match('^%s*%[%s*(.-)%s*%]%s*$')
if not added or not pcall(cjson.decode, ARGV[1]) then
  return redis.error_reply('ERR ARGV[1] is not a JSON array')
end
local text = redis.call('GET', KEYS[1]) or '[]'
if added ~= '' then
  local before = text:match('^%s*%[%s*(.-)%s*%]%s*$')
  if not before then
    return redis.error_reply('ERR the stored value is not a JSON array')
  end
  text = before == '' and '[' .. added .. ']' or '[' .. before .. ',' .. added .. ']'
end
redis.call('SET', KEYS[1], text, 'KEEPTTL')
return text
