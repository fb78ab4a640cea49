//! Stopping a running script from another thread.
//!
//! A watchdog calls `Interrupter::request`. That sends `SIGNAL` to the VM's thread, whose handler
//! asks LuaJIT to call `hook` before the next instruction (compiled code looks at the same mask,
//! see build.rs). The hook runs as ordinary code of the VM's thread, asks the host what to do, and
//! either goes away until the next request or raises an error now and at every later instruction,
//! so that no pcall, xpcall or coroutine of the script survives it.
//!
//! Thread safety: `Interrupter` may be cloned and used anywhere. Setting the hook from another
//! thread directly would lose updates and can hang; from a handler on the VM's own thread it is
//! safe, because LuaJIT's own functions are never interrupted by another thread's writes then.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use crate::Tick;
use crate::context::Context;
use crate::convert::push_bytes;
use crate::sys::*;

/// Ignored by default and used for nothing else in a server that reads no out-of-band data.
const SIGNAL: c_int = libc::SIGURG;

/// What a script killed by the host dies of.
pub const KILLED_TEXT: &[u8] = b"ERR Script killed by user with SCRIPT KILL...";

thread_local! {
    /// The state that runs on this thread now. Const-initialised and without a destructor, so
    /// the signal handler may read it at any moment.
    static RUNNING: Cell<*mut lua_State> = const { Cell::new(ptr::null_mut()) };
}

/// Whether the [`crate::Host`] method being executed was called from compiled code.
pub fn in_compiled_code() -> bool {
    let state = RUNNING.get();
    // SAFETY: `RUNNING` holds only live states of this thread.
    !state.is_null() && unsafe { luar_in_trace(state) != 0 }
}

struct Target {
    /// The VM's thread; None once the VM is gone. Held while a signal is sent, so that no signal
    /// goes to a thread that has ended.
    thread: Mutex<Option<libc::pthread_t>>,
    running: AtomicBool,
}

/// Handle with which any thread can ask a VM to stop and think.
#[derive(Clone)]
pub struct Interrupter {
    target: Arc<Target>,
}

impl Interrupter {
    /// Makes the VM call `Host::tick` soon if it is running a script. Cheap and harmless
    /// otherwise. A request can get lost while a script starts or a command runs, so a watchdog
    /// repeats it (every 10 ms, say) until the script ends.
    pub fn request(&self) {
        if !self.target.running.load(Ordering::Relaxed) {
            return;
        }
        let thread = self.target.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            // SAFETY: the thread is alive: it takes this lock before the VM on it is dropped.
            unsafe { libc::pthread_kill(thread, SIGNAL) };
        }
    }
}

/// The VM's side of it.
pub struct Interruptible {
    interrupter: Interrupter,
}

impl Interruptible {
    pub fn new() -> Interruptible {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the action is fully initialised, and the handler touches only a
            // thread-local cell and the state of its own thread.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(SIGNAL, &action, ptr::null_mut());
            }
        });
        // SAFETY: no preconditions.
        let thread = unsafe { libc::pthread_self() };
        let target = Target { thread: Mutex::new(Some(thread)), running: AtomicBool::new(false) };
        Interruptible { interrupter: Interrupter { target: Arc::new(target) } }
    }

    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// From here on requests reach `L`. Answers the state that they reached before: a host's tick
    /// may run a script in another VM of the thread.
    #[must_use]
    pub fn enter(&self, L: *mut lua_State) -> *mut lua_State {
        // SAFETY: the state is live and belongs to this thread.
        unsafe {
            if lua_gethookmask(L) != 0 {
                lua_sethook(L, None, 0, 0);
            }
        }
        let outer = RUNNING.replace(L);
        self.interrupter.target.running.store(true, Ordering::Relaxed);
        outer
    }

    /// Requests reach what `enter` has answered.
    pub fn leave(&self, outer: *mut lua_State) {
        self.interrupter.target.running.store(false, Ordering::Relaxed);
        RUNNING.set(outer);
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        let thread = &self.interrupter.target.thread;
        *thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

extern "C" fn on_signal(_signal: c_int) {
    let state = RUNNING.get();
    if !state.is_null() {
        // SAFETY: `RUNNING` holds only live states of this thread, and LuaJIT allows setting a
        // hook from a signal handler of the VM's own thread.
        unsafe { set_hook(state) };
    }
}

unsafe fn set_hook(L: *mut lua_State) {
    let mask = LUA_MASKCOUNT | LUA_MASKLINE | LUA_MASKCALL | LUA_MASKRET;
    // SAFETY: by the caller.
    unsafe { lua_sethook(L, Some(hook), mask, 1) };
}

/// Called by LuaJIT before an instruction once a request arrived, and by `poll`.
unsafe extern "C-unwind" fn hook(L: *mut lua_State, _ar: *mut lua_Debug) {
    // SAFETY: the registry holds the context's address since the VM was made; the context and
    // the host are alive during a run, and hooks run only then.
    unsafe {
        let context = context_of(L);
        if !(*context).killed {
            let tick = crate::bridge::with_host(context, |host| host.tick());
            if let Some(Tick::Continue) = tick {
                lua_sethook(L, None, 0, 0);
                return;
            }
            (*context).killed = true;
        }
        raise_killed(L);
    }
}

/// Raises the error of a killed script; the hook stays set, so every later instruction does it
/// again.
///
/// # Safety
/// As for any raising function.
pub unsafe fn raise_killed(L: *mut lua_State) -> ! {
    // SAFETY: one slot is always free in a hook or C function.
    unsafe {
        push_bytes(L, KILLED_TEXT);
        lua_error(L);
    }
    unreachable!("lua_error returns to its pcall")
}

/// Lets a pending request act from within a long loop on the Rust side.
///
/// # Safety
/// May raise.
#[inline]
pub unsafe fn poll(L: *mut lua_State) {
    // SAFETY: reading the mask has no conditions.
    unsafe {
        if lua_gethookmask(L) != 0 {
            hook(L, ptr::null_mut());
        }
    }
}

/// The context of the VM that `L` belongs to.
///
/// # Safety
/// The VM's set-up stored it in the registry.
pub unsafe fn context_of(L: *mut lua_State) -> *mut Context {
    // SAFETY: reading the registry pushes one value, popped again.
    unsafe {
        lua_rawgeti(L, LUA_REGISTRYINDEX, CONTEXT_KEY);
        let context = lua_touserdata(L, -1);
        lua_settop(L, -2);
        context.cast()
    }
}

/// Registry slot of the context (positive numbers belong to luaL_ref).
pub const CONTEXT_KEY: c_int = -7301;
