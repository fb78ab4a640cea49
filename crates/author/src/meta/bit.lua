---@meta

---Operations on 32 bits; results are signed.
---@class bit
bit = {}

---@param x number
---@return integer
function bit.tobit(x) end

---Hexadecimal digits: eight, or as many as asked for; upper case when below zero.
---@param x number
---@param digits? integer
---@return string
function bit.tohex(x, digits) end

---@param x number
---@return integer
function bit.bnot(x) end

---@param x number
---@param ... number
---@return integer
function bit.band(x, ...) end

---@param x number
---@param ... number
---@return integer
function bit.bor(x, ...) end

---@param x number
---@param ... number
---@return integer
function bit.bxor(x, ...) end

---@param x number
---@param count integer
---@return integer
function bit.lshift(x, count) end

---@param x number
---@param count integer
---@return integer
function bit.rshift(x, count) end

---Keeps the sign.
---@param x number
---@param count integer
---@return integer
function bit.arshift(x, count) end

---@param x number
---@param count integer
---@return integer
function bit.rol(x, count) end

---@param x number
---@param count integer
---@return integer
function bit.ror(x, count) end

---Bytes in the opposite order.
---@param x number
---@return integer
function bit.bswap(x) end
