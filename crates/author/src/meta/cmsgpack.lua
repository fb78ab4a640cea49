---@meta

---MessagePack.
---@class cmsgpack
---@field _NAME string
---@field _VERSION string
---@field _COPYRIGHT string
---@field _DESCRIPTION string
cmsgpack = {}

---Values as MessagePack, one after the other.
---@param ... any
---@return string
function cmsgpack.pack(...) end

---All values of a text.
---@param text string
---@return any ...
function cmsgpack.unpack(text) end

---The value at an offset, behind the offset of the next one, which is -1 at the end.
---@param text string
---@param offset? integer from 0
---@return integer next
---@return any value
function cmsgpack.unpack_one(text, offset) end

---So many values from an offset on, behind the offset of the next one.
---@param text string
---@param limit integer
---@param offset? integer from 0
---@return integer next
---@return any ...
function cmsgpack.unpack_limit(text, limit, offset) end
