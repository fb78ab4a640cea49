-- @name json-merge
-- Merges a patch into a stored JSON object: members of the patch replace those stored, objects
-- merge member by member, and null removes (RFC 7396).
--
-- cjson cannot tell an empty array from an empty object: `[]` inside the document becomes `{}`.
-- Integers beyond 2^53 lose digits: keep such ids as strings.
--
-- KEYS[1]  a JSON object, or nothing yet
-- ARGV[1]  the patch, a JSON object
-- Reply    the JSON text that is stored afterwards
local function merge(target, patch)
  if type(patch) ~= 'table' or #patch > 0 then
    return patch
  end
  if type(target) ~= 'table' or #target > 0 then
    target = {}
  end
  for name, value in pairs(patch) do
    if value == cjson.null then
      target[name] = nil
    else
      target[name] = merge(target[name], value)
    end
  end
  return target
end

local stored = redis.call('GET', KEYS[1])
local text = cjson.encode(merge(stored and cjson.decode(stored), cjson.decode(ARGV[1])))
redis.call('SET', KEYS[1], text, 'KEEPTTL')
return text
