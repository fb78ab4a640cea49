-- The producer's script of the examples with one difference: the merged array goes to KEYS[2], so
-- that the array it starts from keeps its length however often it runs.
local stored = redis.call('GET', KEYS[1])
local merged = stored and cjson.decode(stored) or {}
for _, element in ipairs(cjson.decode(ARGV[1])) do
  merged[#merged + 1] = element
end
local text = cjson.encode(merged)
redis.call('SET', KEYS[2], text)
return text
