//! Connections to the servers that keys migrate to: requests out, one-line replies in, and a few
//! connections kept for the next migration. Knows nothing of the keyspace, nor of who waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use resp::write_request;

/// Connections kept, and for how long after their last use: as many as Redis keeps.
const KEPT_MAX: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(10);

/// How soon a wait for the target sees that nobody waits for the migration any more.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The longest line that is taken for a reply.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Where keys are to go, and how they get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: String,
    pub db: i64,
    /// How long each answer of the target may take.
    pub timeout: Duration,
    /// A password, or a user and a password, or nothing.
    pub credentials: Vec<Box<[u8]>>,
}

/// What was being done when the target was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Writing,
    Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    pub phase: Phase,
    /// It is there, only slow: not to be tried again.
    pub is_timeout: bool,
}

/// Replies, as far as they came: nothing of a success, of an error its text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub replies: Vec<Result<(), String>>,
    /// Why there are no more of them.
    pub broken: Option<Broken>,
}

impl Answers {
    /// Adds what went wrong elsewhere.
    pub fn add(&mut self, more: Answers) {
        self.replies.extend(more.replies.into_iter().filter(Result::is_err));
        self.broken = self.broken.or(more.broken);
    }
}

struct Link {
    stream: TcpStream,
    /// The database selected last, if that is known.
    db: Option<i64>,
    unread: Vec<u8>,
}

struct Kept {
    link: Link,
    host: String,
    port: String,
    credentials: Vec<Box<[u8]>>,
    since: Instant,
}

/// The connections of all migrations. Thread safety: the lock is held to take one out or put it back,
/// and nothing is locked under it.
#[derive(Default)]
pub struct Links {
    kept: Mutex<Vec<Kept>>,
}

impl Links {
    /// Sends so many requests to the target and reads their replies. What is asked now and then says
    /// whether nobody waits for them any more. A connection that turns out to be dead is made anew once.
    pub fn ask(
        &self,
        target: &Target,
        requests: &[u8],
        count: usize,
        is_over: &dyn Fn() -> bool,
    ) -> Answers {
        let mut may_retry = true;
        loop {
            let link = match self.take(target) {
                Some(link) => Ok(link),
                None => Link::open(target, is_over),
            };
            let mut answers = Answers::default();
            match link {
                Ok(mut link) => {
                    link.ask(target, requests, count, is_over, &mut answers);
                    if answers.broken.is_none() {
                        self.keep(target, link);
                    }
                }
                Err(broken) => answers.broken = Some(broken),
            }
            match answers.broken {
                Some(Broken { phase: Phase::Writing | Phase::Reading, is_timeout: false })
                    if answers.replies.is_empty() && may_retry && !is_over() =>
                {
                    may_retry = false;
                }
                _ => return answers,
            }
        }
    }

    fn take(&self, target: &Target) -> Option<Link> {
        let mut kept = self.kept.lock();
        let at = kept.iter().position(|kept| {
            kept.host == target.host
                && kept.port == target.port
                && kept.credentials == target.credentials
                && kept.since.elapsed() < KEPT_FOR
        });
        at.map(|at| kept.swap_remove(at).link)
    }

    fn keep(&self, target: &Target, link: Link) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            let at = fastrand::usize(..kept.len());
            kept.swap_remove(at);
        }
        kept.push(Kept {
            link,
            host: target.host.clone(),
            port: target.port.clone(),
            credentials: target.credentials.clone(),
            since: Instant::now(),
        });
    }

    /// Closes what was not used for some time.
    pub fn close_idle(&self) {
        self.kept.lock().retain(|kept| kept.since.elapsed() < KEPT_FOR);
    }

    pub fn count(&self) -> usize {
        self.kept.lock().len()
    }
}

impl Link {
    fn open(target: &Target, is_over: &dyn Fn() -> bool) -> Result<Link, Broken> {
        let broken = |phase, is_timeout| Broken { phase, is_timeout };
        let connecting = broken(Phase::Connecting, false);
        let port: u16 = target.port.parse().unwrap_or(0);
        let addresses = (&*target.host, port).to_socket_addrs().map_err(|_| connecting)?;
        let mut refusal = connecting;
        for address in addresses {
            if is_over() {
                return Err(broken(Phase::Connecting, true));
            }
            match TcpStream::connect_timeout(&address, target.timeout) {
                Ok(stream) => {
                    let prepared = stream
                        .set_nodelay(true)
                        .and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY)))
                        .and_then(|()| stream.set_write_timeout(Some(LOOK_EVERY)));
                    prepared.map_err(|_| connecting)?;
                    return Ok(Link { stream, db: None, unread: Vec::new() });
                }
                Err(error) if is_slow(&error) => refusal = broken(Phase::Connecting, true),
                // Redis sees a refusal when it writes.
                Err(_) => refusal = broken(Phase::Writing, false),
            }
        }
        Err(refusal)
    }

    fn ask(
        &mut self,
        target: &Target,
        requests: &[u8],
        count: usize,
        is_over: &dyn Fn() -> bool,
        answers: &mut Answers,
    ) {
        let result = self.talk(target, requests, count, is_over, &mut answers.replies);
        answers.broken = result.err();
        // Whatever was refused, it may be the database that is meant.
        let is_fine = answers.replies.iter().all(Result::is_ok);
        self.db = is_fine.then_some(target.db);
    }

    fn talk(
        &mut self,
        target: &Target,
        requests: &[u8],
        count: usize,
        is_over: &dyn Fn() -> bool,
        replies: &mut Vec<Result<(), String>>,
    ) -> Result<(), Broken> {
        let (mut prelude, mut prelude_count) = (Vec::new(), 0);
        if !target.credentials.is_empty() {
            let words = [&[Box::from(&b"AUTH"[..])], &target.credentials[..]].concat();
            write_request(&mut prelude, &words);
            prelude_count += 1;
        }
        if self.db != Some(target.db) {
            write_request(&mut prelude, &[&b"SELECT"[..], target.db.to_string().as_bytes()]);
            prelude_count += 1;
        }
        let clock = Clock { timeout: target.timeout, is_over };
        self.write(&prelude, &clock)?;
        self.write(requests, &clock)?;
        let mut refusal = None;
        for _ in 0..prelude_count {
            let reply = self.line(&clock)?;
            refusal = refusal.or(reply.err());
        }
        for _ in 0..count {
            let reply = self.line(&clock)?;
            // Who is not let in is told why, whatever became of the request in that place.
            replies.push(match &refusal {
                Some(text) => Err(text.clone()),
                None => reply,
            });
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], clock: &Clock<'_>) -> Result<(), Broken> {
        let mut deadline = Instant::now() + clock.timeout;
        while !bytes.is_empty() {
            clock.look(Phase::Writing)?;
            match self.stream.write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    deadline = Instant::now() + clock.timeout;
                }
                Err(error) => clock.goes_on(&error, deadline, Phase::Writing)?,
            }
        }
        Ok(())
    }

    /// The next reply, which must be one line.
    fn line(&mut self, clock: &Clock<'_>) -> Result<Result<(), String>, Broken> {
        let garbled = Broken { phase: Phase::Reading, is_timeout: false };
        let deadline = Instant::now() + clock.timeout;
        let mut seen = 0;
        loop {
            clock.look(Phase::Reading)?;
            if let Some(at) = self.unread[seen..].windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..seen + at + 2).collect();
                return match &line[..line.len() - 2] {
                    [b'-', text @ ..] => Ok(Err(String::from_utf8_lossy(text).into_owned())),
                    [b'+' | b':', ..] => Ok(Ok(())),
                    _ => Err(garbled),
                };
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(garbled);
            }
            seen = self.unread.len().saturating_sub(1);
            let mut room = [0; 4096];
            match self.stream.read(&mut room) {
                Ok(0) => return Err(garbled),
                Ok(read) => self.unread.extend_from_slice(&room[..read]),
                Err(error) => clock.goes_on(&error, deadline, Phase::Reading)?,
            }
        }
    }
}

/// How long is waited.
struct Clock<'c> {
    timeout: Duration,
    is_over: &'c dyn Fn() -> bool,
}

impl Clock<'_> {
    /// Whether an error is only that there was nothing for a moment.
    fn goes_on(&self, error: &io::Error, deadline: Instant, phase: Phase) -> Result<(), Broken> {
        if error.kind() == ErrorKind::Interrupted {
            return Ok(());
        }
        if !is_slow(error) {
            return Err(Broken { phase, is_timeout: false });
        }
        if Instant::now() >= deadline {
            return Err(Broken { phase, is_timeout: true });
        }
        Ok(())
    }

    /// Whether anybody waits for it still.
    fn look(&self, phase: Phase) -> Result<(), Broken> {
        if (self.is_over)() { Err(Broken { phase, is_timeout: true }) } else { Ok(()) }
    }
}

fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
