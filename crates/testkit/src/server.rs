//! A server process under test: started on a free loopback port, ended by its pid.
//!
//! Works for `luar` and for `redis-server` alike, since both take the same arguments. A
//! server's files and log live in a directory of its own, removed when it is dropped.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::poll;
use crate::port::free_port;
use crate::value::Value;

/// How long a server may take until it answers its first PING.
const START_PATIENCE: Duration = Duration::from_secs(20);

static STARTED: AtomicUsize = AtomicUsize::new(0);

pub struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
    binary: PathBuf,
    /// All of them, the port's among them.
    args: Vec<String>,
}

impl Server {
    /// Starts `binary` with `args` after those every test wants: a free port on loopback, no
    /// persistence, DEBUG allowed. A configuration file may be the first argument. Returns once
    /// the server answers.
    pub fn start<A: AsRef<str>>(binary: &Path, args: &[A]) -> io::Result<Server> {
        // Another process can take the free port before the server binds it: then try again.
        let mut last = None;
        for _ in 0..5 {
            match Server::try_start(binary, args) {
                Ok(server) => return Ok(server),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no free port")))
    }

    fn try_start<A: AsRef<str>>(binary: &Path, args: &[A]) -> io::Result<Server> {
        let port = free_port()?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("luar-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let is_file = |arg: &&A| !arg.as_ref().starts_with("--");
        let (config, own) = args.split_at(args.iter().take(1).filter(is_file).count());
        let port_text = port.to_string();
        let directory_text = directory.to_string_lossy();
        let common = ["--port", &port_text, "--bind", "127.0.0.1", "--save", ""];
        let common = [&common[..], &["--dir", &directory_text, "--enable-debug-command", "yes"]];
        let config = config.iter().map(AsRef::as_ref);
        let all = config.chain(common.concat()).chain(own.iter().map(AsRef::as_ref));
        let args: Vec<String> = all.map(str::to_owned).collect();
        let child = spawn(binary, &args, &directory)?;
        let mut server = Server { child, directory, port, binary: binary.to_owned(), args };
        server.wait_ready()?;
        Ok(server)
    }

    /// Kills the process, as a crash would end it.
    pub fn crash(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again after a crash: the same arguments, in the same directory. Returns once it
    /// has loaded what is there and answers.
    pub fn restart(&mut self) -> io::Result<()> {
        self.child = spawn(&self.binary, &self.args, &self.directory)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> io::Result<()> {
        let address = self.address();
        let outcome = poll(START_PATIENCE, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(status));
            }
            // Whoever answers, be it with an error that asks for a password, is up.
            let reply = Client::connect(&address).ok()?.call(&["PING"]).ok()?;
            let loading = matches!(&reply, Value::Error(text) if text.starts_with(b"LOADING"));
            (!loading).then_some(Ok(()))
        });
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => {
                let log = self.log();
                let kind = if log.contains("in use") {
                    io::ErrorKind::AddrInUse
                } else {
                    io::ErrorKind::Other
                };
                Err(io::Error::new(kind, format!("server ended at once ({status}):\n{log}")))
            }
            None => Err(io::Error::other(format!("server does not answer:\n{}", self.log()))),
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory the server runs in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.address())
    }

    /// What the server wrote to its log so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Resident memory in bytes, as the kernel counts it.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kibibytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
            .ok_or_else(|| io::Error::other("no VmRSS line"))?;
        Ok(kibibytes * 1024)
    }
}

fn spawn(binary: &Path, args: &[String], directory: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", binary.display())))
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
