local call = redis.call

local function raise(problem)
  local level, line = 2
  repeat
    level = level + 1
    local _, place = pcall(error, '', level)
    line = string.match(place, ':(%d+):')
  until (line and line ~= '1') or level == 12
  error('user_script:' .. (line or '1') .. ': ' .. problem.err, 0)
end

local redis = setmetatable({
  call = function(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then raise(reply) end
    return reply
  end,
}, {__index = redis})

local function is_less(one, other)
  if type(one) == type(other) and type(one) ~= 'boolean' and type(one) ~= 'table' then
    return one < other
  end
  return type(one) < type(other)
end

local function show(value, indent, seen)
  if type(value) == 'string' then
    local text = string.gsub(value, '[%c"\\\127-\255]', function(char)
      if char == '"' or char == '\\' then return '\\' .. char end
      if char == '\n' then return '\\n' end
      return string.format('\\%03d', string.byte(char))
    end)
    return '"' .. text .. '"'
  end
  if type(value) == 'number' then return string.format('%.17g', value) end
  if type(value) ~= 'table' then return tostring(value) end
  if seen[value] then return '{...}' end
  seen[value] = true
  local inner = indent .. '  '
  local items, keys = {}, {}
  local length = #value
  for at = 1, length do items[at] = show(value[at], inner, seen) end
  for key in pairs(value) do
    local is_listed = type(key) == 'number' and key >= 1 and key <= length and key % 1 == 0
    if not is_listed then keys[#keys + 1] = key end
  end
  table.sort(keys, is_less)
  for _, key in ipairs(keys) do
    local name = key
    if type(key) ~= 'string' or not string.find(key, '^[%a_][%w_]*$') then
      name = '[' .. show(key, inner, seen) .. ']'
    end
    items[#items + 1] = name .. ' = ' .. show(value[key], inner, seen)
  end
  seen[value] = nil
  local line = '{' .. table.concat(items, ', ') .. '}'
  if #line <= 70 and not string.find(line, '\n', 1, true) then return line end
  return '{\n' .. inner .. table.concat(items, ',\n' .. inner) .. '\n' .. indent .. '}'
end

local function same(one, other)
  if type(one) ~= 'table' or type(other) ~= 'table' then return one == other end
  for key, value in pairs(one) do
    if not same(value, other[key]) then return false end
  end
  for key in pairs(other) do
    if one[key] == nil then return false end
  end
  return true
end

local function test(name, body)
  call('test|begin', name)
  local is_well, problem = pcall(body)
  if is_well then
    call('test|pass')
  else
    call('test|fail', tostring(problem))
  end
end

local function equal(actual, expected)
  if same(actual, expected) then return end
  call('test|differ', show(expected, '', {}), show(actual, '', {}))
  error('not equal', 2)
end

local function fails(text, body)
  local is_well, problem = pcall(body)
  if is_well then error('it did not fail', 2) end
  problem = string.gsub(tostring(problem), '^user_script:%d+: ', '')
  if string.find(problem, text, 1, true) then return end
  call('test|differ', text, problem)
  error('it failed otherwise', 2)
end

local function run(name, keys, args)
  local all = {}
  for at, key in ipairs(keys or {}) do all[at] = key end
  local count = #all
  for at, arg in ipairs(args or {}) do all[count + at] = arg end
  local source = redis.pcall('test|source', name)
  if type(source) == 'table' then raise(source) end
  local reply = redis.pcall('EVAL', source, count, unpack(all))
  if type(reply) == 'table' and reply.err then raise(reply) end
  return reply
end

local function advance(ms)
  call('test|advance', ms)
end
