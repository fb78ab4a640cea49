//! A VM: made, used for one run after another, made anew when a run left it unusable.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::bridge::{self, context_upvalue};
use crate::context::{self, Context, Loading, RunArgs};
use crate::convert::{self, bytes_at, push_bytes};
use crate::interrupt::{CONTEXT_KEY, Interrupter, Interruptible};
use crate::library::{self, Registry};
use crate::script::{self, Script, Sha};
use crate::sys::*;
use crate::{Host, Protocol, alloc, internals};

/// Compiled scripts kept loaded per VM; beyond it all are dropped and load again when needed.
const LOADED_SCRIPTS_MAX: usize = 8192;

/// The libraries and the sandbox alone take about a tenth of this.
const MEMORY_LIMIT_BYTES_MIN: usize = 4 << 20;

/// Name of the chunks this crate brings along; never shown to scripts.
const INTERNAL_CHUNK: &CStr = c"=luar";

/// Name of the chunk of a script.
const SCRIPT_CHUNK: &CStr = c"@user_script";

/// Stack slots of the values every run needs.
const HANDLER: c_int = 1;
const ENTRY: c_int = 2;

thread_local! {
    /// What the VM that runs on this thread now was told of its stack. A script may run from
    /// within the tick of another one, which goes on with its own limit.
    static STACK_FLOOR: Cell<usize> = const { Cell::new(0) };
}

#[derive(Clone, Debug)]
pub struct VmOptions {
    /// Bytes the Lua heap may take; a script that needs more ends with an error. At least 4 MB.
    pub memory_limit_bytes: usize,
    /// Compile hot code.
    pub jit: bool,
    /// `redis.REDIS_VERSION`, as `major.minor.patch`.
    pub redis_version: String,
}

impl Default for VmOptions {
    fn default() -> VmOptions {
        VmOptions { memory_limit_bytes: 256 << 20, jit: true, redis_version: String::from("7.2.4") }
    }
}

/// How a run ended. The reply is written in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The script returned; its reply may still be an error that it returned as a value.
    Ok,
    /// The script ended with an error.
    Error,
    /// The host answered a tick with Kill.
    Killed,
    /// The script crossed the memory limit and did not catch the error.
    OutOfMemory,
}

/// Registry references of the scripts loaded into a VM.
#[derive(Default)]
struct Loaded {
    functions: HashMap<Sha, c_int>,
    /// The one asked for last, which is the next one more often than not.
    last: Cell<(Sha, c_int)>,
}

impl Loaded {
    /// 0 if the script is not loaded.
    fn find(&self, sha: &Sha) -> c_int {
        let (last, function) = self.last.get();
        if function != 0 && last == *sha {
            return function;
        }
        let function = self.functions.get(sha).copied().unwrap_or(0);
        self.last.set((*sha, function));
        function
    }
}

/// One LuaJIT instance. Stays on the thread that made it; only its `Interrupter` travels.
pub struct Vm {
    state: *mut lua_State,
    context: *mut Context,
    interruptible: Interruptible,
    loaded: Loaded,
    options: VmOptions,
    /// Top of the machine code and count of traces when they were looked at last.
    traces: (usize, u32),
    /// A run left the instance in doubt (killed, out of memory); the next use makes a new one.
    spent: bool,
    _not_send: PhantomData<*mut ()>,
}

impl Vm {
    pub fn new(options: VmOptions) -> Vm {
        let limit = options.memory_limit_bytes.max(MEMORY_LIMIT_BYTES_MIN);
        let context = Box::into_raw(Context::new(limit));
        let state = new_state(context, &options);
        Vm {
            state,
            context,
            interruptible: Interruptible::new(),
            loaded: Loaded::default(),
            options,
            traces: (0, 0),
            spent: false,
            _not_send: PhantomData,
        }
    }

    /// Checks a source and compiles it; errors are complete error texts without the leading `-`.
    pub fn compile(&mut self, source: &[u8]) -> Result<Script, Vec<u8>> {
        let head = script::split_shebang(source)?;
        let text = head.text;
        self.prepare();
        let bytecode = self.bytecode(text, SCRIPT_CHUNK, true).or_else(|failure| {
            // Only a main chunk compiled with `...` can use it; few scripts do.
            if failure.windows(13).any(|part| part == b"outside a var") {
                self.bytecode(text, SCRIPT_CHUNK, false)
            } else {
                Err(failure)
            }
        });
        match bytecode {
            Ok(bytecode) => Ok(Script::new(source, head, bytecode)),
            Err(failure) => {
                Err([b"ERR Error compiling script (new function): ", failure.as_slice()].concat())
            }
        }
    }

    pub(crate) fn bytecode(
        &mut self,
        text: &[u8],
        chunk: &CStr,
        fixed: bool,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let L = self.state;
        // SAFETY: loading and dumping are protected calls inside LuaJIT, which report errors by
        // their status; the message is a string.
        unsafe {
            luar_fix_main_chunk(c_int::from(fixed));
            let status = luaL_loadbufferx(
                L,
                text.as_ptr().cast(),
                text.len(),
                chunk.as_ptr(),
                c"t".as_ptr(),
            );
            luar_fix_main_chunk(0);
            let mut bytecode = Vec::new();
            let result = if status != LUA_OK {
                Err(bytes_at(L, -1).to_vec())
            } else if lua_dump(L, append, (&raw mut bytecode).cast()) != 0 {
                Err(b"not enough memory".to_vec())
            } else {
                Ok(bytecode)
            };
            lua_settop(L, ENTRY);
            result
        }
    }

    /// Runs a script and appends its reply to `out`: exactly one, error replies included.
    pub fn run(
        &mut self,
        host: &mut dyn Host,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
        client_protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.prepare();
        let place = out.len();
        let run = RunArgs {
            keys,
            args,
            out: &raw mut *out,
            client: client_protocol,
            bytecode: script.bytecode(),
            function: self.loaded.find(script.sha()),
            called: script.called().map(|(library, at)| (Arc::as_ptr(library), at)),
            is_first_load: false,
        };
        let known = run.function;
        let (status, function) = self.enter(host, run);
        let outcome = self.outcome(status);
        if function != known {
            match script.library() {
                None => self.remember(script.sha(), function),
                Some(library) => self.keep_registered(library),
            }
        } else if known == 0 {
            self.drop_registered();
        }
        if let Some(text) = self.failure_text(host, status, outcome) {
            out.truncate(place);
            self.write_failure(script, text, out);
        }
        outcome
    }

    /// Runs what the arguments say in a protected call. Answers its status, and the reference of
    /// what was run, which may have been loaded for it.
    #[inline(always)]
    pub(crate) fn enter(&mut self, host: &mut dyn Host, run: RunArgs<'_>) -> (c_int, c_int) {
        let (L, context) = (self.state, self.context);
        // SAFETY: the borrows put into the context are taken out again below, before they end;
        // LuaJIT is only entered through a protected call.
        let status = unsafe {
            (*context).host = Some(NonNull::new_unchecked(std::mem::transmute::<
                *mut dyn Host,
                *mut (dyn Host + 'static),
            >(host)));
            (*context).run = Some(std::mem::transmute::<RunArgs<'_>, RunArgs<'static>>(run));
            (*context).protocol = Protocol::Resp2;
            (*context).killed = false;
            (*context).meter.refused = false;
            (*context).meter.relax();
            (*context).cjson.reset();
            (*context).error_line = 0;
            (*context).error_callers.clear();
            let here = context::stack_place();
            (*context).stack_floor = here.saturating_sub(context::RECURSION_STACK_BYTES);
            let floor = here.saturating_sub(context::CALL_STACK_BYTES);
            luar_set_stack_floor(std::ptr::without_provenance(floor));
            let outer_floor = STACK_FLOOR.replace(floor);
            let outer = self.interruptible.enter(L);
            lua_pushvalue(L, ENTRY);
            let status = lua_pcall(L, 0, 0, HANDLER);
            self.interruptible.leave(outer);
            STACK_FLOOR.set(outer_floor);
            luar_set_stack_floor(std::ptr::without_provenance(outer_floor));
            lua_settop(L, ENTRY);
            status
        };
        // SAFETY: no Lua code runs now; the context is ours alone.
        let (run, panic) = unsafe {
            (*context).host = None;
            context::shrink(&mut (*context).answer.bytes);
            ((*context).run.take(), (*context).panic.take())
        };
        if let Some(panic) = panic {
            self.spent = true;
            resume_unwind(panic);
        }
        (status, run.map_or(0, |run| run.function))
    }

    /// What the status of a protected call means.
    #[inline]
    pub(crate) fn outcome(&mut self, status: c_int) -> Outcome {
        // SAFETY: no Lua code runs now; the context is ours alone.
        let killed = unsafe { (*self.context).killed };
        let outcome = match status {
            _ if killed => Outcome::Killed,
            LUA_OK => Outcome::Ok,
            LUA_ERRMEM => Outcome::OutOfMemory,
            _ => Outcome::Error,
        };
        self.spent = matches!(outcome, Outcome::Killed | Outcome::OutOfMemory);
        outcome
    }

    /// The error text of a run that did not end well.
    #[inline]
    pub(crate) fn failure_text(
        &self,
        host: &dyn Host,
        status: c_int,
        outcome: Outcome,
    ) -> Option<Vec<u8>> {
        Some(match outcome {
            Outcome::Ok => return None,
            Outcome::Killed => host.kill_reason().into_bytes(),
            Outcome::OutOfMemory => b"ERR not enough memory".to_vec(),
            // SAFETY: no Lua code runs now; the context is ours alone.
            _ if status == LUA_ERRRUN => unsafe { (*self.context).error_text.clone() },
            _ => b"ERR error in error handling".to_vec(),
        })
    }

    /// What the run has registered.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        // SAFETY: no Lua code runs now; the context is ours alone.
        unsafe { &mut (*self.context).registry }
    }

    /// Lets go of a value that the registry keeps.
    pub(crate) fn release(&mut self, reference: c_int) {
        // SAFETY: the reference was made in this state; releasing writes to an existing slot of
        // the registry.
        unsafe { luaL_unref(self.state, LUA_REGISTRYINDEX, reference) };
    }

    fn write_failure(&mut self, script: &Script, mut text: Vec<u8>, out: &mut Vec<u8>) {
        // SAFETY: no Lua code runs now; the context is ours alone.
        let context = unsafe { &*self.context };
        text.extend_from_slice(b" script: ");
        text.extend_from_slice(script.label().as_bytes());
        if context.error_line > 0 {
            text.extend_from_slice(b", on ");
            text.extend_from_slice(&context.error_source);
            text.extend_from_slice(format!(":{}.", context.error_line).as_bytes());
            // Behind what Redis says, and only for scripts that have a name. What a function is
            // called stands there already.
            let says_more = script.library().is_none() || !context.error_callers.is_empty();
            if let Some(name) = script.name().filter(|_| says_more) {
                let place = format!(" {name}:{}", context.error_line);
                text.extend_from_slice(place.as_bytes());
                for line in &context.error_callers {
                    text.extend_from_slice(format!(" < {line}").as_bytes());
                }
            }
        }
        convert::write_error(out, &text);
    }

    pub(crate) fn remember(&mut self, sha: &Sha, function: c_int) {
        if self.loaded.functions.len() >= LOADED_SCRIPTS_MAX {
            self.forget_all();
        }
        self.loaded.last.set(Default::default());
        if let Some(old) = self.loaded.functions.insert(*sha, function) {
            self.release(old);
        }
    }

    /// Drops the loaded form of a script, if there is one.
    pub fn forget(&mut self, sha: &Sha) {
        self.loaded.last.set(Default::default());
        if let Some(function) = self.loaded.functions.remove(sha) {
            self.release(function);
        }
    }

    /// Drops the loaded forms of all scripts.
    pub fn forget_all(&mut self) {
        self.loaded.last.set(Default::default());
        for (_, function) in std::mem::take(&mut self.loaded.functions) {
            self.release(function);
        }
    }

    /// Drops the loaded forms of the scripts that are not to be kept.
    pub fn forget_all_but(&mut self, mut keeps: impl FnMut(&Sha) -> bool) {
        let gone: Vec<Sha> =
            self.loaded.functions.keys().filter(|sha| !keeps(sha)).copied().collect();
        gone.iter().for_each(|sha| self.forget(sha));
    }

    /// Scripts loaded into this VM now.
    pub fn loaded_scripts(&self) -> usize {
        self.loaded.functions.len()
    }

    pub fn interrupter(&self) -> Interrupter {
        self.interruptible.interrupter()
    }

    /// Bytes of the Lua heap; machine code (at most 128 MB, usually a few KB) is not in it.
    pub fn used_bytes(&self) -> usize {
        // SAFETY: no Lua code runs now; the context is ours alone.
        unsafe { (*self.context).meter.used_bytes }
    }

    pub fn set_memory_limit(&mut self, bytes: usize) {
        self.options.memory_limit_bytes = bytes;
        // SAFETY: as in `used_bytes`.
        unsafe { (*self.context).meter.set_limit(bytes.max(MEMORY_LIMIT_BYTES_MIN)) };
    }

    /// Pieces of compiled code that exist now.
    pub fn compiled_traces(&self) -> u32 {
        // SAFETY: reads counters of a live state; no Lua code runs now.
        unsafe { luar_trace_count(self.state) }
    }

    /// Pieces of code compiled since this was asked last. Cheap when there are none.
    pub fn fresh_traces(&mut self) -> u32 {
        // SAFETY: reads a field of a live state; no Lua code runs now.
        let top = unsafe { luar_code_top(self.state) }.addr();
        let (old_top, old_count) = self.traces;
        if top == old_top {
            return 0;
        }
        let count = self.compiled_traces();
        self.traces = (top, count);
        count.saturating_sub(old_count)
    }

    /// Collects all garbage of the Lua heap now.
    pub fn collect_garbage(&mut self) {
        self.prepare();
        // SAFETY: a full collection runs no Lua code (scripts cannot set finalizers) and frees
        // only.
        unsafe { lua_gc(self.state, LUA_GCCOLLECT, 0) };
    }

    /// Whether the next use will make a new instance (about 1 ms).
    pub fn needs_rebuild(&self) -> bool {
        self.spent
    }

    /// Before every use: a new instance if the old one is in doubt, and room to work in.
    pub(crate) fn prepare(&mut self) {
        // SAFETY: no Lua code runs now; a full collection runs none either (scripts cannot set
        // finalizers) and only frees.
        unsafe {
            let meter = &raw const (*self.context).meter;
            if !self.spent && (*meter).used_bytes > (*meter).limit_bytes / 2 {
                lua_gc(self.state, LUA_GCCOLLECT, 0);
                self.spent = (*meter).used_bytes > (*meter).limit_bytes / 2;
            }
        }
        if !self.spent {
            return;
        }
        self.spent = false;
        self.loaded = Loaded::default();
        self.traces = (0, 0);
        // SAFETY: the old state is not used again; its blocks are given back before the meter
        // goes on counting for the new one.
        unsafe {
            (*self.context).meter.state = std::ptr::null_mut();
            lua_close(self.state);
        }
        self.state = new_state(self.context, &self.options);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // SAFETY: state and context are used by nobody else; the state goes first, because its
        // blocks are counted in the context.
        unsafe {
            (*self.context).meter.state = std::ptr::null_mut();
            lua_close(self.state);
            drop(Box::from_raw(self.context));
        }
    }
}

unsafe extern "C" fn append(
    _L: *mut lua_State,
    block: *const c_void,
    len: usize,
    bytes: *mut c_void,
) -> c_int {
    // SAFETY: `bytes` is the Vec given to lua_dump, `block` has `len` bytes.
    unsafe {
        (*bytes.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(block.cast(), len));
    }
    0
}

/// Makes an instance with the libraries, the sandbox and the stack slots of `run`.
fn new_state(context: *mut Context, options: &VmOptions) -> *mut lua_State {
    // SAFETY: the meter outlives the state; everything that may raise happens inside the
    // protected call, whose failure is a bug or an exhausted machine.
    unsafe {
        let meter = &raw mut (*context).meter;
        let L = lua_newstate(alloc::allocate, meter.cast());
        assert!(!L.is_null(), "no memory for a Lua VM");
        lua_pushcclosure(L, handler_of_setup, 0);
        lua_pushcclosure(L, set_up, 0);
        lua_pushlightuserdata(L, context.cast());
        lua_pushlightuserdata(L, (&raw const *options).cast_mut().cast());
        if lua_pcall(L, 2, 2, 1) != LUA_OK {
            let text = String::from_utf8_lossy(bytes_at(L, -1)).into_owned();
            panic!("setting up a Lua VM failed: {text}");
        }
        lua_remove(L, 1);
        (*context).meter.state = L;
        (*context).names.truncate(1);
        (*context).name_index.clear();
        (*context).loading = Loading::No;
        (*context).registry.clear();
        L
    }
}

unsafe extern "C-unwind" fn handler_of_setup(_L: *mut lua_State) -> c_int {
    1
}

/// Opens everything; returns the error handler and the entry function.
unsafe extern "C-unwind" fn set_up(L: *mut lua_State) -> c_int {
    // SAFETY: called by `new_state` with context and options; the stack has room for the few
    // values below; nothing with a destructor is held while Lua is called.
    unsafe {
        let context: *mut Context = lua_touserdata(L, 1).cast();
        let options: *const VmOptions = lua_touserdata(L, 2).cast_const().cast();
        lua_settop(L, 0);
        lua_pushlightuserdata(L, context.cast());
        lua_rawseti(L, LUA_REGISTRYINDEX, CONTEXT_KEY);
        luaL_openlibs(L);

        load_internal(L, include_bytes!("open.lua"));
        lua_pushboolean(L, c_int::from((*options).jit));
        lua_call(L, 1, 1); // the FFI library

        load_internal(L, include_bytes!("sandbox.lua"));
        lua_insert(L, -2);
        bridge::push_call_functions(L, context);
        crate::api::push_table(L, context);
        crate::cjson::push_library(L, context);
        crate::cmsgpack::push_library(L, context);
        crate::structs::push_library(L, context);
        bridge::push_function(L, context, is_killed);
        bridge::push_function(L, context, is_stack_deep);
        bridge::push_function(L, context, crate::sort::sort_values);
        lua_pushnumber(L, random_seed());
        push_bytes(L, (*options).redis_version.as_bytes());
        lua_call(L, 9, 3); // what libraries see, the hidden globals and their face

        // The globals keep these two strings from now on.
        for (at, name) in [c"KEYS", c"ARGV"].into_iter().enumerate() {
            push_bytes(L, name.to_bytes());
            (*context).list_names[at] = internals::string_on_top(L);
            lua_createtable(L, 0, 0);
            lua_rawset(L, -4);
        }
        (*context).globals = lua_topointer(L, -2).cast();

        // What scripts see as globals, in this thread and in every coroutine.
        lua_replace(L, LUA_GLOBALSINDEX);
        lua_insert(L, -2);
        lua_pushlightuserdata(L, context.cast());
        lua_insert(L, -3);
        lua_pushcclosure(L, entry, 3);
        bridge::push_function(L, context, handler);
        lua_insert(L, -2);
        2
    }
}

/// Pushes a chunk of our own as a function, or raises.
///
/// # Safety
/// Called at set-up inside a protected call.
pub unsafe fn load_internal(L: *mut lua_State, source: &[u8]) {
    // SAFETY: by the caller.
    unsafe {
        let text = source.as_ptr().cast();
        let status =
            luaL_loadbufferx(L, text, source.len(), INTERNAL_CHUNK.as_ptr(), c"t".as_ptr());
        if status != LUA_OK {
            lua_error(L);
        }
    }
}

/// Every VM draws different numbers, so that values scripts make up differ between workers.
fn random_seed() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let seed = std::hash::RandomState::new().build_hasher().finish();
    (seed >> 12) as f64
}

unsafe extern "C-unwind" fn is_killed(L: *mut lua_State) -> c_int {
    // SAFETY: made by `push_function`.
    unsafe { lua_pushboolean(L, c_int::from((*context_upvalue(L)).killed)) };
    1
}

unsafe extern "C-unwind" fn is_stack_deep(L: *mut lua_State) -> c_int {
    // SAFETY: compares addresses only.
    unsafe { lua_pushboolean(L, luar_stack_is_deep()) };
    1
}

/// The body of a run. Upvalues: the context, the hidden globals, and the function that chooses what
/// libraries see.
unsafe extern "C-unwind" fn entry(L: *mut lua_State) -> c_int {
    // SAFETY: `Vm::run` filled `run` and keeps everything it points to alive; nothing with a
    // destructor is held while Lua is called.
    unsafe {
        let context = context_upvalue(L);
        let Some(run) = &mut (*context).run else { return 0 };
        let run: *mut RunArgs<'_> = run;
        // A library whose code failed has left the API as libraries see it while they are loaded.
        if (*context).loading != Loading::No {
            lua_pushvalue(L, lua_upvalueindex(3));
            library::end_loading(L, context);
        }
        if (*run).function == 0 && !load(L, context, run) {
            return 0;
        }
        if (*run).called.is_some() {
            lua_rawgeti(L, LUA_REGISTRYINDEX, (*run).function);
            internals::push_list(L, &*(*run).keys);
            internals::push_list(L, &*(*run).args);
            luar_collect_step(L);
            lua_call(L, 2, 1);
        } else {
            let (globals, [keys, args]) = ((*context).globals, (*context).list_names);
            internals::set_list(L, globals, keys, &*(*run).keys);
            internals::set_list(L, globals, args, &*(*run).args);
            lua_rawgeti(L, LUA_REGISTRYINDEX, (*run).function);
            lua_call(L, 0, 1);
        }
        convert::write_reply(L, context, &mut *(*run).out, (*run).client);
        0
    }
}

/// Loads what is to be run; false when that was all.
#[cold]
unsafe fn load(L: *mut lua_State, context: *mut Context, run: *mut RunArgs<'_>) -> bool {
    // SAFETY: as in `entry`.
    unsafe {
        let (is_first, called) = ((*run).is_first_load, (*run).called);
        let bytecode = &*(*run).bytecode;
        if !is_first && called.is_none() {
            load_bytecode(L, bytecode);
            (*run).function = luaL_ref(L, LUA_REGISTRYINDEX);
            return true;
        }
        lua_pushvalue(L, lua_upvalueindex(3));
        library::run_code(L, context, bytecode, is_first);
        let Some((library, at)) = called else { return false };
        let functions = (*library).functions();
        (*run).function = library::registered_as(context, functions[at].name());
        if (*run).function == 0 {
            // It does not always register the same.
            bridge::push_plain_error(L, b"ERR Function not found");
            lua_error(L);
        }
        true
    }
}

/// Pushes a function of this bytecode.
///
/// # Safety
/// The bytecode was made by `Vm::bytecode`; may raise.
pub unsafe fn load_bytecode(L: *mut lua_State, bytecode: &[u8]) {
    // SAFETY: by the caller.
    unsafe {
        let text = bytecode.as_ptr().cast();
        let name = INTERNAL_CHUNK.as_ptr();
        let status = luaL_loadbufferx(L, text, bytecode.len(), name, c"b".as_ptr());
        if status != LUA_OK {
            lua_error(L);
        }
    }
}

/// Called with the error that ends a run, while the stack still shows where it was raised: notes
/// its text and place in the context.
unsafe extern "C-unwind" fn handler(L: *mut lua_State) -> c_int {
    // SAFETY: made by `push_function`; texts are copied into buffers of the context.
    unsafe {
        let context = context_upvalue(L);
        let text = &raw mut (*context).error_text;
        (*text).clear();
        match lua_type(L, 1) {
            LUA_TTABLE => {
                push_bytes(L, b"err");
                lua_rawget(L, 1);
                let kind = lua_type(L, -1);
                if kind == LUA_TSTRING || kind == LUA_TNUMBER {
                    (*text).extend_from_slice(bytes_at(L, -1));
                } else {
                    (*text).extend_from_slice(b"ERR unknown error");
                }
            }
            LUA_TSTRING | LUA_TNUMBER => {
                (*text).extend_from_slice(b"ERR ");
                (*text).extend_from_slice(bytes_at(L, 1));
            }
            LUA_TNIL => (*text).extend_from_slice(b"ERR nil"),
            LUA_TBOOLEAN if lua_toboolean(L, 1) != 0 => (*text).extend_from_slice(b"ERR true"),
            LUA_TBOOLEAN => (*text).extend_from_slice(b"ERR false"),
            kind => {
                let name = CStr::from_ptr(lua_typename(L, kind)).to_bytes();
                (*text).extend_from_slice(b"ERR ");
                (*text).extend_from_slice(name);
            }
        }
        note_place(L, context);
        lua_settop(L, 1);
        1
    }
}

/// Callers that an error names beside its own place.
const CALLERS_MAX: usize = 8;

/// Finds the innermost function of the script's own text on the stack, and who called it.
unsafe fn note_place(L: *mut lua_State, context: *mut Context) {
    // SAFETY: lua_Debug is plain data that LuaJIT fills; the source lives with its function.
    unsafe {
        let mut ar: lua_Debug = std::mem::zeroed();
        let mut level = 0;
        let mut is_found = false;
        while lua_getstack(L, level, &mut ar) != 0 {
            level += 1;
            lua_getinfo(L, c"Sl".as_ptr(), &mut ar);
            let source = CStr::from_ptr(ar.source);
            if ar.currentline <= 0 || source == INTERNAL_CHUNK {
                continue;
            }
            if !is_found {
                is_found = true;
                (*context).error_callers.clear();
                (*context).error_source.clear();
                (*context).error_source.extend_from_slice(source.to_bytes());
                (*context).error_line = ar.currentline;
                continue;
            }
            let callers = &mut (*context).error_callers;
            callers.push(ar.currentline);
            if callers.len() == CALLERS_MAX {
                return;
            }
        }
    }
}
