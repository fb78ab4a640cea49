//! A server under measurement: started on a free loopback port, asked for its memory, its CPU time
//! read from /proc, stopped when dropped.
//!
//! Knows no workloads. Called by the bench's main and its measurements.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::port::free_port;

use super::wire;

/// It may have to load gigabytes.
const START_DEADLINE: Duration = Duration::from_secs(120);
const REPLY_DEADLINE: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Clone)]
pub struct Config {
    /// What the report calls it.
    pub name: String,
    pub binary: PathBuf,
    /// Luar's `--workers`; `None` leaves the server's default. Redis has no such option.
    pub workers: Option<usize>,
    /// What else it is to be given.
    pub args: Vec<String>,
}

pub struct Server {
    pub name: String,
    pub port: u16,
    process: Child,
    /// Removed once the process is gone.
    _directory: Option<Directory>,
}

/// A directory for a server's files, removed when dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Directory, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("luar-bench-{}-{number}", process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Directory(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It is in the system's directory for such files: what is left there does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// True when the binary is redis-server or a fork that answers like it.
pub fn is_redis(binary: &Path) -> Result<bool, String> {
    Ok(version(binary)?.starts_with("Redis server"))
}

/// The first line of `--version`.
pub fn version(binary: &Path) -> Result<String, String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

impl Server {
    /// In a directory of its own.
    ///
    /// # Errors
    /// The server does not start or does not answer in time.
    pub fn start(config: &Config) -> Result<Server, String> {
        let directory = Directory::new()?;
        let mut server = Server::start_in(&directory, config)?;
        server._directory = Some(directory);
        Ok(server)
    }

    /// # Errors
    /// The server does not start or does not answer in time.
    pub fn start_in(directory: &Directory, config: &Config) -> Result<Server, String> {
        let port = free_port().map_err(|error| error.to_string())?;
        let mut command = Command::new(&config.binary);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory.path());
        if let Some(workers) = config.workers {
            command.args(["--workers", &workers.to_string()]);
        }
        command.args(&config.args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", config.binary.display()))?;
        let mut server = Server { name: config.name.clone(), port, process, _directory: None };
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(mut client) = server.client()
                && client.call(&[b"PING"]).is_ok_and(|reply| reply.starts_with(b"+PONG"))
            {
                return Ok(server);
            }
            if let Ok(Some(status)) = server.process.try_wait() {
                return Err(format!("{} ended at once: {status}", config.binary.display()));
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not answer", config.binary.display()));
            }
            // The pause between two looks: whether it answers is the condition, see above.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn client(&self) -> Result<Client, String> {
        Client::connect(self.port)
    }

    /// CPU time of all threads, in nanoseconds. Exact while the server is idle: the scheduler
    /// updates a running thread's account only at its ticks.
    pub fn cpu_ns(&self) -> Result<u64, String> {
        let tasks = format!("/proc/{}/task", self.process.id());
        let entries = fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
        let mut sum_ns = 0;
        for entry in entries.flatten() {
            // A thread may end between the listing and the reading.
            if let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) {
                sum_ns += first_number(&text).ok_or_else(|| format!("{tasks}: {text}"))?;
            }
        }
        Ok(sum_ns)
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.process.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| first_number(line.trim_start()));
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| format!("no VmRSS in {path}"))
    }

    /// What INFO reports as used_memory.
    pub fn used_memory_bytes(&self) -> Result<u64, String> {
        let reply = self.client()?.call(&[b"INFO", b"memory"])?;
        let text = String::from_utf8_lossy(&reply);
        text.lines()
            .find_map(|line| line.strip_prefix("used_memory:"))
            .and_then(first_number)
            .ok_or_else(|| "INFO memory without used_memory".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to save and nobody to tell if it is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn first_number(text: &str) -> Option<u64> {
    let digits = text.trim_start().split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// CPU time of the calling thread in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    first_number(&text).unwrap_or(0)
}

/// A blocking connection for setting up and asking; never part of a measurement.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> Result<Client, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(REPLY_DEADLINE)).map_err(|error| error.to_string())?;
        Ok(Client { stream, read: Vec::new() })
    }

    /// Sends one command and returns the raw reply.
    ///
    /// # Errors
    /// The connection fails, or the reply is an error.
    pub fn call(&mut self, args: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut request = Vec::new();
        wire::encode(&mut request, args);
        self.exchange(&request, 1)
    }

    /// Sends encoded commands and returns the last of `replies` replies.
    ///
    /// # Errors
    /// The connection fails, or any reply is an error.
    pub fn exchange(&mut self, request: &[u8], replies: usize) -> Result<Vec<u8>, String> {
        self.stream.write_all(request).map_err(|error| error.to_string())?;
        let mut last = Vec::new();
        let mut start = 0;
        for _ in 0..replies {
            let end = loop {
                if let Some(end) = wire::reply_end(&self.read, start)? {
                    break end;
                }
                let mut chunk = [0; 65536];
                let count = self.stream.read(&mut chunk).map_err(|error| error.to_string())?;
                if count == 0 {
                    return Err("the server closed the connection".to_owned());
                }
                self.read.extend_from_slice(&chunk[..count]);
            };
            if self.read[start] == b'-' {
                return Err(String::from_utf8_lossy(&self.read[start..end]).trim_end().to_owned());
            }
            last.clear();
            last.extend_from_slice(&self.read[start..end]);
            start = end;
        }
        self.read.drain(..start);
        Ok(last)
    }
}
