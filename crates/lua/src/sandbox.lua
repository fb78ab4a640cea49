-- Builds what scripts see: a table of allowed globals behind a read-only face. LuaJIT has no
-- read-only flag, so every shared table is reached through an empty proxy whose metatable reads
-- from the real table and refuses to write; the functions that would bypass a metatable are
-- wrapped. Nothing here uses a global after set-up, and no wrapper keeps a frame on the stack
-- when it hands over (tail calls), so error positions are the script's own.
local redis, cjson, cmsgpack, struct, is_killed, is_stack_deep, sort_values, seed, version = ...

local _G = _G
local collectgarbage, error, getmetatable, load, loadstring, next, pairs, pcall, rawget, rawset,
  select, setmetatable, tostring, type, xpcall = collectgarbage, error, getmetatable, load,
  loadstring, next, pairs, pcall, rawget, rawset, select, setmetatable, tostring, type, xpcall
local setfenv = setfenv
local floor, insert, foreach, sort, concat, sub =
  math.floor, table.insert, table.foreach, table.sort, table.concat, string.sub

local real = {} -- proxy to the table behind it
local face = {} -- hidden table to what scripts may see of it

local function readonly()
  error("Attempt to modify a readonly table", 2)
end

local function protect(hidden)
  if face[hidden] then
    return face[hidden]
  end
  local proxy = {}
  real[proxy] = hidden
  face[hidden] = proxy
  for key, value in pairs(hidden) do
    if type(value) == "table" and not real[value] then
      hidden[key] = protect(value)
    end
  end
  -- The metatable itself is hidden: getmetatable answers nil for library tables, as in Redis.
  setmetatable(proxy, { __index = hidden, __newindex = readonly })
  return proxy
end

local function copy(source)
  local result = {}
  for key, value in pairs(source) do
    result[key] = value
  end
  return result
end

local function pick(source, names)
  local result = {}
  for name in names:gmatch("%S+") do
    result[name] = assert(source[name], name)
  end
  return result
end

-- Names that Lua 5.1 has and LuaJIT lacks.
math.mod = math.fmod
string.gfind = string.gmatch
function table.setn()
  error("'setn' is obsolete", 2)
end

local random = math.random
function math.random(low, high)
  if high then
    if type(low) == "number" and type(high) == "number" and low > high then
      error("bad argument #2 to 'random' (interval is empty)", 2)
    end
    return random(low, high)
  elseif low then
    if type(low) == "number" and low < 1 then
      error("bad argument #1 to 'random' (interval is empty)", 2)
    end
    return random(low)
  end
  return random()
end

-- Redis caps the digits at eight; LuaJIT pads as far as it is told.
local tohex = bit.tohex
function bit.tohex(...)
  local value, digits = ...
  if type(digits) == "number" then
    return tohex(value, digits < -8 and -8 or digits > 8 and 8 or digits)
  end
  return tohex(...)
end

local globals = pick(_G, [[assert error ipairs rawequal select tonumber tostring type unpack]])
globals._VERSION = "Lua 5.1"

globals.string = pick(string, [[byte char dump find format gfind gmatch gsub len lower match rep
  reverse sub upper]])
globals.math = pick(math, [[abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge
  ldexp log log10 max min mod modf pi pow rad random randomseed sin sinh sqrt tan tanh]])
globals.table = pick(table, [[concat foreach foreachi getn insert maxn remove setn sort]])
globals.coroutine = pick(coroutine, [[create resume running status wrap yield]])
globals.os = pick(os, [[clock]])
globals.bit = pick(bit, [[arshift band bnot bor bswap bxor lshift rol ror rshift tobit tohex]])
globals.redis = redis
globals.cjson = cjson
globals.cmsgpack = cmsgpack
globals.struct = struct

function globals.next(table, key)
  return next(real[table] or table, key)
end

function globals.pairs(table)
  local hidden = real[table]
  if hidden then
    return pairs(copy(hidden))
  end
  return pairs(table)
end

function globals.rawget(table, key)
  return rawget(real[table] or table, key)
end

function globals.rawset(table, key, value)
  if real[table] then
    error("Attempt to modify a readonly table", 0)
  end
  return rawset(table, key, value)
end

function globals.setmetatable(...)
  local table = ...
  if real[table] then
    error("Attempt to modify a readonly table", 0)
  end
  return setmetatable(...)
end

function globals.getmetatable(...)
  local value = ...
  if real[value] then
    return face[getmetatable(value)]
  elseif type(value) == "string" then
    return face[getmetatable(value)]
  end
  return getmetatable(...)
end

function globals.table.insert(...)
  local table = ...
  if real[table] then
    error("Attempt to modify a readonly table", 0)
  end
  return insert(...)
end

-- The order function is called in the same turns as by Lua 5.1's own sort, so lists with equal
-- elements come out alike and a function that gives no order fails alike. Here compiled code calls
-- it, and may inline it.
local function sort_by(list, before, high)
  local waiting, low = {}, 1
  while true do
    while low < high do
      local first, last = list[low], list[high]
      if before(last, first) then
        list[low], list[high] = last, first
      end
      if high - low == 1 then
        break
      end
      local middle = floor((low + high) / 2)
      local pivot
      pivot, first = list[middle], list[low]
      if before(pivot, first) then
        list[middle], list[low] = first, pivot
      else
        last = list[high]
        if before(last, pivot) then
          list[middle], list[high] = last, pivot
        end
      end
      if high - low == 2 then
        break
      end
      pivot = list[middle]
      list[middle], list[high - 1] = list[high - 1], pivot
      local i, j = low, high - 1
      while true do
        i = i + 1
        local left = list[i]
        while before(left, pivot) do
          if i > high then
            return false
          end
          i = i + 1
          left = list[i]
        end
        j = j - 1
        local right = list[j]
        while before(pivot, right) do
          if j < low then
            return false
          end
          j = j - 1
          right = list[j]
        end
        if j < i then
          break
        end
        list[i], list[j] = right, left
      end
      list[high - 1], list[i] = list[i], list[high - 1]
      -- The smaller side first, the larger one waits.
      local depth = #waiting
      if i - low < high - i then
        waiting[depth + 1], waiting[depth + 2] = i + 1, high
        high = i - 1
      else
        waiting[depth + 1], waiting[depth + 2] = low, i - 1
        low = i + 1
      end
    end
    local depth = #waiting
    if depth == 0 then
      return true
    end
    low, high = waiting[depth - 1], waiting[depth]
    waiting[depth - 1], waiting[depth] = nil, nil
  end
end

function globals.table.sort(...)
  local list, before = ...
  if type(list) == "table" and getmetatable(list) == nil then
    if type(before) == "function" then
      if not sort_by(list, before, #list) then
        error("invalid order function for sorting", 2)
      end
      return
    elseif before == nil and sort_values(list) then
      return
    end
  end
  return sort(...)
end

-- Long lists in pieces, so that it can be interrupted.
function globals.table.concat(...)
  local list, separator = ...
  if type(list) == "table" and select("#", ...) < 3 and #list > 65536
    and (separator == nil or type(separator) == "string") then
    local pieces, last = {}, #list
    for first = 1, last, 32768 do
      local next = first + 32767
      pieces[#pieces + 1] = concat(list, separator, first, next < last and next or last)
    end
    return concat(pieces, separator)
  end
  return concat(...)
end

function globals.table.foreach(table, ...)
  return foreach(real[table] and copy(real[table]) or table, ...)
end

-- Coroutines that resume each other take the machine's stack, which nothing else bounds here.
local resume, wrap = coroutine.resume, coroutine.wrap
function globals.coroutine.resume(...)
  if is_stack_deep() then
    return false, "C stack overflow"
  end
  return resume(...)
end

function globals.coroutine.wrap(...)
  local routine = wrap(...)
  return function(...)
    if is_stack_deep() then
      error("C stack overflow", 2)
    end
    return routine(...)
  end
end

-- An error table becomes its text, as scripts for Redis expect.
local function pcalled(ok, failure, ...)
  if not ok and type(failure) == "table" then
    local text = failure.err
    local kind = type(text)
    if kind == "string" or kind == "number" then
      return false, text
    end
  end
  return ok, failure, ...
end

function globals.pcall(...)
  if select("#", ...) == 0 then
    return pcall()
  end
  return pcalled(pcall(...))
end

-- Hooks are off while a handler runs for an error that a hook raised, so the handler of a killed
-- script must not run at all.
function globals.xpcall(...)
  if select("#", ...) < 2 then
    return xpcall(...)
  end
  local body, handler = ...
  return xpcall(body, function(failure)
    if is_killed() then
      return failure
    end
    return handler(failure)
  end)
end

-- Text only: bytecode is not verified and could do anything.
function globals.load(chunk, name)
  return load(chunk, name, "t")
end

function globals.loadstring(...)
  local text, name = ...
  local kind = select("#", ...) == 0 and "no value" or type(text)
  if kind ~= "string" and kind ~= "number" then
    error("bad argument #1 to 'loadstring' (string expected, got " .. kind .. ")", 2)
  end
  -- The parser cannot be interrupted, but what it reads from can.
  if kind == "string" and #text > 1048576 then
    local at = 1
    return load(function()
      local piece = sub(text, at, at + 65535)
      at = at + 65536
      return piece
    end, name or text, "t")
  end
  return loadstring(text, name, "t")
end

function globals.collectgarbage(option, argument)
  if option == "stop" or option == "restart" then
    return 0
  elseif option == "setpause" or option == "setstepmul" then
    return 200
  end
  if (option == nil or option == "collect") and collectgarbage("count") > 16384 then
    -- In steps, so that it can be interrupted; the second cycle takes what the first one, begun
    -- halfway, has left.
    for _ = 1, 2 do
      repeat
      until collectgarbage("step", 1024)
    end
    return 0
  end
  return collectgarbage(option, argument)
end

-- Functions of ours are Lua functions too; scripts take them for C functions.
local ours = {}
local dump = string.dump
function globals.string.dump(body, ...)
  if ours[body] then
    error("unable to dump given function", 2)
  end
  return dump(body, ...)
end

function globals.gcinfo()
  return floor(collectgarbage("count"))
end

redis.REDIS_VERSION = version
local major, minor, patch = version:match("^(%d+)%.(%d+)%.(%d+)")
redis.REDIS_VERSION_NUM = major * 65536 + minor * 256 + patch
redis.LOG_DEBUG, redis.LOG_VERBOSE, redis.LOG_NOTICE, redis.LOG_WARNING = 0, 1, 2, 3
redis.REPL_NONE, redis.REPL_AOF, redis.REPL_SLAVE, redis.REPL_REPLICA, redis.REPL_ALL =
  0, 1, 2, 2, 3
globals.server = redis

-- Metatables that cjson knows by their place in memory, so they have no proxy; they are empty and
-- stay so.
for _, name in pairs({ "array_mt", "empty_array_mt" }) do
  local mark = cjson[name]
  real[mark] = {}
  setmetatable(mark, { __newindex = readonly })
end

-- What cjson.exact_integers makes of integers beyond 2^53.
local integer = cjson.integer_mt
cjson.integer_mt = nil
function integer.__tostring(value)
  return rawget(value, 1)
end
function integer.__eq(a, b)
  return rawget(a, 1) == rawget(b, 1)
end
function integer.__concat(a, b)
  return tostring(a) .. tostring(b)
end
integer.__metatable = "integer"

-- What the code of a library sees of redis while it is loaded.
local loading = pick(redis, [[log register_function LOG_DEBUG LOG_VERBOSE LOG_NOTICE LOG_WARNING
  REDIS_VERSION REDIS_VERSION_NUM]])
redis.register_function = nil

math.randomseed(seed)

for name, value in pairs(globals) do
  if type(value) == "function" then
    ours[value] = true
  elseif type(value) == "table" then
    for _, member in pairs(value) do
      ours[member] = true
    end
    globals[name] = protect(value)
  end
end
local string_metatable = getmetatable("")
face[string_metatable] = protect({ __index = globals.string })

-- An environment that reads from a table of globals.
local function environment(hidden)
  local proxy = {}
  real[proxy] = hidden
  local metatable = { __index = hidden, __newindex = readonly }
  return setmetatable(proxy, metatable), metatable
end
local function missing(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end

-- Functions of libraries see what scripts do, but not the KEYS and ARGV of those. While a library is
-- loaded it sees nothing but a part of redis.
local functions = copy(globals)
local library_proxy, library_metatable = environment(functions)
functions._G = library_proxy
setmetatable(functions, { __index = missing })
face[library_metatable] = protect({ __index = missing })
local function settle(body, ...)
  if body then
    setfenv(body, library_proxy)
  end
  return body, ...
end
function functions.load(...)
  return settle(globals.load(...))
end
function functions.loadstring(text, ...)
  if type(text) ~= "string" and type(text) ~= "number" then
    error("bad argument #1 to 'loadstring' (string expected, got " .. type(text) .. ")", 2)
  end
  return settle(globals.loadstring(text, ...))
end
ours[functions.load], ours[functions.loadstring] = true, true
setmetatable(loading, { __index = missing })
local loading_globals = { redis = protect(loading) }
loading_globals.server = loading_globals.redis
setmetatable(loading_globals, { __index = missing })
local function library(code)
  if code then
    setfenv(code, library_proxy)
  end
  library_metatable.__index = code and loading_globals or functions
end

local proxy, proxy_metatable = environment(globals)
globals._G = proxy
setmetatable(globals, { __index = missing })
face[proxy_metatable] = protect({ __index = missing })

return library, globals, proxy
