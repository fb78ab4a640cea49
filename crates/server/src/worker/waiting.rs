//! Mail from other workers, and connections that wait: for a key, or for the end of CLIENT PAUSE.

use std::sync::atomic::Ordering;

use command::OnTimeout;
use resp::Reply;

use super::{Blocked, Chore, Shift, WorkerLoop};
use crate::client::ClientInfo;
use crate::connection::{Connection, Hold};
use crate::dispatch;
use crate::mailbox::{Address, Mail, WaitEnd};
use crate::session::persistence;

impl WorkerLoop {
    pub(super) fn read_mail(&self, shift: &Shift, mails: &mut Vec<Mail>) {
        mails.append(&mut self.postponed_mail.borrow_mut());
        self.server.mailboxes[self.id].take(mails);
        self.handle_mail(shift, mails);
    }

    pub(super) fn handle_mail(&self, shift: &Shift, mails: &mut Vec<Mail>) {
        for mail in mails.drain(..) {
            match mail {
                Mail::Wake => {}
                Mail::Accepted(stream) => self.adopt(stream),
                Mail::Push(to, bytes) => self.push(shift, to, &bytes),
                Mail::Unblocked(to, reply) => self.on_unblocked(shift, to, reply),
                Mail::WaitEnded(to, end) => self.end_wait(shift, to, end),
                Mail::Kill(to) => {
                    if let Some((token, mut connection)) = self.take_addressed(to) {
                        connection.is_dead = true;
                        self.put(shift, token, connection);
                    }
                }
                // In this turn still.
                Mail::Ready(keys) => self.unserved.borrow_mut().extend(keys),
                Mail::Resume => {
                    let paused = std::mem::take(&mut *self.paused.borrow_mut());
                    for token in paused {
                        if let Some(mut connection) = self.take(token) {
                            if connection.hold == Hold::Paused {
                                connection.hold = Hold::None;
                                self.server.blocked.fetch_sub(1, Ordering::Relaxed);
                                self.unfinished.borrow_mut().push_back(token);
                            }
                            self.put(shift, token, connection);
                        }
                    }
                }
            }
        }
    }

    fn take_addressed(&self, to: Address) -> Option<(usize, Box<Connection>)> {
        let mut connections = self.connections.borrow_mut();
        let slot = connections.get_mut(to.token)?;
        if slot.as_ref()?.client.info.id != to.client {
            return None;
        }
        slot.take().map(|connection| (to.token, connection))
    }

    pub(super) fn push(&self, shift: &Shift, to: Address, bytes: &[u8]) {
        let Some((token, mut connection)) = self.take_addressed(to) else { return };
        if !connection.client.close_after_reply {
            connection.output.extend_from_slice(bytes);
            self.unsent_bytes.set(self.unsent_bytes.get() + bytes.len());
            self.limit_output(shift, &mut connection);
        }
        self.put(shift, token, connection);
    }

    /// Registers that the command of a connection waits.
    pub fn block(&self, token: usize, info: &ClientInfo, blocked: Blocked) {
        if let Some(deadline_ms) = blocked.deadline_ms {
            self.deadlines.borrow_mut().insert((deadline_ms, token));
        }
        *info.waiter.lock() = Some(blocked.waiter.clone());
        // Whoever killed it meanwhile saw no waiter to cancel.
        if info.is_closing.load(Ordering::Acquire) {
            blocked.waiter.cancel();
        }
        self.server.blocked.fetch_add(1, Ordering::Relaxed);
        if let OnTimeout::Synced { .. } = blocked.on_timeout {
            self.syncing.borrow_mut().push(token);
        }
        self.blocked.borrow_mut().insert(token, blocked);
    }

    /// Ends the wait of a connection, however it came to its end.
    pub(super) fn unblock(&self, shift: &Shift, token: usize, cancel: bool) -> Option<Blocked> {
        let blocked = self.blocked.borrow_mut().remove(&token)?;
        if let Some(deadline_ms) = blocked.deadline_ms {
            self.deadlines.borrow_mut().remove(&(deadline_ms, token));
        }
        self.server.blocked.fetch_sub(1, Ordering::Relaxed);
        if cancel {
            blocked.waiter.cancel();
            self.see_to(shift, Chore::Waiter(blocked.waiter.clone()));
        }
        Some(blocked)
    }

    fn on_unblocked(&self, shift: &Shift, to: Address, reply: Vec<u8>) {
        let Some((token, mut connection)) = self.take_addressed(to) else { return };
        if connection.hold == Hold::Blocked {
            let was = self.unblock(shift, token, false).map(|blocked| blocked.on_timeout);
            *connection.client.info.waiter.lock() = None;
            connection.client.info.argument_bytes.store(0, Ordering::Relaxed);
            connection.hold = Hold::None;
            let journal = &self.server.durability.aof.journal;
            let may_have_changed =
                matches!(was, Some(OnTimeout::Null | OnTimeout::NullArray | OnTimeout::Target));
            let changed = may_have_changed && self.server.durability.aof.is_wanted();
            if changed {
                // What its command changed is no later than this.
                connection.client.last_block = journal.last();
            }
            if dispatch::lets_reply_through(&mut connection.client) {
                if changed && journal.holds_replies() {
                    connection.hold_back(connection.output.len(), connection.client.last_block);
                }
                connection.output.extend_from_slice(&reply);
            }
            self.unfinished.borrow_mut().push_back(token);
        }
        self.put(shift, token, connection);
    }

    pub(super) fn time_out_blocked(&self, shift: &Shift) {
        loop {
            let due = self.deadlines.borrow().first().copied();
            let Some((deadline_ms, token)) = due else { return };
            if deadline_ms > self.clock.get().wall_ms {
                return;
            }
            self.deadlines.borrow_mut().remove(&(deadline_ms, token));
            match self.blocked.borrow_mut().get_mut(&token) {
                Some(blocked) if blocked.waiter.cancel() => {}
                // Being served right now, which may come to nothing: look again soon.
                Some(blocked) if !blocked.waiter.is_done() => {
                    let again_ms = self.clock.get().wall_ms + 1;
                    blocked.deadline_ms = Some(again_ms);
                    self.deadlines.borrow_mut().insert((again_ms, token));
                    continue;
                }
                // Its reply is on the way.
                _ => continue,
            }
            let client = self.connections.borrow()[token].as_ref().map(|c| c.client.info.id);
            if let Some(client) = client {
                self.end_wait(shift, Address { token, client }, WaitEnd::Timeout);
            }
        }
    }

    /// Ends the waits of WAITAOF that have come to something.
    pub(super) fn release_synced(&self, shift: &Shift) {
        if self.syncing.borrow().is_empty() {
            return;
        }
        let aof = &self.server.durability.aof;
        // Ahead of the look: what is safe behind it wakes this worker.
        aof.journal.watch(self.id);
        let waiting = std::mem::take(&mut *self.syncing.borrow_mut());
        for token in waiting {
            let (end, is_ours) = match self.blocked.borrow().get(&token) {
                Some(Blocked { waiter, on_timeout, .. }) => {
                    let OnTimeout::Synced { block, local, replicas } = *on_timeout else {
                        continue;
                    };
                    let end = match () {
                        () if local && !aof.is_wanted() => WaitEnd::NoAof,
                        () if !replicas && aof.is_safe(block) => WaitEnd::Timeout,
                        () => {
                            self.syncing.borrow_mut().push(token);
                            continue;
                        }
                    };
                    (end, waiter.cancel())
                }
                None => continue,
            };
            let client = self.connections.borrow()[token].as_ref().map(|c| c.client.info.id);
            if let Some(client) = client.filter(|_| is_ours) {
                self.end_wait(shift, Address { token, client }, end);
            }
        }
    }

    /// Answers a blocked client whose waiter was cancelled, which goes on then.
    fn end_wait(&self, shift: &Shift, to: Address, end: WaitEnd) {
        let blocked = self.blocked.borrow();
        let Some(Blocked { waiter, on_timeout, .. }) = blocked.get(&to.token) else { return };
        let (waiter, on_timeout) = (waiter.clone(), *on_timeout);
        drop(blocked);
        let protocol = match self.connections.borrow().get(to.token) {
            Some(Some(connection)) if connection.client.info.id == to.client => {
                connection.client.protocol
            }
            _ => return,
        };
        dispatch::count_waited(self, shift, &waiter, end != WaitEnd::Timeout);
        self.see_to(shift, Chore::Waiter(waiter));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, protocol);
        match end {
            WaitEnd::Timeout => persistence::answer(&self.server, on_timeout, &mut reply),
            WaitEnd::NoAof => {
                reply.error(&persistence::NO_AOF.0);
                self.server.count_error("ERR");
            }
            WaitEnd::Error => {
                reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                self.server.count_error("UNBLOCKED");
            }
        }
        self.on_unblocked(shift, to, out);
    }

    /// Holds a connection back until CLIENT PAUSE is over.
    pub fn hold_paused(&self, token: usize) {
        self.server.blocked.fetch_add(1, Ordering::Relaxed);
        self.paused.borrow_mut().push(token);
    }

    /// Has connections go on once CLIENT PAUSE is over.
    pub(super) fn end_pause(&self) {
        let until_ms = self.server.pause.until_ms.load(Ordering::Acquire);
        if !self.paused.borrow().is_empty() && until_ms <= self.clock.get().wall_ms {
            self.server.mailboxes[self.id].send(Mail::Resume);
        }
    }
}
