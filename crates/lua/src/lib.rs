//! LuaJIT and everything a script may call.
