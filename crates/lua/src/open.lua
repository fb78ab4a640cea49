-- Set-up of the JIT compiler; returns the FFI library, which nobody else gets.
local jit_on = ...
local jit = require("jit")
if jit_on then
  -- The defaults make a thousand hot scripts throw out each other's traces.
  require("jit.opt").start("maxtrace=60000", "maxmcode=131072")
else
  jit.off()
end
return (require("ffi"))
