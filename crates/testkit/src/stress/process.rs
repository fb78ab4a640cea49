//! The binary as a process: how it starts, what it refuses, how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::{Arena, Verdict, call, connect, expect};
use crate::client::Client;
use crate::poll;
use crate::value::Value;

/// A directory for one test, removed afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Scratch, String> {
        let path = std::env::temp_dir().join(format!("luar-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        Ok(Scratch(path))
    }

    fn file(&self, name: &str, text: &str) -> Result<String, String> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(|error| error.to_string())?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the binary to its end, which must come by itself.
fn ended(binary: &Path, args: &[&str]) -> Result<(Output, String), String> {
    let mut child = Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let over = poll(Duration::from_secs(10), || child.try_wait().ok().flatten());
    if over.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    expect(over.is_some(), || format!("{args:?} went on running"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output, text))
}

fn refused(arena: &Arena, args: &[&str], words: &[&str]) -> Result<(), String> {
    let (output, text) = ended(&arena.binary, args)?;
    expect(output.status.code() == Some(1), || format!("{args:?}: {}: {text}", output.status))?;
    if arena.oracle {
        return Ok(());
    }
    for word in words {
        expect(text.contains(word), || format!("{args:?} does not say {word:?}: {text}"))?;
    }
    expect(!text.contains("panicked"), || text.clone())
}

/// Bad arguments and files are refused with one clear line and status 1.
pub fn refuses(arena: &Arena) -> Verdict {
    let (output, text) = ended(&arena.binary, &["--version"])?;
    expect(output.status.success() && text.contains("v="), || text.clone())?;
    let (output, text) = ended(&arena.binary, &["--help"])?;
    expect(output.status.success() || arena.oracle, || text.clone())?;
    expect(text.contains("redis.conf") || text.to_lowercase().contains("usage"), || text.clone())?;

    let scratch = Scratch::new("refuses")?;
    let unknown = scratch.file("unknown.conf", "port 0\n# fine so far\nnosuchdirective 1\n")?;
    refused(arena, &[&unknown], &["unknown.conf", "3", "nosuchdirective"])?;
    let bad = scratch.file("bad.conf", "port 0\nmaxmemory lots\n")?;
    refused(arena, &[&bad], &["bad.conf", "2", "maxmemory"])?;
    let missing = scratch.0.join("missing.conf").to_string_lossy().into_owned();
    refused(arena, &[&missing], &["missing.conf"])?;
    refused(arena, &["--port", "0", "--nosuch", "1"], &["nosuch"])?;
    refused(arena, &["--port", "abc"], &["port"])?;

    let server = arena.start(1, &[])?;
    let port = server.port().to_string();
    refused(arena, &["--port", &port, "--bind", "127.0.0.1"], &["in use", &port])?;
    call(&mut connect(&server)?, &["PING"])?;
    Ok("seven kinds of bad start".to_owned())
}

/// A file, arguments over it, a Unix socket, and a clean end by signal.
pub fn lives_and_ends(arena: &Arena) -> Verdict {
    for signal in ["TERM", "INT"] {
        let scratch = Scratch::new("lives")?;
        let socket = scratch.0.join("luar.sock").to_string_lossy().into_owned();
        let config = scratch.file(
            "redis.conf",
            &format!(
                "# a comment\nmaxmemory 64mb\nmaxmemory-policy allkeys-lru\n\
                 unixsocket \"{socket}\"\nunixsocketperm 700\ntimeout 30\n"
            ),
        )?;
        let mut server = arena.start_with_config(&config, &["--timeout", "77"])?;
        let mut client = connect(&server)?;
        for (name, value) in
            [("maxmemory", "67108864"), ("maxmemory-policy", "allkeys-lru"), ("timeout", "77")]
        {
            let reply = call(&mut client, &["CONFIG", "GET", name])?;
            let got = reply.elements().and_then(|items| items.get(1)).and_then(Value::text);
            expect(got.as_deref() == Some(value), || format!("{name} is {got:?}"))?;
        }
        let mut local = Client::connect(&socket).map_err(|error| format!("{socket}: {error}"))?;
        call(&mut local, &["SET", "k", "through the socket"])?;
        let value = call(&mut client, &["GET", "k"])?;
        expect(value == Value::bulk("through the socket"), || value.to_talk())?;
        // A blocked client must not keep the server from ending.
        let mut blocked = connect(&server)?;
        blocked.send(&["BLPOP", "never", "0"]).map_err(|error| error.to_string())?;

        let log = server.log();
        expect(log.contains("Ready to accept connections"), || format!("the log: {log}"))?;
        let pid = server.pid().to_string();
        expect(log.contains(&pid), || format!("no pid {pid} in the log: {log}"))?;
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        expect(sent.is_ok_and(|status| status.success()), || "kill failed".to_owned())?;
        let status = poll(Duration::from_secs(10), || server.ended())
            .ok_or_else(|| format!("still running after SIG{signal}: {}", server.log()))?;
        expect(status.code() == Some(0), || format!("SIG{signal}: {status}: {}", server.log()))?;
        expect(!Path::new(&socket).exists(), || format!("{socket} was left behind"))?;
    }
    Ok("SIGTERM and SIGINT".to_owned())
}

/// SHUTDOWN ends it too, and one with a bad argument does not.
pub fn shutdown(arena: &Arena) -> Verdict {
    let mut server = arena.start(2, &[])?;
    let mut client = connect(&server)?;
    let reply = client.call(&["SHUTDOWN", "NOSUCH"]).map_err(|error| error.to_string())?;
    expect(reply.is_error(), || reply.to_talk())?;
    call(&mut client, &["PING"])?;
    client.send(&["SHUTDOWN", "NOSAVE"]).map_err(|error| error.to_string())?;
    let status = poll(Duration::from_secs(10), || server.ended());
    expect(status.is_some_and(|status| status.code() == Some(0)), || format!("{status:?}"))?;
    Ok("SHUTDOWN NOSAVE".to_owned())
}
