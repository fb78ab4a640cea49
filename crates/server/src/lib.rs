//! The server: workers and their event loops, connections, dispatch, configuration and the
//! commands about connection and server.
//!
//! This crate is the only one that opens sockets, starts threads and reads the clock. Start
//! reading at [`run`], then `worker.rs` (the event loop) and `dispatch.rs` (one request).

pub mod acl;
pub mod client;
mod client_memory;
pub mod clock;
pub mod config;
pub mod connection;
pub mod dispatch;
pub mod durability;
mod hot_keys;
mod latency;
mod limits;
mod listener;
pub mod log;
mod look_ahead;
pub mod mailbox;
pub mod memory;
mod migrate;
mod notify;
mod outbox;
mod process;
mod pubsub;
mod rates;
pub mod request;
pub mod script;
pub mod server;
pub mod session;
mod settings;
mod slowlog;
pub mod stats;
pub mod table;
mod ticks;
mod tls;
mod tracking;
pub mod worker;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use mio::{Poll, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use acl::Acl;
use config::{Config, ConfigStore, Loaded};
use listener::Listeners;
use mailbox::Mailbox;
use server::{AtRest, Server, ShutdownHow};
use worker::{FIRST_LISTENER, WAKER, WorkerLoop};

/// The version of Redis whose behaviour clients may rely on; they gate features on it.
pub const REDIS_VERSION: &str = "7.2.4";
pub const LUAR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A script needs 2 MB, and another one may run from within it.
const WORKER_STACK_BYTES: usize = 8 << 20;

/// How soon a signal is thought of again that is not to be followed now.
const SIGNAL_PAUSE: Duration = Duration::from_millis(10);

/// How many workers a configuration asks for.
fn workers(config: &Config) -> usize {
    match config.workers {
        0 => thread::available_parallelism().map_or(1, |cores| cores.get()),
        workers => workers as usize,
    }
}

fn set_up_log(config: &Config) -> Result<(), String> {
    log::set_level(config.loglevel.into());
    let path = config.logfile.as_path();
    log::set_file(path).map_err(|error| {
        format!("can't open the log file '{}': {}", path.display(), config::reason(&error))
    })
}

/// Serves until a signal or SHUTDOWN ends it. The error is one line for the user.
pub fn run(mut loaded: Loaded) -> Result<(), String> {
    if let Err(possible) = limits::allow_clients(loaded.config.maxclients) {
        loaded.warnings.push(format!(
            "The kernel does not allow enough open files: maxclients is {possible} and not {}",
            loaded.config.maxclients
        ));
        loaded.config.maxclients = possible;
    }
    abort_on_panic();
    process::survive_file_limits();
    let config = Arc::new(ConfigStore::new(loaded.config, loaded.file));
    let snapshot = config.current();
    process::enter_directory(&snapshot)?;
    set_up_log(&snapshot)?;
    let count = workers(&snapshot);

    let failed = |error: io::Error| format!("could not set up the event loops: {error}");
    let mut polls = Vec::with_capacity(count);
    let mut mailboxes = Vec::with_capacity(count);
    for _ in 0..count {
        let poll = Poll::new().map_err(failed)?;
        mailboxes.push(Mailbox::new(Waker::new(poll.registry(), WAKER).map_err(failed)?));
        polls.push(poll);
    }
    let registry = polls[0].registry().try_clone().map_err(failed)?;
    let listeners = Listeners::open(&snapshot, registry, FIRST_LISTENER)?;
    // All that can be in the way has been tried: who started the server has seen the error.
    if snapshot.daemonize {
        process::detach()?;
    }
    // `dir` may change before the end.
    let socket = Some(&snapshot.unixsocket).filter(|socket| !socket.is_empty());
    let socket = socket.and_then(|socket| std::path::absolute(socket.as_path()).ok());
    let acl = Acl::new(&snapshot)?;
    let server = Arc::new(Server::new(config, mailboxes, listeners, acl));
    if !snapshot.aclfile.is_empty() {
        server.acl.load(snapshot.aclfile.as_path(), &snapshot)?;
    }
    start_reclaiming(&server);
    command::dump::tell_refusals(|text| log_warning!("{text}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();

    log_notice!(
        "Luar {LUAR_VERSION} (compatible with Redis {REDIS_VERSION}), port={}, pid={}, workers={count}",
        snapshot.port,
        std::process::id()
    );
    if snapshot.always_show_logo {
        log::write_raw(&logo(&snapshot));
    }
    for warning in &loaded.warnings {
        log_warning!("{warning}");
    }
    // Tools that start servers wait for these words.
    log_notice!("Server initialized");
    let saved = durability::loading::prepare(&server)?;
    let pid_file = process::PidFile::write(&snapshot);
    thread::scope(|scope| {
        let shared = &server;
        let (ask, asked) = mpsc::channel();
        scope.spawn(move || {
            memory::register_thread();
            for signal in signals.forever() {
                if signal == SIGINT && shared.ending.insist() {
                    log_warning!("You insist... exiting now.");
                    shared.shut_down();
                    continue;
                }
                log_notice!("Received signal {signal}, scheduling shutdown...");
                shared.ending.ask();
                // The other side is gone when the server ends already.
                let _ = ask.send(signal);
            }
        });
        scope.spawn(move || {
            memory::register_thread();
            while let Ok(signal) = asked.recv() {
                if end_on_signal(shared, signal) {
                    break;
                }
            }
        });
        scope.spawn(move || {
            memory::register_thread();
            script::watch(shared);
        });
        let mut threads = Vec::with_capacity(count);
        for (id, poll) in polls.into_iter().enumerate() {
            let server = server.clone();
            let name = format!("worker-{id}");
            let builder = thread::Builder::new().name(name).stack_size(WORKER_STACK_BYTES);
            let worker = builder.spawn_scoped(scope, move || {
                memory::register_thread();
                WorkerLoop::new(server, id, poll).map(|worker| worker.run())
            });
            threads.push(worker.map_err(failed)?);
        }
        server.startup_bytes.store(memory::used_bytes(), Ordering::Relaxed);
        // Clients are told to wait meanwhile.
        let mut result = durability::loading::load(&server, saved);
        if result.is_ok() && !server.is_shutting_down() {
            log_notice!("Ready to accept connections");
            server.supervisor.tell("STATUS=Ready to accept connections\nREADY=1\n");
        } else {
            server.shut_down();
        }
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(failed(error)),
                Err(_) => result = Err("a worker thread panicked".into()),
            }
            server.shut_down();
        }
        server.supervisor.tell("STOPPING=1\n");
        server.durability.aof.end();
        handle.close();
        result
    })?;
    server.durability.saves.join();
    drop(pid_file);
    let is_insisted = server.ending.is_insisted();
    if let Some(socket) = socket {
        let _ = std::fs::remove_file(socket);
    }
    log_notice!("Luar is now ready to exit, bye bye...");
    match is_insisted {
        true => Err("ended at once by a second signal".into()),
        false => Ok(()),
    }
}

/// `always-show-logo`: the moon, and what tools look for beside Redis's logo.
fn logo(config: &Config) -> String {
    format!(
        "\n      _..._\n    .:::::::.      Luar {LUAR_VERSION}\n   :::::::::::     Running in standalone mode\n   \
         `:::::::::'     Port: {}\n     `':::''       PID: {}\n\n",
        config.port,
        std::process::id()
    )
}

/// Ends the server, or says why not: then false.
fn end_on_signal(server: &Server, signal: i32) -> bool {
    while server.is_cron_paused.load(Ordering::Relaxed) && server.ending.is_asked() {
        thread::park_timeout(SIGNAL_PAUSE);
        if server.is_shutting_down() {
            break;
        }
    }
    if !server.ending.begin() {
        // Somebody has thought better of it.
        return false;
    }
    if server.is_shutting_down() || server.durability.loading.is_on() {
        server.shut_down();
        return true;
    }
    let config = server.config.current();
    let flags = match signal {
        SIGINT => &config.shutdown_on_sigint,
        _ => &config.shutdown_on_sigterm,
    };
    let how = ShutdownHow { save: flags.save, nosave: flags.nosave, force: flags.force };
    match server.shut_down_at_rest(None, how) {
        AtRest::Done => true,
        AtRest::Refused => {
            server.ending.give_up();
            false
        }
        // A script that does not end in time is killed.
        AtRest::Busy => {
            server.shut_down();
            true
        }
    }
}

/// A panic is a bug, and a worker that ends in one leaves its gate closed for ever: better that
/// the whole process ends, with the reason in the log.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        log_warning!("Luar crashed: {panic}");
        std::process::abort();
    }));
}

/// Starts the thread that frees large values.
fn start_reclaiming(server: &Server) {
    let (sender, garbage) = mpsc::channel();
    server.engine.set_reclaim(sender);
    thread::spawn(move || {
        memory::register_thread();
        garbage.into_iter().for_each(drop);
    });
}
