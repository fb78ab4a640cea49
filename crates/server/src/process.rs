//! The server as a process among others: its directory, the background, the file with its id, and
//! what it tells the service manager. Called by `run` as it starts and ends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use crate::config::{Config, Supervised, reason};

/// Where the id goes when only `daemonize` asks for it, as with Redis.
const PID_FILE: &str = "/var/run/redis.pid";

/// Goes to the directory that relative paths start from.
pub fn enter_directory(config: &Config) -> Result<(), String> {
    let path = config.dir.as_path();
    std::env::set_current_dir(path)
        .map_err(|error| format!("can't chdir to '{}': {}", path.display(), reason(&error)))
}

/// Has a file that must not become larger be an error of whoever writes to it, and not the end of the
/// process.
pub fn survive_file_limits() {
    // SAFETY: ignoring a signal has no preconditions.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// `daemonize`: goes on in a child without a terminal, while this process ends. To be called
/// before the first thread is started.
pub fn detach() -> Result<(), String> {
    let failed =
        |what: &str| format!("can't daemonize: {what}: {}", reason(&io::Error::last_os_error()));
    // SAFETY: there is only this thread, so the child finds every lock free.
    match unsafe { libc::fork() } {
        -1 => return Err(failed("fork")),
        0 => {}
        // SAFETY: ends the process at once; the child is to run what is registered for its end.
        _ => unsafe { libc::_exit(0) },
    }
    // SAFETY: no preconditions.
    if unsafe { libc::setsid() } == -1 {
        return Err(failed("setsid"));
    }
    let null = fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| format!("can't open /dev/null: {}", reason(&error)))?;
    for stream in 0..=2 {
        // SAFETY: both are open file descriptors; the standard streams stay open throughout.
        if unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), stream) } == -1 {
            return Err(failed("dup2"));
        }
    }
    Ok(())
}

/// The file with the process's id, removed when this is dropped.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Written when the configuration asks for it or the process is in the background. A failure
    /// is only logged, as with Redis.
    pub fn write(config: &Config) -> Option<PidFile> {
        let path = match config.pidfile.is_empty() {
            false => config.pidfile.as_path(),
            true if config.daemonize => Path::new(PID_FILE),
            true => return None,
        };
        if let Err(error) = fs::write(path, format!("{}\n", std::process::id())) {
            crate::log_warning!("Failed to write PID file {}: {}", path.display(), reason(&error));
            return None;
        }
        // `dir` may change before the end.
        Some(PidFile(std::path::absolute(path).unwrap_or_else(|_| path.to_owned())))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        crate::log_notice!("Removing the pid file.");
        let _ = fs::remove_file(&self.0);
    }
}

/// Who supervises the server.
pub struct Supervisor {
    /// Of systemd.
    socket: Option<OsString>,
}

impl Supervisor {
    pub fn find(config: &Config) -> Supervisor {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        let socket = match config.supervised {
            Supervised::No => None,
            Supervised::Upstart => {
                crate::log_warning!("supervised upstart has no effect: upstart is not supported");
                None
            }
            Supervised::Auto => socket,
            Supervised::Systemd => {
                if socket.is_none() {
                    crate::log_warning!(
                        "systemd supervision requested or auto-detected, but NOTIFY_SOCKET not set"
                    );
                }
                socket
            }
        };
        Supervisor { socket }
    }

    /// As INFO names it.
    pub fn name(&self) -> &'static str {
        if self.socket.is_some() { "systemd" } else { "no" }
    }

    /// Tells it something, such as `READY=1`.
    pub fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            crate::log_warning!("Could not notify systemd: {}", reason(&error));
        }
    }
}

/// One datagram to a socket whose name starts with `/`, or with `@` if it is in no file system.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(state.as_bytes(), &address).map(|_| ())
}
