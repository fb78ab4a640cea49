---@meta

---JSON. Settings last for one run of one script.
---@class cjson
---@field null lightuserdata what JSON's null becomes: neither nil nor false
---@field empty_array lightuserdata is encoded as []
---@field array_mt table tables with this metatable are encoded as arrays
---@field empty_array_mt table tables with this metatable are encoded as [] when they are empty
---@field _NAME string
---@field _VERSION string
cjson = {}

---A value as JSON. A table whose keys are 1, 2, 3… is an array; an empty table is an object.
---@param value any
---@return string
function cjson.encode(value) end

---The value of a JSON text. Numbers become doubles: above 2^53 they lose digits.
---@param text string
---@return any
function cjson.decode(text) end

---Another copy of the library, with settings of its own.
---@return cjson
function cjson.new() end

---Which arrays with holes are encoded, and how.
---@param convert? boolean
---@param ratio? integer
---@param safe? integer
---@return boolean, integer, integer
function cjson.encode_sparse_array(convert, ratio, safe) end

---@param depth? integer
---@return integer
function cjson.encode_max_depth(depth) end

---@param depth? integer
---@return integer
function cjson.decode_max_depth(depth) end

---How many digits numbers have, from 1 to 14.
---@param digits? integer
---@return integer
function cjson.encode_number_precision(digits) end

---@param keep? boolean
---@return boolean
function cjson.encode_keep_buffer(keep) end

---Whether NaN and infinities are encoded.
---@param setting? boolean|"null"
---@return boolean|"null"
function cjson.encode_invalid_numbers(setting) end

---Whether NaN, infinities and hexadecimal numbers are decoded.
---@param setting? boolean
---@return boolean
function cjson.decode_invalid_numbers(setting) end

---Whether an empty table is encoded as {} (as from the start) or as [].
---@param setting? boolean
---@return boolean
function cjson.encode_empty_table_as_object(setting) end

---Whether decoded arrays get cjson.array_mt, so that empty ones are encoded as arrays again.
---@param setting? boolean
---@return boolean
function cjson.decode_array_with_array_mt(setting) end

---Whether integers keep all their digits: encode writes those up to 2^53 in full, decode makes
---larger ones what cjson.integer makes.
---@param setting? boolean
---@return boolean
function cjson.exact_integers(setting) end

---An integer of any size for encode; tostring gives its digits.
---@param digits string|integer
---@return table
function cjson.integer(digits) end
