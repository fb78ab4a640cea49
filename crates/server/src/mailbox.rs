//! How threads reach a worker: a queue and a wake-up of its event loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::KeyName;
use mio::Waker;
use parking_lot::Mutex;

use crate::connection::Stream;

/// Which connection a mail is for. The id guards against a token that was reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub token: usize,
    pub client: u64,
}

/// What a client whose waiter was cancelled is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// As if its time were over.
    Timeout,
    Error,
    /// What it waits for will not be: there is no append-only file any more.
    NoAof,
}

pub enum Mail {
    /// A connection to serve from now on.
    Accepted(Stream),
    /// Bytes for a subscriber or monitor.
    Push(Address, Arc<[u8]>),
    /// The reply of a blocked client, which goes on after it.
    Unblocked(Address, Vec<u8>),
    /// CLIENT UNBLOCK has cancelled the waiter of a blocked client.
    WaitEnded(Address, WaitEnd),
    /// CLIENT KILL.
    Kill(Address),
    /// Serve the clients that wait for these keys.
    Ready(Vec<KeyName>),
    /// Look again at connections that CLIENT PAUSE held back.
    Resume,
    /// Nothing but a wake-up: the configuration changed, or the server shuts down.
    Wake,
}

impl Mail {
    /// The connection it is for.
    pub fn token(&self) -> Option<usize> {
        match self {
            Mail::Push(to, _)
            | Mail::Unblocked(to, _)
            | Mail::WaitEnded(to, _)
            | Mail::Kill(to) => Some(to.token),
            Mail::Accepted(_) | Mail::Ready(_) | Mail::Resume | Mail::Wake => None,
        }
    }
}

pub struct Mailbox {
    queue: Mutex<Vec<Mail>>,
    waker: Waker,
    /// A wake-up is on its way already.
    awake: AtomicBool,
}

impl Mailbox {
    pub fn new(waker: Waker) -> Mailbox {
        Mailbox { queue: Mutex::new(Vec::new()), waker, awake: AtomicBool::new(false) }
    }

    pub fn send(&self, mail: Mail) {
        self.queue.lock().push(mail);
        if !self.awake.swap(true, Ordering::AcqRel) {
            // Fails only when the poller is gone: then nobody is left to read.
            let _ = self.waker.wake();
        }
    }

    /// Takes all mails; called by the worker itself.
    pub fn take(&self, into: &mut Vec<Mail>) {
        self.awake.store(false, Ordering::Release);
        into.append(&mut self.queue.lock());
    }

    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }
}
