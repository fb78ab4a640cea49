---@meta

-- What files named *.test.lua have besides what scripts have: `luar script test` runs them.

---A test. The keyspace is empty when it begins; an error in its body fails it.
---@param name string
---@param body fun()
function test(name, body) end

---Fails the test unless both are equal; tables are compared by what is in them.
---@param actual any
---@param expected any
function equal(actual, expected) end

---Fails the test unless the body raises an error whose text contains `text`.
---@param text string
---@param body fun()
function fails(text, body) end

---Runs `name.lua` beside the test as a transaction and returns its reply; an error is raised.
---@param name string
---@param keys? redis.argument[]
---@param args? redis.argument[]
---@return any
function run(name, keys, args) end

---Moves the clock, which stands still otherwise.
---@param ms integer
function advance(ms) end
