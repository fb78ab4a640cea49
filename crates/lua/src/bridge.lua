-- The Lua side of redis.call and redis.pcall; see bridge.rs, which appends the functions of four
-- to nine arguments and the two entry points. Nothing here uses a global variable.
local ffi, context_address, resolve_address, is_stable_address, call1_address, call2_address,
  call2_number_address, call3_address, call_window_address, push_last_reply, call_wide,
  pcall_wide = ...

ffi.cdef [[
typedef struct { const char *text; int64_t len; double number; } luar_arg;
typedef struct { double number; const char *text; size_t len; luar_arg args[9]; } luar_window;
]]

local context = ffi.cast("luar_window *", context_address)
local resolve = ffi.cast("int32_t (*)(void *, const char *, size_t)", resolve_address)
local is_stable = ffi.cast("int32_t (*)(void *, uint32_t)", is_stable_address)
local call1_raw = ffi.cast("int32_t (*)(void *, uint32_t, const char *, size_t)", call1_address)
local call2_raw = ffi.cast(
  "int32_t (*)(void *, uint32_t, const char *, size_t, const char *, size_t)", call2_address)
local call2_number = ffi.cast(
  "int32_t (*)(void *, uint32_t, const char *, size_t, double)", call2_number_address)
local call3_raw = ffi.cast(
  "int32_t (*)(void *, uint32_t, const char *, size_t, const char *, size_t, const char *, size_t)",
  call3_address)
local call_window = ffi.cast("int32_t (*)(void *, uint32_t, uint32_t)", call_window_address)
local ffi_string, type, select, error, tostring = ffi.string, type, select, error, tostring
local args = context.args

-- Spelling of a command to its index on the Rust side. No metatable, reached by nobody else.
local index = {}

local function lookup(name)
  local kind = type(name)
  if kind == "number" then
    name = tostring(name)
  elseif kind ~= "string" then
    return nil
  end
  local found = resolve(context, name, #name)
  if is_stable(context, found) ~= 0 then
    index[name] = found
  end
  return found
end

local function bad(raise)
  local failure = { err = "ERR Lua redis lib command arguments must be strings or integers" }
  if raise then
    error(failure, 0)
  end
  return failure
end

local function failure()
  return { err = ffi_string(context.text, context.len), ignore_error_stats_update = true }
end

-- A string must not be returned by a tail call: that would leave the trace.
local function finish(kind)
  if kind == 1 then
    local text = ffi_string(context.text, context.len)
    return text
  elseif kind == 2 then
    return context.number
  elseif kind == 3 then
    return false
  elseif kind == 4 then
    return { ok = ffi_string(context.text, context.len) }
  elseif kind == 5 then
    error(failure(), 0)
  elseif kind == 8 then
    return { ok = "OK" }
  elseif kind == 7 then
    return nil
  end
  local value = push_last_reply()
  return value
end

local function pfinish(kind)
  if kind == 5 then
    return failure()
  end
  return finish(kind)
end

local function put(at, value)
  local kind = type(value)
  local slot = args[at]
  if kind == "string" then
    slot.text = value
    slot.len = #value
    return true
  elseif kind == "number" then
    slot.len = -1
    slot.number = value
    return true
  end
  return false
end

local function call0(c)
  local id = index[c] or lookup(c)
  if not id then return bad(true) end
  return finish(call_window(context, id, 0))
end

local function pcall0(c)
  local id = index[c] or lookup(c)
  if not id then return bad(false) end
  return pfinish(call_window(context, id, 0))
end

local function call1(c, a)
  local id = index[c] or lookup(c)
  if not id then return bad(true) end
  if type(a) == "string" then
    return finish(call1_raw(context, id, a, #a))
  end
  if not put(0, a) then return bad(true) end
  return finish(call_window(context, id, 1))
end

local function pcall1(c, a)
  local id = index[c] or lookup(c)
  if not id then return bad(false) end
  if not put(0, a) then return bad(false) end
  return pfinish(call_window(context, id, 1))
end

local function call2(c, a, b)
  local id = index[c] or lookup(c)
  if not id then return bad(true) end
  if type(a) == "string" then
    if type(b) == "string" then
      return finish(call2_raw(context, id, a, #a, b, #b))
    elseif type(b) == "number" then
      return finish(call2_number(context, id, a, #a, b))
    end
  end
  if not (put(0, a) and put(1, b)) then return bad(true) end
  return finish(call_window(context, id, 2))
end

local function pcall2(c, a, b)
  local id = index[c] or lookup(c)
  if not id then return bad(false) end
  if not (put(0, a) and put(1, b)) then return bad(false) end
  return pfinish(call_window(context, id, 2))
end

local function call3(c, a, b, d)
  local id = index[c] or lookup(c)
  if not id then return bad(true) end
  if type(a) == "string" and type(b) == "string" and type(d) == "string" then
    return finish(call3_raw(context, id, a, #a, b, #b, d, #d))
  end
  if not (put(0, a) and put(1, b) and put(2, d)) then return bad(true) end
  return finish(call_window(context, id, 3))
end

local function pcall3(c, a, b, d)
  local id = index[c] or lookup(c)
  if not id then return bad(false) end
  if not (put(0, a) and put(1, b) and put(2, d)) then return bad(false) end
  return pfinish(call_window(context, id, 3))
end

