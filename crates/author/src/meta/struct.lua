---@meta

---Binary structures: `>` and `<` choose the byte order, `!` the alignment, then one letter for each
---value (`b B h H i I l L f d s c x`), with a size where it has one.
---@class struct
struct = {}

---@param format string
---@param ... redis.argument
---@return string
function struct.pack(format, ...) end

---The values, and the position behind them.
---@param format string
---@param text string
---@param position? integer from 1
---@return any ...
function struct.unpack(format, text, position) end

---How many bytes a format of fixed size takes.
---@param format string
---@return integer
function struct.size(format) end
