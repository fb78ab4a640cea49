---@meta

---What a function is called with: its keys, and what stands behind them.
---@alias redis.callback fun(keys: string[], args: string[]): any

---@alias redis.function_flag
---| "no-writes" # it changes nothing, and FCALL_RO may call it
---| "allow-oom" # it runs where memory is short
---| "allow-stale"
---| "no-cluster"
---| "allow-cross-slot-keys"

---A function with all there is to say of it.
---@class redis.registration
---@field function_name string
---@field callback redis.callback
---@field flags? redis.function_flag[]
---@field description? string

---Gives a library a function. Only while the library is loaded, which begins with `#!lua name=…`.
---@param name string
---@param callback redis.callback
---@overload fun(registration: redis.registration)
function redis.register_function(name, callback) end
