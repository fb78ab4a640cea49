//! A connection: the socket, the bytes of an unfinished request and the bytes not sent yet.
//!
//! An idle connection holds no buffer: requests are read into the worker's shared buffer and
//! only an unfinished rest is kept here.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::client::Client;
use crate::tls::{self, TlsStream};

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => registry.register(stream, token, interest),
            Stream::Unix(stream) => registry.register(stream, token, interest),
            Stream::Tls(stream) => registry.register(&mut stream.socket, token, interest),
        }
    }

    /// Before it is dropped.
    pub fn close(&mut self, registry: &Registry) {
        let _ = match self {
            Stream::Tcp(stream) => registry.deregister(stream),
            Stream::Unix(stream) => registry.deregister(stream),
            Stream::Tls(stream) => {
                stream.close();
                registry.deregister(&mut stream.socket)
            }
        };
    }

    pub fn fd(&self) -> i32 {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tls(stream) => stream.socket.as_raw_fd(),
        }
    }

    /// The TCP connection, if it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            Stream::Tls(stream) => Some(&stream.socket),
            Stream::Unix(_) => None,
        }
    }

    pub fn is_unix(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    /// Whether there may be more to read although the last read left room, or the socket is quiet.
    pub fn has_more(&self) -> bool {
        matches!(self, Stream::Tls(stream) if stream.has_more())
    }

    /// Whether its handshake is not done yet.
    pub fn is_opening(&self) -> bool {
        matches!(self, Stream::Tls(stream) if !stream.is_open())
    }

    /// Goes on with the handshake; true once it is done.
    pub fn shake_hands(&mut self) -> io::Result<bool> {
        match self {
            Stream::Tls(stream) => stream.shake_hands(),
            Stream::Tcp(_) | Stream::Unix(_) => Ok(true),
        }
    }

    /// Whether there is something to send that is not output of the client.
    pub fn wants_write(&self) -> bool {
        matches!(self, Stream::Tls(stream) if stream.wants_write())
    }

    /// What is kept for it beside buffers.
    pub fn session_bytes(&self) -> usize {
        match self {
            Stream::Tls(_) => tls::SESSION_BYTES,
            Stream::Tcp(_) | Stream::Unix(_) => 0,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }
}

/// Why a connection does not execute what it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It may run.
    None,
    /// Its blocking command waits.
    Blocked,
    /// CLIENT PAUSE.
    Paused,
    /// Its next request needs locks that somebody keeps for long.
    Stalled,
}

/// From where on output waits for which block. What comes while a first part waits is a second one,
/// which grows; so the first is not put off for ever.
#[derive(Default)]
struct HeldBack {
    first: Option<Mark>,
    second: Option<Mark>,
}

#[derive(Clone, Copy)]
struct Mark {
    position: usize,
    block: u64,
}

impl HeldBack {
    fn add(&mut self, position: usize, block: u64) {
        let slot = if self.first.is_none() { &mut self.first } else { &mut self.second };
        match slot {
            Some(mark) => mark.block = block,
            None => *slot = Some(Mark { position, block }),
        }
    }

    /// Where it is to end what is sent while so many blocks are safe; `None` when nothing waits.
    fn release(&mut self, durable: u64) -> Option<usize> {
        while self.first?.block <= durable {
            self.first = self.second.take();
        }
        self.first.map(|mark| mark.position)
    }

    /// So many bytes of the output are gone.
    fn move_up(&mut self, bytes: usize) {
        for mark in [&mut self.first, &mut self.second].into_iter().flatten() {
            mark.position -= bytes;
        }
    }
}

pub struct Connection {
    pub stream: Stream,
    pub client: Client,
    pub parser: resp::Parser,
    /// Received and not executed.
    pub input: Vec<u8>,
    /// Bytes the unfinished request needs at least, as the parser said.
    pub needed: usize,
    /// To be sent; the first `sent` bytes are gone already.
    pub output: Vec<u8>,
    pub sent: usize,
    /// Output that waits until it is safe on disk what it tells of.
    held_back: HeldBack,
    pub hold: Hold,
    /// In the list of connections to flush.
    pub is_dirty: bool,
    /// In the list of connections whose output waits for the append-only file.
    pub is_listed: bool,
    /// The socket may have more to read than was read (edge-triggered polling).
    pub may_read: bool,
    /// The end of what the peer sends may be there already, of which no event will tell.
    pub is_ending: bool,
    /// Since when the output is over its soft limit, Unix ms.
    pub over_soft_limit_since_ms: Option<i64>,
    /// The peer is gone or the connection was killed.
    pub is_dead: bool,
}

impl Connection {
    pub fn new(stream: Stream, client: Client) -> Connection {
        Connection {
            stream,
            client,
            parser: resp::Parser::new(),
            input: Vec::new(),
            needed: 0,
            output: Vec::new(),
            sent: 0,
            held_back: HeldBack::default(),
            hold: Hold::None,
            is_dirty: false,
            is_listed: false,
            may_read: false,
            is_ending: false,
            over_soft_limit_since_ms: None,
            is_dead: false,
        }
    }

    pub fn pending_output(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Output from this place on tells of a block of the append-only file with this number, and is
    /// to be sent when that is safe.
    pub fn hold_back(&mut self, position: usize, block: u64) {
        self.held_back.add(position.max(self.sent), block);
    }

    /// Whether something waits for more than `durable` blocks to be safe.
    pub fn is_held_back(&self) -> bool {
        self.held_back.first.is_some()
    }

    /// The last block that something waits for.
    pub fn held_back_for(&self) -> u64 {
        let HeldBack { first, second } = &self.held_back;
        second.or(*first).map_or(0, |mark| mark.block)
    }

    /// Tells others what its buffers take. The output counts as of the last time it was sent: a
    /// buffer that is given back in the same turn is nobody's memory.
    pub fn report_buffers(&self, is_flushed: bool) {
        let info = &self.client.info;
        let input = &self.input;
        info.query_buffer_bytes.store(input.len(), Ordering::Relaxed);
        info.query_buffer_free_bytes.store(input.capacity() - input.len(), Ordering::Relaxed);
        if is_flushed {
            info.output_buffer_bytes.store(self.pending_output(), Ordering::Relaxed);
            info.output_capacity_bytes.store(self.output.capacity(), Ordering::Relaxed);
        }
    }

    /// Sends what the socket takes of what may go while so many blocks are safe. Answers how many
    /// bytes went.
    pub fn flush(&mut self, durable: impl FnOnce() -> u64) -> usize {
        let before = self.sent;
        if self.output.is_empty()
            && let Stream::Tls(stream) = &mut self.stream
            && stream.send().is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
        {
            self.is_dead = true;
        }
        let end = match self.is_held_back() {
            true => self.held_back.release(durable()).unwrap_or(self.output.len()),
            false => self.output.len(),
        };
        while self.sent < end {
            match self.stream.write(&self.output[self.sent..end]) {
                Ok(0) => {
                    self.is_dead = true;
                    break;
                }
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_dead = true;
                    break;
                }
            }
        }
        let count = self.sent - before;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > (1 << 20) && self.sent > self.output.len() / 2 {
            // Give back what is sent while a slow reader takes the rest.
            self.output.drain(..self.sent);
            self.held_back.move_up(self.sent);
            self.output.shrink_to(self.output.len() * 2);
            self.sent = 0;
        }
        count
    }
}
