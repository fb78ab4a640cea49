-- @name append
-- Puts elements at the end of a stored JSON array by decoding and encoding it, as most producers
-- do it. See json-append.lua for one whose cost does not grow with what is stored.
--
-- KEYS[1]  a JSON array, or nothing yet
-- ARGV[1]  a JSON array of elements to put at its end
-- Reply    the JSON text that is stored afterwards
local stored = redis.call('GET', KEYS[1])
local merged = stored and cjson.decode(stored) or {}
for _, element in ipairs(cjson.decode(ARGV[1])) do
  merged[#merged + 1] = element
end
local text = cjson.encode(merged)
redis.call('SET', KEYS[1], text)
return text
