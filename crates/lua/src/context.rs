//! What a VM's C functions share during a run: the host, the buffers, the flags.
//!
//! There is one context per VM, boxed, at an address that never changes. The bridge's Lua code
//! knows the address of its first field; C functions get it as an upvalue. It is touched by the
//! VM's thread only, through raw pointers: Lua code runs between any two accesses, so no
//! reference to the whole of it is ever held across a call into Lua.

use std::any::Any;
use std::collections::HashMap;
use std::ptr::NonNull;

use crate::alloc::Meter;
use crate::library::{Library, Registry};
use crate::order::Order;
use crate::{Answer, Host, Protocol, cjson, internals, sort};

/// Arguments that the bridge passes without going through the Lua stack.
pub const WINDOW_ARGS: usize = 9;

/// One argument of a command: a string, or a number if `len` is negative. The layout is declared
/// a second time in the bridge's Lua source.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arg {
    pub text: *const u8,
    pub len: i64,
    pub number: f64,
}

/// The memory that Lua code reads and writes directly (same remark).
#[repr(C)]
pub struct Window {
    pub number: f64,
    pub text: *const u8,
    pub len: usize,
    pub args: [Arg; WINDOW_ARGS],
}

/// A command name as a script wrote it, and what the host resolved it to.
pub struct Name {
    pub command: Option<u32>,
    pub text: Box<[u8]>,
}

/// What a run is about. `Vm::enter` says how long it is believed.
pub struct RunArgs<'r> {
    pub keys: *const [&'r [u8]],
    pub args: *const [&'r [u8]],
    pub out: *mut Vec<u8>,
    pub client: Protocol,
    pub bytecode: *const [u8],
    /// Registry reference of the loaded script or function; 0 until it is loaded.
    pub function: std::ffi::c_int,
    /// The library of a function, and which one of it.
    pub called: Option<(*const Library, usize)>,
    /// It is only there to load a library.
    pub is_first_load: bool,
}

/// Whether the code of a library runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    No,
    First,
    /// It has run already, in another VM or in an earlier life of this one.
    Again,
}

#[repr(C)]
pub struct Context {
    pub window: Window,
    /// Set during a run only.
    pub host: Option<NonNull<dyn Host>>,
    pub run: Option<RunArgs<'static>>,
    /// What `redis.setresp` chose; RESP2 at the start of every run.
    pub protocol: Protocol,
    /// The reply of the last command.
    pub answer: Answer,
    /// Arguments of a call with more than `WINDOW_ARGS` of them.
    pub wide_args: Vec<&'static [u8]>,
    pub wide_numbers: Vec<[u8; crate::number::TEXT_BYTES_MAX]>,
    /// Index 0 stands for every name the host does not know.
    pub names: Vec<Name>,
    pub name_index: HashMap<Box<[u8]>, u32>,
    pub killed: bool,
    /// A panic of the host, carried past the Lua frames.
    pub panic: Option<Box<dyn Any + Send>>,
    /// The error that ends the run: its text, and the chunk and line it was raised at.
    pub error_text: Vec<u8>,
    pub error_source: Vec<u8>,
    pub error_line: i32,
    /// Lines from where the function of that place was called, innermost first.
    pub error_callers: Vec<i32>,
    /// Recursion of our own functions ends when the machine's stack has grown down to here.
    pub stack_floor: usize,
    pub meter: Meter,
    pub scratch: Vec<u8>,
    pub order: Order,
    pub cjson: cjson::Shared,
    pub sort: sort::Buffers,
    /// The strings "KEYS" and "ARGV", which live as long as the globals.
    pub list_names: [*const internals::Str; 2],
    /// The hidden globals, which `vm::entry` keeps.
    pub globals: *const internals::Table,
    pub loading: Loading,
    /// Functions that the run has registered.
    pub registry: Registry,
}

impl Context {
    pub fn new(memory_limit_bytes: usize) -> Box<Context> {
        let empty = Arg { text: std::ptr::null(), len: 0, number: 0.0 };
        Box::new(Context {
            window: Window {
                number: 0.0,
                text: std::ptr::null(),
                len: 0,
                args: [empty; WINDOW_ARGS],
            },
            host: None,
            run: None,
            protocol: Protocol::Resp2,
            answer: Answer::default(),
            wide_args: Vec::new(),
            wide_numbers: Vec::new(),
            names: vec![Name { command: None, text: Box::default() }],
            name_index: HashMap::new(),
            killed: false,
            panic: None,
            error_text: Vec::new(),
            error_source: Vec::new(),
            error_line: 0,
            error_callers: Vec::new(),
            stack_floor: 0,
            meter: Meter::new(memory_limit_bytes),
            scratch: Vec::new(),
            order: Order::default(),
            cjson: cjson::Shared::default(),
            sort: sort::Buffers::default(),
            list_names: [std::ptr::null(); 2],
            globals: std::ptr::null(),
            loading: Loading::No,
            registry: Registry::default(),
        })
    }
}

/// Bytes of the machine's stack that calls from C functions back into Lua may take, and those
/// that recursion of our own functions may take: together well below the 2 MB of a thread.
pub const CALL_STACK_BYTES: usize = 512 << 10;
pub const RECURSION_STACK_BYTES: usize = 1 << 20;

/// Roughly where the machine's stack has grown to.
#[inline]
pub fn stack_place() -> usize {
    let here = 0u8;
    std::hint::black_box(&raw const here) as usize
}

/// Gives back a buffer that one large value has grown.
pub fn shrink<T>(buffer: &mut Vec<T>) {
    const KEPT_BYTES_MAX: usize = 4 << 20;
    if buffer.capacity() * size_of::<T>() > KEPT_BYTES_MAX {
        *buffer = Vec::new();
    }
}
