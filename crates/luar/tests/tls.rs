//! TLS from end to end: certificates made here, the server's process, a client of another library
//! and the real redis-cli.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use testkit::client::{Client, Transport};
use testkit::port::free_port;
use testkit::server::Server;
use testkit::value::Value;
use testkit::{info, poll};

const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate and its key, in files.
#[derive(Clone)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let found = CertificateDer::pem_file_iter(&self.certificate).expect("a file");
        found.map(|certificate| certificate.expect("a certificate")).collect()
    }
}

/// Who signs certificates.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    fn new() -> Authority {
        let directory = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = params.self_signed(&key).expect("a certificate");
        let certificate = directory.path().join("ca.crt");
        fs::write(&certificate, signed.pem()).expect("written");
        Authority { issuer: Issuer::new(params, key), certificate, directory }
    }

    fn path(&self) -> &str {
        self.certificate.to_str().expect("plain text")
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, year_end: i32) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year_end, 1, 1);
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |end: &str| self.directory.path().join(format!("{name}.{end}"));
        let identity = Identity { certificate: path("crt"), key: path("key") };
        fs::write(&identity.certificate, signed.pem()).expect("written");
        fs::write(&identity.key, key.serialize_pem()).expect("written");
        identity
    }

    fn server(&self) -> Identity {
        self.sign("server", ExtendedKeyUsagePurpose::ServerAuth, 2090)
    }

    fn client(&self) -> Identity {
        self.sign("client", ExtendedKeyUsagePurpose::ClientAuth, 2090)
    }

    /// What a client of this authority's servers goes by.
    fn config(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&self.certificate).expect("a certificate");
        roots.add(certificate).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match identity {
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
                builder.with_client_auth_cert(identity.certificates(), key).expect("an identity")
            }
            None => builder.with_no_client_auth(),
        })
    }
}

struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for Tls {
    fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}

/// A connection with its handshake done, as far as this side can tell.
fn connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Tls(stream))
}

/// A PING with its reply. With TLS 1.3 a server that does not want a client says so here.
fn ping(port: u16, config: &Arc<ClientConfig>) -> io::Result<String> {
    let mut client = Client::over(connect(port, config)?);
    client.call(&["PING"]).map(|reply| reply.to_talk()).map_err(io::Error::other)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("plain text")
}

struct Secured {
    server: Server,
    port: u16,
    authority: Authority,
}

impl Secured {
    fn start(args: &[&str]) -> Secured {
        let authority = Authority::new();
        let identity = authority.server();
        let port = free_port().expect("a port");
        let number = port.to_string();
        let mut all = vec!["--tls-port", &number, "--tls-cert-file", text(&identity.certificate)];
        all.extend(["--tls-key-file", text(&identity.key), "--tls-ca-cert-file", authority.path()]);
        all.extend(args);
        let server = start(&all);
        Secured { server, port, authority }
    }

    fn connect(&self) -> Client {
        Client::over(connect(self.port, &self.authority.config(None)).expect("a connection"))
    }

    /// A field of INFO, over the plain port.
    fn info(&self, field: &str) -> i64 {
        let mut client = self.server.connect().expect("a connection");
        info::number(&mut client, field).expect("a number")
    }

    fn wait_for_log(&self, line: &str) {
        let found = poll(PATIENCE, || self.server.log().contains(line).then_some(()));
        assert!(found.is_some(), "no '{line}' in\n{}", self.server.log());
    }

    fn cli(&self, args: &[&str]) -> Output {
        let port = self.port.to_string();
        let mut command = Command::new("redis-cli");
        command.args([
            "-p",
            &port,
            "--tls",
            "--cacert",
            self.authority.path(),
            "--sni",
            "localhost",
        ]);
        command.args(args).output().expect("redis-cli runs")
    }
}

fn start(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), args).expect("the server starts")
}

fn call(client: &mut Client, args: &[&str]) -> String {
    client.call(args).expect("a reply").to_talk()
}

const ANYBODY: [&str; 2] = ["--tls-auth-clients", "no"];

#[test]
fn requests_come_in_any_pieces() {
    let secured = Secured::start(&["--tls-auth-clients", "no", "--workers", "1"]);
    let mut client = secured.connect();
    assert_eq!(call(&mut client, &["SET", "key", "value"]), "+OK");

    let many: Vec<Vec<String>> = (0..1000)
        .map(|number| vec!["SET".into(), format!("key:{number}"), "x".repeat(number % 100 * 10)])
        .collect();
    let replies = client.pipeline(&many).expect("replies");
    assert!(replies.iter().all(|reply| reply.to_talk() == "+OK"));
    let many: Vec<Vec<String>> =
        (0..1000).map(|number| vec!["STRLEN".into(), format!("key:{number}")]).collect();
    let replies = client.pipeline(&many).expect("replies");
    for (number, reply) in replies.iter().enumerate() {
        assert_eq!(reply.to_talk(), format!(":{}", number % 100 * 10));
    }

    // A record for each byte, and then records for many requests.
    for byte in b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n" {
        client.send_raw(&[*byte]).expect("sent");
    }
    assert_eq!(client.read(PATIENCE).expect("a reply").to_talk(), "\"value\"");
    client.send_raw(&b"PING\r\n".repeat(20_000)).expect("sent");
    for _ in 0..20_000 {
        assert_eq!(client.read(PATIENCE).expect("a reply").to_talk(), "+PONG");
    }
}

#[test]
fn values_of_a_hundred_megabytes_come_through() {
    let secured = Secured::start(&ANYBODY);
    let mut client = secured.connect();
    client.patience = 2 * PATIENCE;
    let mut value = vec![0_u8; 100 << 20];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed).fill(&mut value);
    let set = client.call(&[&b"SET"[..], b"big", &value]).expect("a reply");
    assert_eq!(set.to_talk(), "+OK");
    // Several at once, so that the server has to wait until they are taken.
    client.send(&["GET", "big"]).expect("sent");
    client.send(&["GET", "big"]).expect("sent");
    client.send(&["PING"]).expect("sent");
    for _ in 0..2 {
        let Value::Bulk(reply) = client.read(2 * PATIENCE).expect("a reply") else {
            panic!("not a bulk");
        };
        assert!(reply == value, "seed {seed}");
    }
    assert_eq!(client.read(PATIENCE).expect("a reply").to_talk(), "+PONG");
}

#[test]
fn messages_are_pushed() {
    let secured = Secured::start(&["--tls-auth-clients", "no", "--workers", "2"]);
    let (mut subscriber, mut monitor) = (secured.connect(), secured.connect());
    assert_eq!(call(&mut subscriber, &["SUBSCRIBE", "news"]), "[\"subscribe\" \"news\" :1]");
    assert_eq!(call(&mut monitor, &["MONITOR"]), "+OK");
    let mut publisher = secured.server.connect().expect("a connection");
    for number in 0..100 {
        let text = number.to_string();
        assert_eq!(call(&mut publisher, &["PUBLISH", "news", &text]), ":1");
        let message = subscriber.read(PATIENCE).expect("a message").to_talk();
        assert_eq!(message, format!("[\"message\" \"news\" \"{number}\"]"));
        let line = monitor.read(PATIENCE).expect("a line").to_talk();
        assert!(line.ends_with(&format!("\"PUBLISH\" \"news\" \"{number}\"")), "{line}");
    }
}

#[test]
fn clients_have_to_show_who_they_are() {
    let secured = Secured::start(&["--loglevel", "notice"]);
    let (authority, other) = (&secured.authority, Authority::new());
    let friend = authority.config(Some(&authority.client()));
    let stranger = authority.config(Some(&other.client()));
    let expired = authority.sign("expired", ExtendedKeyUsagePurpose::ClientAuth, 2021);
    let expired = authority.config(Some(&expired));
    let server = authority.sign("misused", ExtendedKeyUsagePurpose::ServerAuth, 2090);
    let misused = authority.config(Some(&server));
    let nobody = authority.config(None);
    let received = secured.info("total_connections_received");

    assert_eq!(ping(secured.port, &friend).expect("a reply"), "+PONG");
    for config in [&stranger, &expired, &misused, &nobody] {
        assert!(ping(secured.port, config).is_err());
    }
    secured.wait_for_log("Error accepting a client connection: ");
    let log = secured.server.log();
    assert_eq!(log.matches("Error accepting a client connection: ").count(), 4, "{log}");
    assert!(log.contains("(addr=127.0.0.1:"), "{log}");
    // The friend, and this question; the others never got so far.
    assert_eq!(secured.info("total_connections_received"), received + 2);

    let mut admin = secured.server.connect().expect("a connection");
    assert_eq!(call(&mut admin, &["CONFIG", "SET", "tls-auth-clients", "optional"]), "+OK");
    for (config, is_welcome) in [(&friend, true), (&nobody, true), (&stranger, false)] {
        assert_eq!(ping(secured.port, config).is_ok(), is_welcome);
    }
    assert_eq!(call(&mut admin, &["CONFIG", "SET", "tls-auth-clients", "no"]), "+OK");
    for config in [&friend, &nobody, &stranger] {
        assert_eq!(ping(secured.port, config).expect("a reply"), "+PONG");
    }
    // Clients look at the server's certificate as well.
    assert!(ping(secured.port, &other.config(None)).is_err());
    // A directory of authorities instead of a file.
    let directory = text(authority.directory.path());
    let settings =
        ["tls-auth-clients", "yes", "tls-ca-cert-file", "", "tls-ca-cert-dir", directory];
    assert_eq!(call(&mut admin, &[&["CONFIG", "SET"], &settings[..]].concat()), "+OK");
    for (config, is_welcome) in [(&friend, true), (&nobody, false), (&stranger, false)] {
        assert_eq!(ping(secured.port, config).is_ok(), is_welcome);
    }
}

#[test]
fn certificates_are_read_again_when_they_are_set() {
    let secured = Secured::start(&ANYBODY);
    let shown = || {
        let tls = connect(secured.port, &secured.authority.config(None)).expect("a connection");
        tls.0.conn.peer_certificates().expect("certificates")[0].to_vec()
    };
    let mut before = secured.connect();
    let first = shown();
    assert_eq!(shown(), first);
    // The same paths with other contents.
    let identity = secured.authority.server();
    assert_eq!(shown(), first);
    let mut admin = secured.server.connect().expect("a connection");
    let path = text(&identity.certificate);
    assert_eq!(call(&mut admin, &["CONFIG", "SET", "tls-cert-file", path]), "+OK");
    let second = shown();
    assert_ne!(second, first);
    assert_eq!(second, identity.certificates()[0].to_vec());
    assert_eq!(call(&mut before, &["PING"]), "+PONG");

    let refused = "-ERR CONFIG SET failed (possibly related to argument 'tls-cert-file') - Unable \
                   to update TLS configuration. Check server logs.";
    for path in ["", "/nowhere", secured.authority.path()] {
        assert_eq!(call(&mut admin, &["CONFIG", "SET", "tls-cert-file", path]), refused);
        assert_eq!(shown(), second);
    }
    for (name, value) in [("tls-protocols", "TLSv1"), ("tls-ciphers", "x"), ("tls-key-file", "")] {
        let reply = call(&mut admin, &["CONFIG", "SET", name, value]);
        assert!(
            reply.ends_with("Unable to update TLS configuration. Check server logs."),
            "{reply}"
        );
    }
    for version in ["TLSv1.2", "TLSv1.3", "tlsv1.2 TLSv1.3"] {
        assert_eq!(call(&mut admin, &["CONFIG", "SET", "tls-protocols", version]), "+OK");
        assert_eq!(shown(), second);
    }
}

#[test]
fn the_ports_come_and_go() {
    let authority = Authority::new();
    let identity = authority.server();
    let server = start(&[]);
    let port = free_port().expect("a port");
    let number = port.to_string();
    let mut admin = server.connect().expect("a connection");
    let refused = call(&mut admin, &["CONFIG", "SET", "tls-port", &number]);
    assert!(
        refused.ends_with("Unable to update TLS configuration. Check server logs."),
        "{refused}"
    );
    assert!(server.log().contains("No tls-cert-file configured!"), "{}", server.log());
    let (certificate, key) = (text(&identity.certificate), text(&identity.key));
    let mut command = vec!["CONFIG", "SET", "tls-cert-file", certificate, "tls-key-file", key];
    command.extend(["tls-port", &number, "tls-auth-clients", "no"]);
    assert_eq!(call(&mut admin, &command), "+OK");

    let config = authority.config(None);
    let mut client = Client::over(connect(port, &config).expect("a connection"));
    assert_eq!(call(&mut client, &["CONFIG", "SET", "port", "0"]), "+OK");
    assert!(TcpStream::connect(server.address()).is_err(), "only TLS is left");
    assert_eq!(ping(port, &config).expect("a reply"), "+PONG");
    let info = call(&mut client, &["INFO", "server"]);
    assert!(info.contains(&format!("tcp_port:{port}")), "{info}");
    assert!(info.contains(&format!("listener2:name=tls,bind=127.0.0.1,port={port}")), "{info}");
    let me = call(&mut client, &["CLIENT", "INFO"]);
    assert!(me.contains(&format!("laddr=127.0.0.1:{port} ")), "{me}");
    let plain = free_port().expect("a port").to_string();
    assert_eq!(call(&mut client, &["CONFIG", "SET", "port", &plain, "tls-port", "0"]), "+OK");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port for TLS is closed");
    assert_eq!(call(&mut client, &["PING"]), "+PONG");
}

#[test]
fn what_is_no_handshake_ends() {
    let secured = Secured::start(&ANYBODY);
    let clients = secured.info("connected_clients");
    // Plain requests, garbage, the first bytes of a handshake and no more, nothing at all.
    for bytes in [&b"PING\r\n"[..], &[0xff; 1000], &[0x16, 3, 1, 1, 0, 1, 0, 0], b""] {
        let mut socket = TcpStream::connect(("127.0.0.1", secured.port)).expect("a connection");
        socket.write_all(bytes).expect("sent");
        drop(socket);
    }
    let gone = poll(PATIENCE, || (secured.info("connected_clients") == clients).then_some(()));
    assert!(gone.is_some(), "connections that were given up are gone");

    // One that is opened and then left alone is closed by the server.
    let began = Instant::now();
    let mut silent = TcpStream::connect(("127.0.0.1", secured.port)).expect("a connection");
    silent.write_all(&[0x16, 3, 1]).expect("sent");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let ended = silent.read(&mut [0; 100]);
    assert!(matches!(ended, Ok(0)), "{ended:?}");
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    secured.wait_for_log("the handshake takes too long");
    assert_eq!(call(&mut secured.connect(), &["PING"]), "+PONG");
}

#[test]
fn connections_that_break_off_leave_nothing() {
    let secured = Secured::start(&["--tls-auth-clients", "no", "--workers", "2"]);
    let clients = secured.info("connected_clients");
    for rounds in 0..50 {
        let mut tls = connect(secured.port, &secured.authority.config(None)).expect("a connection");
        tls.write_all(b"SET k v\r\nGET k\r\nPI").expect("sent");
        if rounds % 2 == 0 {
            tls.0.conn.send_close_notify();
        }
        tls.flush().expect("sent");
        if rounds % 3 == 0 {
            tls.socket().shutdown(std::net::Shutdown::Both).expect("shut down");
        }
    }
    let gone = poll(PATIENCE, || (secured.info("connected_clients") == clients).then_some(()));
    assert!(gone.is_some(), "{} and not {clients}", secured.info("connected_clients"));
}

#[test]
fn redis_cli_talks_tls() {
    let secured = Secured::start(&ANYBODY);
    let stdout = |output: Output| {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).trim().to_owned(), errors)
    };
    let (set, errors) = stdout(secured.cli(&["SET", "k", "v"]));
    assert_eq!(set, "OK", "{errors}");
    assert_eq!(stdout(secured.cli(&["GET", "k"])).0, "v");
    for (version, name) in [("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("TLSv1.3", "")] {
        let mut admin = secured.server.connect().expect("a connection");
        let settings = ["CONFIG", "SET", "tls-protocols", version, "tls-ciphers", name];
        assert_eq!(call(&mut admin, &settings), "+OK");
        assert_eq!(stdout(secured.cli(&["PING"])).0, "PONG", "{version}");
    }
    let script = "return redis.call('GET', KEYS[1])";
    assert_eq!(stdout(secured.cli(&["EVAL", script, "1", "k"])).0, "v");

    let mut command = Command::new("redis-benchmark");
    let port = secured.port.to_string();
    command.args([
        "-p",
        &port,
        "--tls",
        "--cacert",
        secured.authority.path(),
        "--sni",
        "localhost",
    ]);
    command.args(["-t", "set,get", "-n", "20000", "-c", "20", "-P", "16", "-q", "-d", "500"]);
    let (rates, errors) = stdout(command.output().expect("redis-benchmark runs"));
    assert!(rates.contains("GET: ") && !errors.contains("Error"), "{rates}\n{errors}");
}

/// A certificate of version 1 with an encrypted key, as OpenSSL 3.0 writes them.
#[test]
fn keys_may_be_encrypted() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (certificate, key) = (fixtures.join("version-1.crt"), fixtures.join("encrypted.key"));
    let port = free_port().expect("a port").to_string();
    let base = ["--tls-port", &port, "--tls-cert-file", text(&certificate)];
    let base = [&base[..], &["--tls-key-file", text(&key)], &ANYBODY].concat();
    let server = start(&[&base[..], &["--tls-key-file-pass", "open sesame"]].concat());
    let cli = Command::new("redis-cli").args(["-p", &port, "--tls", "--insecure", "PING"]).output();
    assert_eq!(cli.expect("redis-cli runs").stdout, b"PONG\n");
    drop(server);
    let refused = refused(&[&base[..], &["--tls-key-file-pass", "close sesame"]].concat());
    assert!(refused.contains("it cannot be decrypted with tls-key-file-pass"), "{refused}");
}

/// What the server says that does not start.
fn refused(args: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_luar"))
        .args(["--port", "0", "--save", "", "--dir", text(directory.path())])
        .args(args)
        .output()
        .expect("the server runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_missing_is_named_at_start() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (identity, stranger) = (authority.server(), other.server());
    let (certificate, key) = (text(&identity.certificate), text(&identity.key));
    let port = ["--tls-port", "1"];
    let with = |args: &[&str]| refused(&[&port, args].concat());
    assert!(with(&[]).contains("No tls-cert-file configured!"));
    assert!(with(&["--tls-cert-file", certificate]).contains("No tls-key-file configured!"));
    let pair = ["--tls-cert-file", certificate, "--tls-key-file", key];
    assert!(with(&pair).contains("Either tls-ca-cert-file or tls-ca-cert-dir must be specified"));
    let wrong = ["--tls-cert-file", certificate, "--tls-key-file", text(&stranger.key)];
    assert!(with(&wrong).contains("it is not the key of "));
    let wrong = ["--tls-cert-file", key, "--tls-key-file", key];
    assert!(with(&wrong).contains("Failed to load certificate: "));
    let wrong = ["--tls-cert-file", certificate, "--tls-key-file", "/nowhere"];
    assert!(
        with(&wrong).contains("Failed to load private key: /nowhere: No such file or directory")
    );
    let wrong = [&pair[..], &["--tls-ca-cert-file", key]].concat();
    assert!(with(&wrong).contains("Failed to configure CA certificate(s) file/directory: "));
}
