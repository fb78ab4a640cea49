//! Libraries of functions: what FUNCTION LOAD keeps and FCALL runs.
//!
//! A library's code runs when it is loaded, and again in every VM that calls one of its functions
//! for the first time: it is there to register functions, sees nothing of the server, and what it
//! keeps in locals is the VM's own. Each function is a [`Script`] of its own, so whoever runs
//! scripts runs functions alike.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::fail;
use crate::bridge::context_upvalue;
use crate::context::{Context, Loading, RunArgs};
use crate::convert::bytes_at;
use crate::script::{Code, Flags, Script, Sha, sha_of, split_words};
use crate::sys::*;
use crate::vm::Vm;
use crate::{Host, Protocol};

const BAD_NAME: &str = "ERR Library names can only contain letters, numbers, or underscores(_) and \
                        must be at least one character long";

/// A library that was loaded once. Immutable, so shared between threads freely.
#[derive(Debug)]
pub struct Library {
    name: Box<str>,
    source: Box<[u8]>,
    bytecode: Box<[u8]>,
    functions: Vec<Function>,
}

/// A function of a library.
#[derive(Debug)]
pub struct Function {
    name: Box<str>,
    description: Option<Box<[u8]>>,
    flags: Flags,
    /// Of no other function, nor of the same one when its library is loaded again.
    sha: Sha,
}

/// What a run of a library's code has registered so far.
#[derive(Default)]
pub struct Registry {
    functions: Vec<Registered>,
    by_name: HashMap<Box<str>, c_int>,
}

impl Registry {
    /// The reference of a function; 0 if there is none of that name.
    fn find(&self, name: &str) -> c_int {
        self.by_name.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, function: Registered) {
        self.by_name.insert(function.name.clone(), function.reference);
        self.functions.push(function);
    }

    fn take(&mut self) -> Vec<Registered> {
        self.by_name.clear();
        std::mem::take(&mut self.functions)
    }

    pub fn clear(&mut self) {
        self.take();
    }
}

struct Registered {
    name: Box<str>,
    description: Option<Box<[u8]>>,
    flags: Flags,
    /// The registry's reference to the Lua function.
    reference: c_int,
}

impl Library {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The code as the client sent it, shebang line included.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// In the order in which they were registered; never empty.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Its functions as something to run.
    pub fn scripts(self: &Arc<Library>) -> Vec<Script> {
        let script = |at| Script::of_function(self.clone(), at);
        (0..self.functions.len()).map(script).collect()
    }

    /// Bytes it keeps on the Rust side, without those of its scripts.
    pub fn used_bytes(&self) -> usize {
        let texts = |function: &Function| {
            size_of::<Function>()
                + function.name.len()
                + function.description.as_ref().map_or(0, |text| text.len())
        };
        size_of::<Library>()
            + self.name.len()
            + self.source.len()
            + self.bytecode.len()
            + self.functions.iter().map(texts).sum::<usize>()
    }

    pub(crate) fn bytecode(&self) -> &[u8] {
        &self.bytecode
    }

    /// The identity of the function that goes by this name, which is most likely the one of that
    /// number.
    fn sha_of(&self, name: &str, at: usize) -> Option<&Sha> {
        let is_it = |function: &&Function| *function.name == *name;
        let found = self.functions.get(at).filter(is_it);
        found.or_else(|| self.functions.iter().find(is_it)).map(|found| &found.sha)
    }
}

impl Function {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn description(&self) -> Option<&[u8]> {
        self.description.as_deref()
    }

    pub fn flags(&self) -> Flags {
        self.flags
    }

    pub(crate) fn sha(&self) -> &Sha {
        &self.sha
    }
}

/// The name in a library's first line, and the text the compiler gets.
fn split_metadata(source: &[u8]) -> Result<(String, &[u8]), Vec<u8>> {
    let refused = |text: &str| Err(text.as_bytes().to_vec());
    if !source.starts_with(b"#!") {
        return refused("ERR Missing library metadata");
    }
    let Some(end) = source.iter().position(|&byte| byte == b'\n') else {
        return refused("ERR Invalid library metadata");
    };
    let Some(words) = split_words(&source[..end]) else {
        return refused("ERR Invalid library metadata");
    };
    let (engine, options) = words.split_first().map_or((&[][..], &[][..]), |(engine, options)| {
        (engine.strip_prefix(b"#!").unwrap_or_default(), options)
    });
    let mut name = None;
    for option in options {
        match option.strip_prefix(b"name=") {
            Some(_) if name.is_some() => {
                return refused(
                    "ERR Invalid metadata value, name argument was given multiple times",
                );
            }
            Some(value) => name = Some(value),
            None => return Err([b"ERR Invalid metadata value given: ", &option[..]].concat()),
        }
    }
    let Some(name) = name else { return refused("ERR Library name was not given") };
    let Some(name) = checked_name(name) else { return refused(BAD_NAME) };
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err([b"ERR Engine '", engine, b"' not found"].concat());
    }
    Ok((name.to_owned(), &source[end..]))
}

/// The name that a library's source gives it. Errors as of [`Vm::load_library`].
pub fn library_name(source: &[u8]) -> Result<String, Vec<u8>> {
    split_metadata(source).map(|(name, _)| name)
}

/// A name of a library or a function, if it is one.
fn checked_name(name: &[u8]) -> Option<&str> {
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let fits = !name.is_empty() && name.iter().all(is_fine);
    std::str::from_utf8(name).ok().filter(|_| fits)
}

impl Vm {
    /// Compiles a library and runs its code once, to learn what functions it has. Errors are
    /// complete error texts without the leading `-`. The host is asked for nothing but `log` and
    /// `tick`.
    pub fn load_library(&mut self, host: &mut dyn Host, source: &[u8]) -> Result<Library, Vec<u8>> {
        static LOADED: AtomicU64 = AtomicU64::new(0);
        let (name, text) = split_metadata(source)?;
        self.prepare();
        let bytecode = self
            .bytecode(text, c"@user_function", false)
            .map_err(|failure| [b"ERR Error compiling function: ", &failure[..]].concat())?;
        let (nothing, mut reply): ([&[u8]; 0], _) = ([], Vec::new());
        let run = RunArgs {
            keys: &raw const nothing[..],
            args: &raw const nothing[..],
            out: &raw mut reply,
            client: Protocol::Resp2,
            bytecode: &raw const bytecode[..],
            function: 0,
            called: None,
            is_first_load: true,
        };
        let (status, _) = self.enter(host, run);
        let outcome = self.outcome(status);
        let registered = self.take_registered();
        if let Some(text) = self.failure_text(host, status, outcome) {
            return Err([b"ERR Error registering functions: ", &text[..]].concat());
        }
        if registered.is_empty() {
            return Err(b"ERR No functions registered".to_vec());
        }
        // Loaded again, it is another one.
        let number = LOADED.fetch_add(1, Ordering::Relaxed);
        let identity = |name: &str| sha_of(format!("function {number} {name}").as_bytes());
        let function = |found: Registered| Function {
            sha: identity(&found.name),
            name: found.name,
            description: found.description,
            flags: found.flags,
        };
        Ok(Library {
            name: name.into_boxed_str(),
            source: source.into(),
            bytecode: bytecode.into_boxed_slice(),
            functions: registered.into_iter().map(function).collect(),
        })
    }

    /// What a run has registered; not to be called any more.
    fn take_registered(&mut self) -> Vec<Registered> {
        let registered = self.registry().take();
        registered.iter().for_each(|function| self.release(function.reference));
        registered
    }

    /// Keeps what a run has registered as it called a function of this library.
    pub(crate) fn keep_registered(&mut self, library: &Library) {
        for (at, function) in self.registry().take().into_iter().enumerate() {
            match library.sha_of(&function.name, at) {
                Some(sha) => self.remember(sha, function.reference),
                None => self.release(function.reference),
            }
        }
    }

    /// Lets go of what a run has registered, if there is anything.
    pub(crate) fn drop_registered(&mut self) {
        self.take_registered();
    }
}

/// Runs the code of a library in the middle of a run; with `is_first`, what it logs is heard.
///
/// # Safety
/// Called inside the run's protected call with the function on top that sets a library's
/// environment; pops it.
pub unsafe fn run_code(L: *mut lua_State, context: *mut Context, bytecode: &[u8], is_first: bool) {
    // SAFETY: by the caller; nothing with a destructor is held while Lua is called.
    unsafe {
        crate::vm::load_bytecode(L, bytecode);
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        (*context).loading = if is_first { Loading::First } else { Loading::Again };
        lua_call(L, 1, 0);
        lua_call(L, 0, 0);
        end_loading(L, context);
    }
}

/// A library's code has ended, or did so in the run before with an error.
///
/// # Safety
/// As `run_code`.
pub unsafe fn end_loading(L: *mut lua_State, context: *mut Context) {
    // SAFETY: by the caller.
    unsafe {
        (*context).loading = Loading::No;
        lua_call(L, 0, 0);
    }
}

/// The reference of a function that was registered just now; 0 if it was not.
///
/// # Safety
/// `context` is live.
pub unsafe fn registered_as(context: *mut Context, name: &str) -> c_int {
    // SAFETY: by the caller.
    let registry = unsafe { &(*context).registry };
    registry.find(name)
}

/// Stack slots of `register_function`.
const NAME: c_int = 1;
const DESCRIPTION: c_int = 2;
const CALLBACK: c_int = 3;
const GIVEN: c_int = 4;

/// `redis.register_function(name, callback)`, or with a table of named arguments.
pub unsafe extern "C-unwind" fn register_function(L: *mut lua_State) -> c_int {
    // SAFETY: values are looked at where they stand in the stack; nothing with a destructor is
    // held when something may raise.
    unsafe {
        let context = context_upvalue(L);
        if (*context).loading == Loading::No {
            let text = b"ERR redis.register_function can only be called on FUNCTION LOAD command";
            return fail(L, text);
        }
        let mut flags = Flags { declared: true, ..Flags::default() };
        match lua_gettop(L) {
            1 => {
                if lua_type(L, 1) != LUA_TTABLE {
                    let text = b"ERR calling redis.register_function with a single argument is \
                                 only applicable to Lua table (representing named arguments).";
                    return fail(L, text);
                }
                for _ in NAME..GIVEN {
                    lua_pushnil(L);
                }
                lua_pushvalue(L, 1);
                lua_remove(L, 1);
                if let Err(text) = read_named(L, &mut flags) {
                    return fail(L, text);
                }
            }
            2 => {
                if !is_text(L, 1) {
                    return fail(
                        L,
                        b"ERR first argument to redis.register_function must be a string",
                    );
                }
                if lua_type(L, 2) != LUA_TFUNCTION {
                    return fail(
                        L,
                        b"ERR second argument to redis.register_function must be a function",
                    );
                }
                lua_pushnil(L);
                lua_insert(L, DESCRIPTION);
            }
            _ => return fail(L, b"ERR wrong number of arguments to redis.register_function"),
        }
        let mut len = 0;
        lua_tolstring(L, NAME, &mut len);
        let Some(name) = checked_name(bytes_at(L, NAME)) else {
            return fail(L, BAD_NAME.as_bytes());
        };
        if registered_as(context, name) != 0 {
            return fail(L, b"ERR Function already exists in the library");
        }
        lua_settop(L, CALLBACK);
        let reference = luaL_ref(L, LUA_REGISTRYINDEX);
        let has_description = lua_type(L, DESCRIPTION) != LUA_TNIL;
        let registry = &mut (*context).registry;
        registry.add(Registered {
            name: name.into(),
            description: has_description.then(|| bytes_at(L, DESCRIPTION).into()),
            flags,
            reference,
        });
        0
    }
}

/// A string, or a number, which becomes one.
unsafe fn is_text(L: *mut lua_State, index: c_int) -> bool {
    // SAFETY: by the caller.
    unsafe { matches!(lua_type(L, index), LUA_TSTRING | LUA_TNUMBER) }
}

/// Reads the table at `GIVEN` into the slots before it.
unsafe fn read_named(L: *mut lua_State, flags: &mut Flags) -> Result<(), &'static [u8]> {
    // SAFETY: a key is only read as text if it is a string, so the walk over the table goes on.
    unsafe {
        lua_pushnil(L);
        while lua_next(L, GIVEN) != 0 {
            if !is_text(L, -2) {
                return Err(
                    b"ERR named argument key given to redis.register_function is not a string",
                );
            }
            let key = if lua_type(L, -2) == LUA_TSTRING { bytes_at(L, -2) } else { b"" };
            if key.eq_ignore_ascii_case(b"function_name") {
                if !is_text(L, -1) {
                    return Err(
                        b"ERR function_name argument given to redis.register_function must \
                                 be a string",
                    );
                }
                lua_replace(L, NAME);
            } else if key.eq_ignore_ascii_case(b"description") {
                if !is_text(L, -1) {
                    return Err(b"ERR description argument given to redis.register_function must \
                                 be a string");
                }
                lua_replace(L, DESCRIPTION);
            } else if key.eq_ignore_ascii_case(b"callback") {
                if lua_type(L, -1) != LUA_TFUNCTION {
                    return Err(b"ERR callback argument given to redis.register_function must be \
                                 a function");
                }
                lua_replace(L, CALLBACK);
            } else if key.eq_ignore_ascii_case(b"flags") {
                if lua_type(L, -1) != LUA_TTABLE {
                    return Err(b"ERR flags argument to redis.register_function must be a table \
                                 representing function flags");
                }
                read_flags(L, flags)?;
                lua_settop(L, -2);
            } else {
                return Err(b"ERR unknown argument given to redis.register_function");
            }
        }
        if lua_type(L, NAME) == LUA_TNIL {
            return Err(b"ERR redis.register_function must get a function name argument");
        }
        if lua_type(L, CALLBACK) == LUA_TNIL {
            return Err(b"ERR redis.register_function must get a callback argument");
        }
        Ok(())
    }
}

/// Reads the list on top of the stack, which stays there.
unsafe fn read_flags(L: *mut lua_State, flags: &mut Flags) -> Result<(), &'static [u8]> {
    let mut at = 1;
    loop {
        // SAFETY: by the caller; there is room for one value.
        unsafe {
            lua_rawgeti(L, -1, at);
            if lua_type(L, -1) == LUA_TNIL {
                lua_settop(L, -2);
                return Ok(());
            }
            if !is_text(L, -1) || !flags.set(bytes_at(L, -1)) {
                return Err(b"ERR unknown flag given");
            }
            lua_settop(L, -2);
        }
        at += 1;
    }
}

impl Script {
    fn of_function(library: Arc<Library>, at: usize) -> Script {
        let function = &library.functions[at];
        let (sha, name, flags) = (*function.sha(), function.name.clone(), function.flags);
        Script::with_code(sha, flags, Some(name), Code::Function { library, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: &[u8]) -> String {
        String::from_utf8(split_metadata(source).unwrap_err()).unwrap()
    }

    #[test]
    fn the_first_line_of_a_library() {
        let (name, text) = split_metadata(b"#!LUA name=a_1\nreturn").unwrap();
        assert_eq!((name.as_str(), text), ("a_1", &b"\nreturn"[..]));
        assert_eq!(refusal(b"return 1"), "ERR Missing library metadata");
        assert_eq!(refusal(b"#!lua name=a"), "ERR Invalid library metadata");
        assert_eq!(refusal(b"#!lua name='a\n"), "ERR Invalid library metadata");
        assert_eq!(refusal(b"#!lua\n"), "ERR Library name was not given");
        assert_eq!(refusal(b"#!lua name=a-b\n"), BAD_NAME);
        assert_eq!(refusal(b"#!lua name=\n"), BAD_NAME);
        assert_eq!(refusal(b"#!js name=a\n"), "ERR Engine 'js' not found");
        assert_eq!(refusal(b"#! name=a\n"), "ERR Engine '' not found");
        assert_eq!(refusal(b"#!lua name=a x=b\n"), "ERR Invalid metadata value given: x=b");
    }
}
