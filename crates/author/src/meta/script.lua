---@meta

---@class redis.strings
---@field [integer] string

---The keys the caller declared, from 1.
---@type redis.strings
KEYS = {}

---The other arguments, from 1, as text: use `tonumber`.
---@type redis.strings
ARGV = {}
