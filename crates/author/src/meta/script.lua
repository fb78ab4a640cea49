---@meta

---The keys the caller declared, from 1.
---@type string[]
KEYS = {}

---The other arguments, from 1, as text: use `tonumber`.
---@type string[]
ARGV = {}
