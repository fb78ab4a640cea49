---@meta

---What a command takes: numbers are written as text, whole ones without a point.
---@alias redis.argument string|number

---A string that may be missing.
---@alias redis.value string|false

---Seconds and microseconds: numbers as text.
---@class redis.time
---@field [1] string
---@field [2] string

---A cursor, "0" at the end, and what was found.
---@class redis.scanned
---@field [1] string
---@field [2] string[]

---A status reply, such as that of SET.
---@class redis.status
---@field ok string

---An error as a value: from `redis.pcall`, or to be returned.
---@class redis.error
---@field err string the code and the text

---The server, as a script sees it.
---@class redis
---@field LOG_DEBUG integer
---@field LOG_VERBOSE integer
---@field LOG_NOTICE integer
---@field LOG_WARNING integer
---@field REPL_NONE integer
---@field REPL_AOF integer
---@field REPL_SLAVE integer
---@field REPL_REPLICA integer
---@field REPL_ALL integer
---@field REDIS_VERSION string the version of Redis whose behaviour this is
---@field REDIS_VERSION_NUM integer the same as 0x00MMmmpp
redis = {}

---The same table by another name.
server = redis

---Runs a command. An error in it ends the script.
---@param command string
---@param ... redis.argument
---@return any
---@overloads
function redis.call(command, ...) end

---Runs a command. An error in it comes back as a table with `err`.
---@param command string
---@param ... redis.argument
---@return any
---@overloads
function redis.pcall(command, ...) end

---An error to return; without a code it gets `ERR`.
---@param text string
---@return redis.error
function redis.error_reply(text) end

---A status to return.
---@param text string
---@return redis.status
function redis.status_reply(text) end

---Writes a line to the server's log.
---@param level integer one of the `LOG_` numbers
---@param ... redis.argument
function redis.log(level, ...) end

---The SHA1 of a text, in hexadecimal digits.
---@param text redis.argument
---@return string
function redis.sha1hex(text) end

---The protocol in which later replies come to this script: 3 has maps, sets, doubles and booleans.
---@param version 2|3
function redis.setresp(version) end

---Where the effects of later calls go: one of the `REPL_` numbers.
---@param flags integer
function redis.set_repl(flags) end

---Always true: scripts are replicated by their effects.
---@return true
function redis.replicate_commands() end

---Whether the client that runs this script may run a command.
---@param command string
---@param ... redis.argument
---@return boolean
function redis.acl_check_cmd(command, ...) end

---Stops in the debugger, of which there is none here.
---@return boolean
function redis.breakpoint() end

---Writes to the debugger, of which there is none here.
---@param ... any
function redis.debug(...) end
