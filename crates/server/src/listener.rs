//! Listening sockets, and what a connection goes through when it is accepted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::Config;
use crate::connection::Stream;
use crate::server::Server;

enum Listener {
    /// With the address that was asked for.
    Tcp(SocketAddr, TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(_, listener) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    fn deregister(&mut self, registry: &Registry) {
        // Fails only when it was not registered.
        let _ = match self {
            Listener::Tcp(_, listener) => registry.deregister(listener),
            Listener::Unix(listener) => registry.deregister(listener),
        };
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(_, listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    fn is_on(&self, wanted: SocketAddr) -> bool {
        matches!(self, Listener::Tcp(address, _) if *address == wanted)
    }
}

/// Most sockets to listen on; each has a token of its own.
pub const LISTENERS_MAX: usize = 64;

/// The listening sockets: one worker polls them all, CONFIG SET replaces some.
///
/// Thread safety: one lock, under which no other is taken.
pub struct Listeners {
    /// Of the worker that accepts.
    registry: Registry,
    first_token: usize,
    slots: Mutex<[Option<Listener>; LISTENERS_MAX]>,
}

impl Listeners {
    /// Opens every address of `bind` and the Unix socket. The error says which one failed.
    pub fn open(
        config: &Config,
        registry: Registry,
        first_token: usize,
    ) -> Result<Listeners, String> {
        let slots = Mutex::new([const { None }; LISTENERS_MAX]);
        let listeners = Listeners { registry, first_token, slots };
        listeners.listen(config)?;
        if !config.unixsocket.is_empty() {
            listeners.add(&mut *listeners.slots.lock(), Listener::Unix(bind_unix(config)?))?;
        }
        if listeners.slots.lock().iter().all(Option::is_none) {
            return Err("nothing to listen on: no port, no unixsocket".into());
        }
        Ok(listeners)
    }

    /// Listens on the addresses of the configuration and on no others. After an error some of
    /// them may be missing.
    pub fn listen(&self, config: &Config) -> Result<(), String> {
        let wanted = addresses_of(config)?;
        let mut slots = self.slots.lock();
        for slot in slots.iter_mut() {
            let Some(Listener::Tcp(address, _)) = slot else { continue };
            if !wanted.iter().any(|(wanted, _)| wanted == address)
                && let Some(mut listener) = slot.take()
            {
                listener.deregister(&self.registry);
            }
        }
        for (address, optional) in wanted {
            if slots.iter().flatten().any(|listener| listener.is_on(address)) {
                continue;
            }
            match bind_tcp(address, config.tcp_backlog) {
                Ok(listener) => self.add(&mut *slots, Listener::Tcp(address, listener))?,
                Err(error)
                    if optional
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
        match &self.slots.lock()[token.0 - self.first_token] {
            Some(listener) => listener.accept(),
            None => Err(io::ErrorKind::WouldBlock.into()),
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

/// The addresses of `bind` with the port, and which of them may fail.
fn addresses_of(config: &Config) -> Result<Vec<(SocketAddr, bool)>, String> {
    let mut addresses = Vec::new();
    for name in config.bind.iter().filter(|_| config.port != 0) {
        let name = String::from_utf8_lossy(name);
        let (optional, host) = match name.strip_prefix('-') {
            Some(host) => (true, host),
            None => (false, &*name),
        };
        let address: Result<IpAddr, _> = match host {
            "*" => Ok(IpAddr::from([0, 0, 0, 0])),
            "::*" => Ok(IpAddr::from([0u16; 8])),
            "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
            host => host.parse(),
        };
        let address = address.map_err(|_| format!("bind address '{host}' is not an IP address"))?;
        addresses.push((SocketAddr::new(address, config.port), optional));
    }
    Ok(addresses)
}

fn bind_unix(config: &Config) -> Result<UnixListener, String> {
    let path = config.unixsocket.as_path();
    let failed = |error: io::Error| format!("could not listen on {}: {error}", path.display());
    // A socket that a server left behind is in the way.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    if config.unixsocketperm != 0 {
        let permissions = std::fs::Permissions::from_mode(config.unixsocketperm);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    Ok(listener)
}

/// Remote and local address of a connection as CLIENT LIST shows them.
pub fn addresses(stream: &Stream) -> (String, String) {
    match stream {
        Stream::Tcp(tcp) => {
            let text = |address: io::Result<SocketAddr>| {
                address.map_or_else(|_| "?:0".into(), |address| address.to_string())
            };
            (text(tcp.peer_addr()), text(tcp.local_addr()))
        }
        Stream::Unix(unix) => {
            let path = unix.local_addr().ok();
            let path = path.as_ref().and_then(|address| address.as_pathname());
            let text = format!("{}:0", path.map_or_else(String::new, |p| p.display().to_string()));
            (text.clone(), text)
        }
    }
}

/// Why a connection is not served: an error reply to send before closing it.
pub fn refusal(server: &Server, config: &Config, stream: &Stream) -> Option<&'static str> {
    if server.connected.load(std::sync::atomic::Ordering::Relaxed) >= config.maxclients as usize {
        return Some("-ERR max number of clients reached\r\n");
    }
    let Stream::Tcp(tcp) = stream else { return None };
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
    let Stream::Tcp(tcp) = stream else { return };
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
