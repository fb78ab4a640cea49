//! Listening sockets, and what a connection goes through when it is accepted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::Config;
use crate::connection::Stream;
use crate::server::Server;
use crate::tls::{self, TlsStream};

/// What is spoken over TCP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Plain,
    Tls,
}

enum Listener {
    /// With the address that was asked for.
    Tcp(SocketAddr, Layer, TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(_, _, listener) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    fn deregister(&mut self, registry: &Registry) {
        // Fails only when it was not registered.
        let _ = match self {
            Listener::Tcp(_, _, listener) => registry.deregister(listener),
            Listener::Unix(listener) => registry.deregister(listener),
        };
    }

    fn is_on(&self, wanted: SocketAddr, spoken: Layer) -> bool {
        matches!(self, Listener::Tcp(address, layer, _) if (*address, *layer) == (wanted, spoken))
    }
}

/// Most sockets to listen on; each has a token of its own.
pub const LISTENERS_MAX: usize = 64;

/// The listening sockets: one worker polls them all, CONFIG SET replaces some.
///
/// Thread safety: two locks, under which no other is taken.
pub struct Listeners {
    /// Of the worker that accepts.
    registry: Registry,
    first_token: usize,
    slots: Mutex<[Option<Listener>; LISTENERS_MAX]>,
    /// What new TLS sessions go by.
    tls: Mutex<Option<Arc<ServerConfig>>>,
}

impl Listeners {
    /// Opens every address of `bind` and the Unix socket. The error says which one failed.
    pub fn open(
        config: &Config,
        registry: Registry,
        first_token: usize,
    ) -> Result<Listeners, String> {
        let slots = Mutex::new([const { None }; LISTENERS_MAX]);
        let listeners = Listeners { registry, first_token, slots, tls: Mutex::new(None) };
        listeners.configure_tls(config)?;
        listeners.listen(config)?;
        if !config.unixsocket.is_empty() {
            listeners.add(&mut *listeners.slots.lock(), Listener::Unix(bind_unix(config)?))?;
        }
        if listeners.slots.lock().iter().all(Option::is_none) {
            return Err("nothing to listen on: no port, no tls-port, no unixsocket".into());
        }
        Ok(listeners)
    }

    /// Reads certificates and keys, if there is a port for TLS. Connections that are there keep
    /// theirs. After an error all is as before.
    pub fn configure_tls(&self, config: &Config) -> Result<(), String> {
        if config.tls_port != 0 {
            let fresh = tls::server_config(config)?;
            *self.tls.lock() = Some(fresh);
        }
        Ok(())
    }

    /// Listens on the addresses of the configuration and on no others. After an error some of
    /// them may be missing.
    pub fn listen(&self, config: &Config) -> Result<(), String> {
        let wanted = addresses_of(config)?;
        let mut slots = self.slots.lock();
        for slot in slots.iter_mut() {
            let Some(Listener::Tcp(address, layer, _)) = slot else { continue };
            if !wanted.iter().any(|wanted| (wanted.address, wanted.layer) == (*address, *layer))
                && let Some(mut listener) = slot.take()
            {
                listener.deregister(&self.registry);
            }
        }
        for Wanted { address, layer, is_optional } in wanted {
            if slots.iter().flatten().any(|listener| listener.is_on(address, layer)) {
                continue;
            }
            match bind_tcp(address, config.tcp_backlog) {
                Ok(listener) => self.add(&mut *slots, Listener::Tcp(address, layer, listener))?,
                Err(error)
                    if is_optional
                        && matches!(
                            error.kind(),
                            io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
                        ) => {}
                Err(error) => return Err(format!("could not listen on {address}: {error}")),
            }
        }
        Ok(())
    }

    fn add(&self, slots: &mut [Option<Listener>], mut listener: Listener) -> Result<(), String> {
        let free = slots.iter().position(Option::is_none);
        let index = free.ok_or("too many addresses to listen on")?;
        let token = Token(self.first_token + index);
        listener
            .register(&self.registry, token)
            .map_err(|error| format!("could not poll a listening socket: {error}"))?;
        slots[index] = Some(listener);
        Ok(())
    }

    /// Accepts a connection from a listener by its token. One that was closed has nobody waiting.
    pub fn accept(&self, token: Token) -> io::Result<Stream> {
        let (layer, stream) = match &self.slots.lock()[token.0 - self.first_token] {
            Some(Listener::Tcp(_, layer, listener)) => (*layer, listener.accept()?.0),
            Some(Listener::Unix(listener)) => return Ok(Stream::Unix(listener.accept()?.0)),
            None => return Err(io::ErrorKind::WouldBlock.into()),
        };
        let config = self.tls.lock().clone();
        match (layer, config) {
            (Layer::Tls, Some(config)) => {
                Ok(Stream::Tls(Box::new(TlsStream::new(stream, config)?)))
            }
            // The port for TLS is opened only with a configuration.
            (Layer::Tls, None) => Err(io::Error::other("TLS is not configured")),
            (Layer::Plain, _) => Ok(Stream::Tcp(stream)),
        }
    }
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Where to listen.
struct Wanted {
    address: SocketAddr,
    layer: Layer,
    /// The machine may not have such an address.
    is_optional: bool,
}

/// The addresses of `bind` with both ports.
fn addresses_of(config: &Config) -> Result<Vec<Wanted>, String> {
    let ports = [(config.port, Layer::Plain), (config.tls_port, Layer::Tls)];
    let mut all = Vec::new();
    for (port, layer) in ports.into_iter().filter(|(port, _)| *port != 0) {
        for name in config.bind.iter() {
            let name = String::from_utf8_lossy(name);
            let (is_optional, host) = match name.strip_prefix('-') {
                Some(host) => (true, host),
                None => (false, &*name),
            };
            let address: Result<IpAddr, _> = match host {
                "*" => Ok(IpAddr::from([0, 0, 0, 0])),
                "::*" => Ok(IpAddr::from([0u16; 8])),
                "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
                host => host.parse(),
            };
            let address =
                address.map_err(|_| format!("bind address '{host}' is not an IP address"))?;
            all.push(Wanted { address: SocketAddr::new(address, port), layer, is_optional });
        }
    }
    Ok(all)
}

fn bind_unix(config: &Config) -> Result<UnixListener, String> {
    let path = config.unixsocket.as_path();
    let failed = |error: io::Error| format!("could not listen on {}: {error}", path.display());
    // A socket that a server left behind is in the way. Other files are somebody's.
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    if config.unixsocketperm != 0 {
        let permissions = std::fs::Permissions::from_mode(config.unixsocketperm);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    Ok(listener)
}

/// Remote and local address of a connection as CLIENT LIST shows them.
pub fn addresses(stream: &Stream) -> (String, String) {
    if let Stream::Unix(unix) = stream {
        let path = unix.local_addr().ok();
        let path = path.as_ref().and_then(|address| address.as_pathname());
        let text = format!("{}:0", path.map_or_else(String::new, |p| p.display().to_string()));
        return (text.clone(), text);
    }
    let text = |address: Option<io::Result<SocketAddr>>| match address {
        Some(Ok(address)) => address.to_string(),
        _ => "?:0".into(),
    };
    let tcp = stream.tcp();
    (text(tcp.map(|tcp| tcp.peer_addr())), text(tcp.map(|tcp| tcp.local_addr())))
}

/// Why a connection is not served: an error reply to send before closing it.
pub fn refusal(server: &Server, config: &Config, stream: &Stream) -> Option<&'static str> {
    if server.connected.load(std::sync::atomic::Ordering::Relaxed) >= config.maxclients as usize {
        return Some("-ERR max number of clients reached\r\n");
    }
    // Before the handshake nothing could be said to it.
    if stream.is_opening() { None } else { denial(server, config, stream) }
}

/// Why a connection that can be talked to is not served.
pub fn denial(server: &Server, config: &Config, stream: &Stream) -> Option<&'static str> {
    let tcp = stream.tcp()?;
    let is_local = tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    if config.protected_mode && server.acl.default_user().rules().is_nopass && !is_local {
        return Some(
            "-DENIED Luar runs in protected mode and has no password, so it only serves this \
             machine. Set requirepass, or turn protected-mode off if every network that reaches \
             this port is trusted.\r\n",
        );
    }
    None
}

/// Socket options of a served connection. None of them is worth refusing it.
pub fn tune(stream: &Stream, config: &Config) {
    let Some(tcp) = stream.tcp() else { return };
    let _ = tcp.set_nodelay(true);
    if config.tcp_keepalive_seconds > 0 {
        let period = Duration::from_secs(u64::from(config.tcp_keepalive_seconds));
        let keepalive = TcpKeepalive::new()
            .with_time(period)
            .with_interval((period / 3).max(Duration::from_secs(1)))
            .with_retries(3);
        // SAFETY: the stream is open for as long as the borrow lasts.
        let fd = unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) };
        let _ = SockRef::from(&fd).set_tcp_keepalive(&keepalive);
    }
}
