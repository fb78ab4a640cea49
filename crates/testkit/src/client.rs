//! A blocking client with deadlines, reading both protocol versions.
//!
//! Used from one thread at a time. It never retries and never hides a reply: what the server
//! sent is what the caller gets.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::value::Value;

/// Why no reply could be read.
#[derive(Debug)]
pub enum ReadError {
    Timeout,
    Closed,
    Protocol(String),
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Timeout => write!(f, "no reply before the deadline"),
            ReadError::Closed => write!(f, "connection closed by the server"),
            ReadError::Protocol(what) => write!(f, "malformed reply: {what}"),
            ReadError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Another way to reach a server, such as TLS.
pub trait Transport: Read + Write {
    /// The connection under it, for timeouts and half closing.
    fn socket(&self) -> &TcpStream;
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Other(Box<dyn Transport + Send>),
}

pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` already handed out.
    consumed: usize,
    /// How long `call` waits for its reply.
    pub patience: Duration,
}

impl Client {
    /// Connects to `host:port`, or to a Unix socket if the address holds a slash.
    pub fn connect(address: &str) -> io::Result<Client> {
        let stream = if address.contains('/') {
            Stream::Unix(UnixStream::connect(address)?)
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        };
        Ok(Client::new(stream))
    }

    /// A client of a server that is reached in this way.
    pub fn over(transport: impl Transport + Send + 'static) -> Client {
        Client::new(Stream::Other(Box::new(transport)))
    }

    fn new(stream: Stream) -> Client {
        Client { stream, buffer: Vec::new(), consumed: 0, patience: PATIENCE }
    }

    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        let mut request = Vec::with_capacity(64);
        encode(args, &mut request);
        self.send_raw(&request)
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Other(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Sends a command and reads one reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value, ReadError> {
        self.send(args).map_err(ReadError::Io)?;
        self.read(self.patience)
    }

    /// Sends all commands in one write, then reads as many replies.
    pub fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        commands: &[Vec<A>],
    ) -> Result<Vec<Value>, ReadError> {
        let mut request = Vec::new();
        for command in commands {
            encode(command, &mut request);
        }
        self.send_raw(&request).map_err(ReadError::Io)?;
        commands.iter().map(|_| self.read(self.patience)).collect()
    }

    /// Reads one reply or push message.
    pub fn read(&mut self, patience: Duration) -> Result<Value, ReadError> {
        let deadline = Instant::now() + patience;
        let value = self.value(deadline)?;
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
        }
        Ok(value)
    }

    /// Bytes that arrived and were not asked for, without waiting.
    pub fn leftover(&mut self) -> Vec<u8> {
        // An error here only means that there is nothing to show.
        let _ = self.fill(Instant::now());
        self.buffer[self.consumed..].to_vec()
    }

    /// True once the server has closed the connection (unread replies are dropped).
    pub fn wait_closed(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            self.buffer.clear();
            self.consumed = 0;
            match self.fill(deadline) {
                Ok(()) => {}
                Err(ReadError::Timeout) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Tells the server that nothing more will be sent; replies can still be read.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Other(stream) => stream.socket().shutdown(Shutdown::Write),
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), ReadError> {
        // A timeout of zero would mean "forever" to the kernel.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if self.consumed > 1 << 16 && self.consumed * 2 > self.buffer.len() {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        let mut chunk = [0; 1 << 16];
        let outcome = match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut chunk))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut chunk))
            }
            Stream::Other(stream) => {
                stream.socket().set_read_timeout(Some(left)).and_then(|()| stream.read(&mut chunk))
            }
        };
        match outcome {
            Ok(0) => Err(ReadError::Closed),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(ReadError::Closed),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                if Instant::now() >= deadline {
                    Err(ReadError::Timeout)
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    /// The next line without its CRLF.
    fn line(&mut self, deadline: Instant) -> Result<String, ReadError> {
        let mut searched = self.consumed;
        loop {
            let rest = &self.buffer[searched..];
            if let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
                let end = searched + at;
                let line = String::from_utf8_lossy(&self.buffer[self.consumed..end]).into_owned();
                self.consumed = end + 2;
                return Ok(line);
            }
            let offset = (self.buffer.len().max(1) - 1).max(searched) - self.consumed;
            self.fill(deadline)?;
            searched = self.consumed + offset;
        }
    }

    fn exactly(&mut self, count: usize, deadline: Instant) -> Result<Vec<u8>, ReadError> {
        while self.buffer.len() - self.consumed < count + 2 {
            self.fill(deadline)?;
        }
        let start = self.consumed;
        let bytes = self.buffer[start..start + count].to_vec();
        if &self.buffer[start + count..start + count + 2] != b"\r\n" {
            return Err(ReadError::Protocol(format!("bulk of {count} bytes does not end in CRLF")));
        }
        self.consumed = start + count + 2;
        Ok(bytes)
    }

    fn value(&mut self, deadline: Instant) -> Result<Value, ReadError> {
        let line = self.line(deadline)?;
        let broken = || ReadError::Protocol(format!("{line:?}"));
        let kind = line.chars().next().ok_or_else(broken)?;
        let rest = line.get(1..).ok_or_else(broken)?;
        let length = || rest.parse::<usize>().map_err(|_| broken());
        Ok(match kind {
            '+' => Value::Status(rest.as_bytes().to_vec()),
            '-' => Value::Error(rest.as_bytes().to_vec()),
            ':' => Value::Integer(rest.parse().map_err(|_| broken())?),
            '$' if rest == "-1" => Value::Nil,
            '*' if rest == "-1" => Value::NilArray,
            '_' => Value::Null,
            ',' => Value::Double(rest.to_owned()),
            '(' => Value::BigNumber(rest.to_owned()),
            '#' if rest == "t" || rest == "f" => Value::Boolean(rest == "t"),
            '$' => Value::Bulk(self.exactly(length()?, deadline)?),
            '=' => Value::Verbatim(self.exactly(length()?, deadline)?),
            '*' => Value::Array(self.values(length()?, deadline)?),
            '~' => Value::Set(self.values(length()?, deadline)?),
            '>' => Value::Push(self.values(length()?, deadline)?),
            '%' => {
                let flat = self.values(2 * length()?, deadline)?;
                let mut items = flat.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            _ => return Err(broken()),
        })
    }

    fn values(&mut self, count: usize, deadline: Instant) -> Result<Vec<Value>, ReadError> {
        (0..count).map(|_| self.value(deadline)).collect()
    }
}

/// Appends a command as an array of bulks.
pub fn encode<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}
