//! The binary as a process: how it starts, what it refuses, how it ends.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::{Arena, Verdict, call, connect, expect};
use crate::client::Client;
use crate::poll;
use crate::port;
use crate::server::Server;
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

        // It is said just after the first client may be served.
        let ready = || server.log().contains("Ready to accept connections").then_some(());
        poll(Duration::from_secs(10), ready).ok_or_else(|| format!("log: {}", server.log()))?;
        let log = server.log();
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

fn terminate(server: &mut Server) -> Result<(), String> {
    let sent = Command::new("kill").arg(server.pid().to_string()).status();
    expect(sent.is_ok_and(|status| status.success()), || "kill failed".to_owned())?;
    let status = poll(Duration::from_secs(10), || server.ended());
    expect(status.is_some_and(|status| status.code() == Some(0)), || format!("{status:?}"))
}

/// Relative paths start from `dir`, which can change; the log can be moved away at any time.
pub fn files(arena: &Arena) -> Verdict {
    let scratch = Scratch::new("files")?;
    let elsewhere = scratch.0.join("elsewhere");
    fs::create_dir_all(&elsewhere).map_err(|error| error.to_string())?;
    let args =
        ["--pidfile", "the.pid", "--logfile", "the.log", "--enable-protected-configs", "yes"];
    let mut server = arena.start(2, &args)?;
    let mut client = connect(&server)?;
    let home = server.directory().canonicalize().map_err(|error| error.to_string())?;
    let current = fs::read_link(format!("/proc/{}/cwd", server.pid()));
    let current = current.map_err(|error| error.to_string())?;
    expect(current == home, || format!("it runs in {}", current.display()))?;
    let written = fs::read_to_string(home.join("the.pid")).unwrap_or_default();
    expect(written == format!("{}\n", server.pid()), || format!("the.pid holds {written:?}"))?;
    let log = fs::read_to_string(home.join("the.log")).unwrap_or_default();
    expect(log.contains("Ready to accept connections"), || format!("the.log: {log}"))?;

    let reply = client.call(&["CONFIG", "SET", "dir", "/no/such/place"]);
    let reply = reply.map_err(|error| error.to_string())?.to_talk();
    let wanted = "-ERR CONFIG SET failed (possibly related to argument 'dir') - \
                  No such file or directory";
    expect(reply == wanted, || reply)?;
    fs::rename(home.join("the.log"), home.join("old.log")).map_err(|error| error.to_string())?;
    if !arena.oracle {
        // Redis would look for its log in the new directory.
        call(&mut client, &["CONFIG", "SET", "dir", &elsewhere.to_string_lossy()])?;
        let current = fs::read_link(format!("/proc/{}/cwd", server.pid()));
        let current = current.map_err(|error| error.to_string())?;
        expect(current == elsewhere, || format!("then it runs in {}", current.display()))?;
    }
    terminate(&mut server)?;
    let log = fs::read_to_string(home.join("the.log")).unwrap_or_default();
    expect(log.contains("bye bye"), || format!("the new the.log: {log}"))?;
    expect(!home.join("the.pid").exists(), || "the pid file is still there".to_owned())?;
    Ok("paths, CONFIG SET dir, a log that is moved".to_owned())
}

fn free_port() -> Result<String, String> {
    port::free_port().map(|port| port.to_string()).map_err(|error| error.to_string())
}

/// Starts in the background by itself, and tells systemd when it is ready.
pub fn supervised(arena: &Arena) -> Verdict {
    let scratch = Scratch::new("supervised")?;
    let place = |name: &str| scratch.0.join(name).to_string_lossy().into_owned();
    let (port, pid_file) = (free_port()?, place("the.pid"));
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", &place("")];
    let background = ["--daemonize", "yes", "--pidfile", &pid_file, "--logfile", &place("log")];
    let (output, text) = ended(&arena.binary, &[&args[..], &background].concat())?;
    expect(output.status.success(), || format!("{}: {text}", output.status))?;
    let mut client = poll(Duration::from_secs(10), || {
        let mut client = Client::connect(&format!("127.0.0.1:{port}")).ok()?;
        client.call(&["PING"]).is_ok_and(|reply| !reply.is_error()).then_some(client)
    })
    .ok_or("nobody answers in the background")?;
    let pid = poll(Duration::from_secs(10), || {
        fs::read_to_string(&pid_file).ok().filter(|text| text.ends_with('\n'))
    })
    .ok_or("no pid file")?;
    let info = call(&mut client, &["INFO", "server"])?.text().unwrap_or_default();
    expect(info.contains(&format!("process_id:{}\r\n", pid.trim())), || info.clone())?;
    expect(info.contains("process_supervised:no\r\n"), || info.clone())?;
    client.send(&["SHUTDOWN", "NOSAVE"]).map_err(|error| error.to_string())?;
    let gone = poll(Duration::from_secs(10), || (!Path::new(&pid_file).exists()).then_some(()));
    expect(gone.is_some(), || "the pid file is still there".to_owned())?;

    let socket = UnixDatagram::bind(place("notify")).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
    let told = |word: &str| -> Result<(), String> {
        let mut buffer = [0; 1000];
        let mut heard = String::new();
        while !heard.contains(word) {
            let count = socket
                .recv(&mut buffer)
                .map_err(|error| format!("systemd never hears {word}, only {heard:?}: {error}"))?;
            heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(())
    };
    for kind in ["systemd", "auto"] {
        let port = free_port()?;
        let mut child = Command::new(&arena.binary)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", &place("")])
            .args(["--supervised", kind])
            .env("NOTIFY_SOCKET", place("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let outcome = told("READY=1").and_then(|()| {
            let mut client = Client::connect(&format!("127.0.0.1:{port}"))
                .map_err(|error| format!("ready, but: {error}"))?;
            let info = call(&mut client, &["INFO", "server"])?.text().unwrap_or_default();
            expect(info.contains("process_supervised:systemd\r\n"), || info.clone())?;
            client.send(&["SHUTDOWN", "NOSAVE"]).map_err(|error| error.to_string())?;
            told("STOPPING=1")
        });
        if outcome.is_err() {
            let _ = child.kill();
        }
        let _ = child.wait();
        outcome?;
    }
    Ok("daemonize, supervised systemd and auto".to_owned())
}

/// All directives that do not come from where the test runs.
fn directives(client: &mut Client) -> Result<Vec<(String, String)>, String> {
    let reply = call(client, &["CONFIG", "GET", "*"])?;
    let texts: Vec<String> =
        reply.elements().unwrap_or_default().iter().filter_map(Value::text).collect();
    let mut pairs: Vec<_> =
        texts.chunks(2).map(|pair| (pair[0].clone(), pair[1..].concat())).collect();
    pairs.retain(|(name, _)| !["port", "dir"].contains(&name.as_str()));
    pairs.sort();
    Ok(pairs)
}

/// CONFIG SET is all or nothing, and REWRITE keeps what a person wrote.
pub fn rewrite(arena: &Arena) -> Verdict {
    let scratch = Scratch::new("rewrite")?;
    let text = "# How we run it\n\nmaxmemory 100mb\n# Clients\ntimeout 30\n\
                client-output-buffer-limit pubsub 16mb 4mb 30\nmaxmemory-policy allkeys-lru\n\
                # The end\n";
    let file = scratch.file("redis.conf", text)?;
    let server = arena.start_with_config(&file, &[])?;
    let mut client = connect(&server)?;

    let taken = server.port().to_string();
    let other = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let occupied = other.local_addr().map_err(|error| error.to_string())?.port().to_string();
    for bad in [["port", occupied.as_str()], ["maxmemory-samples", "0"], ["nosuch", "1"]] {
        let reply = client
            .call(&["CONFIG", "SET", "maxmemory", "5mb", "hz", "77", bad[0], bad[1]])
            .map_err(|error| error.to_string())?;
        expect(reply.is_error(), || format!("{bad:?}: {}", reply.to_talk()))?;
        let now = call(&mut client, &["CONFIG", "GET", "maxmemory", "hz", "port"])?.to_talk();
        let all = now.contains("\"104857600\"") && now.contains("\"10\"") && now.contains(&taken);
        expect(all, || format!("after {bad:?} was refused: {now}"))?;
        call(&mut connect(&server)?, &["PING"])?;
    }
    call(
        &mut client,
        &[
            "CONFIG",
            "SET",
            "maxmemory",
            "200mb",
            "timeout",
            "0",
            "hz",
            "20",
            "requirepass",
            "a \"b",
        ],
    )?;
    call(&mut client, &["CONFIG", "REWRITE"])?;
    let before = directives(&mut client)?;

    let written = fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let lines: Vec<&str> = written.lines().collect();
    let wanted = [
        "# How we run it",
        "",
        "maxmemory 200mb",
        "# Clients",
        "timeout 0",
        "client-output-buffer-limit ",
        "maxmemory-policy allkeys-lru",
        "# The end",
        "# Generated by CONFIG REWRITE",
    ];
    let mut rest = lines.iter();
    for line in wanted {
        let fits = |found: &str| found == line || (line.ends_with(' ') && found.starts_with(line));
        let found = rest.any(|found| fits(found));
        expect(found, || format!("{line:?} is not where it should be in\n{written}"))?;
    }
    expect(lines.contains(&"hz 20"), || written.clone())?;

    // The directory of the first server is in the file, so that one is still there.
    let again = arena.start_with_config(&file, &[])?;
    let mut client = connect(&again)?;
    call(&mut client, &["AUTH", "a \"b"])?;
    let after = directives(&mut client)?;
    expect(before == after, || {
        let changed: Vec<_> = before.iter().filter(|pair| !after.contains(pair)).collect();
        format!("after the restart these are others: {changed:?}\n{written}")
    })?;
    Ok(format!("{} directives", after.len()))
}
