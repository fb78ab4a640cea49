//! TLS on a connection: the session between the socket and the event loop.
//!
//! Reads and writes look like those of a socket that does not block, so that the loop treats all
//! connections alike; what differs is that the session may hold bytes although the socket is quiet,
//! which [`TlsStream::has_more`] tells. Knows nothing of requests. `settings.rs` makes of the
//! configuration what new sessions go by.

mod ciphers;
mod settings;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

pub use settings::server_config;

/// How long a client may take to complete the handshake.
pub const HANDSHAKE_MS_MAX: i64 = 10_000;

/// What a session takes that has nothing to read or to send: keys, transcripts, its certificate.
pub const SESSION_BYTES: usize = 8 * 1024;

/// How often in a row the socket is read when nothing for the server comes of it.
const FRUITLESS_READS_MAX: usize = 64;

pub struct TlsStream {
    pub socket: TcpStream,
    session: ServerConnection,
    /// The handshake is done.
    is_open: bool,
    /// Bytes of the current `write` that are encrypted and not all sent: the next one begins with
    /// the same bytes, and answers for them.
    in_flight: usize,
    /// Decrypted and not read.
    unread: usize,
    /// The peer has said that nothing more will come.
    is_ended: bool,
    /// The last read took all that the socket had.
    is_drained: bool,
}

/// The socket as the session reads from it.
struct Intake<'a> {
    socket: &'a mut TcpStream,
    is_drained: &'a mut bool,
}

impl Read for Intake<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(buffer);
        *self.is_drained = match &read {
            Ok(count) => (1..buffer.len()).contains(count),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        read
    }
}

impl TlsStream {
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(TlsStream {
            socket,
            session,
            is_open: false,
            in_flight: 0,
            unread: 0,
            is_ended: false,
            is_drained: false,
        })
    }

    /// Whether requests may come.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Goes on with the handshake; true once it is done.
    pub fn shake_hands(&mut self) -> io::Result<bool> {
        while self.session.is_handshaking() {
            match self.receive() {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.is_open = true;
        Ok(true)
    }

    /// As of a socket: 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for reads in 0..FRUITLESS_READS_MAX {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => {
                    self.unread = self.unread.saturating_sub(*read.as_ref().unwrap_or(&0));
                    return read;
                }
            }
            if reads > 0 && self.is_drained {
                break;
            }
            if self.receive()? == 0 {
                return Ok(0);
            }
        }
        Err(ErrorKind::WouldBlock.into())
    }

    /// Whether another read would have something without an event of the poller.
    pub fn has_more(&self) -> bool {
        self.unread > 0 || self.is_ended || !self.is_drained
    }

    /// As of a socket: the bytes that it answers for are the kernel's. After `WouldBlock` the next
    /// call has to begin with the same bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.in_flight == 0 {
            self.send()?;
            self.in_flight = self.session.writer().write(bytes)?;
        }
        self.send()?;
        Ok(std::mem::take(&mut self.in_flight))
    }

    /// Whether there is something of the session's own to be sent, such as its part of the handshake.
    pub fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Sends what is encrypted.
    pub fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more will come, if the socket takes that now.
    pub fn close(&mut self) {
        if self.is_open {
            self.session.send_close_notify();
            let _ = self.send();
        }
    }

    /// Reads the socket once. The error is also what was wrong with what came.
    fn receive(&mut self) -> io::Result<usize> {
        let mut intake = Intake { socket: &mut self.socket, is_drained: &mut self.is_drained };
        let count = self.session.read_tls(&mut intake)?;
        if count == 0 {
            return Ok(0);
        }
        match self.session.process_new_packets() {
            Ok(state) => {
                self.unread = state.plaintext_bytes_to_read();
                self.is_ended = state.peer_has_closed();
            }
            Err(error) => {
                // The alert that says why.
                let _ = self.send();
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
        match self.send() {
            // The poller says when to go on.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(count),
            sent => sent.map(|()| count),
        }
    }
}
