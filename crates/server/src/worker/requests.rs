//! Requests as they come in: reading a connection, taking its requests apart and having each of them
//! executed, until there is no more or it is somebody else's turn.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use mio::Token;
use resp::{Limits, Parsed, Reply};
use smallvec::SmallVec;

use super::output::OUTPUT_PAUSE_BYTES;
use super::{FIRST_LISTENER, READ_BYTES, Ready, Shift, WAKER, WorkerLoop};
use crate::connection::{Connection, Hold};
use crate::{dispatch, look_ahead};

/// Bytes read from one connection in one turn.
const TURN_BYTES: usize = 4 << 20;
/// Replies waiting in one turn before they are sent, so that latency stays bounded.
const FLUSH_BYTES: usize = 1 << 20;

/// Room for the places of so many arguments is kept for the next request.
const SPANS_KEPT_MAX: usize = 4096;

impl WorkerLoop {
    /// Looks ahead over a batch and asks for the memory of its keys. Returns where the next look
    /// is due.
    fn prefetch(&self, db: u32, buffer: &[u8], from: usize) -> usize {
        let (targets, next) = look_ahead::targets(buffer, from);
        if targets.len() > 1 && self.enter_gate() {
            self.server.engine.prefetch(db, &targets);
        }
        next
    }

    fn on_event(&self, shift: &Shift, token: usize, ready: Ready) {
        let Some(mut connection) = self.take(token) else { return };
        connection.is_ending |= ready.ended;
        let has_output = connection.pending_output() > 0 || connection.stream.wants_write();
        if ready.writable && has_output && !connection.is_dirty {
            self.flush(&mut connection);
            self.go_on_if_drained(token, &connection);
        }
        if ready.readable && !connection.is_dead {
            self.receive(shift, token, &mut connection);
        }
        self.put(shift, token, connection);
    }

    /// Reads what there is and executes it.
    fn receive(&self, shift: &Shift, token: usize, connection: &mut Connection) {
        let mut received = 0;
        connection.may_read = true;
        if connection.stream.is_opening() && !self.shake_hands(shift, connection) {
            connection.may_read = false;
            return;
        }
        while connection.may_read && !connection.is_dead && received < TURN_BYTES {
            if connection.client.close_after_reply || self.is_shift_over.get() {
                break;
            }
            let count = if connection.input.is_empty() && connection.hold == Hold::None {
                let mut buffer = self.take_read_buffer();
                let count = self.read(connection, &mut buffer, 0);
                if count > 0 {
                    let used = self.execute(shift, token, connection, &mut buffer[..count]);
                    connection.input.extend_from_slice(&buffer[used..count]);
                }
                *self.read_buffer.borrow_mut() = buffer;
                count
            } else {
                let mut input = std::mem::take(&mut connection.input);
                let old = input.len();
                resp::reserve_for(&mut input, connection.needed, READ_BYTES);
                let room = (input.capacity() - old).clamp(1, 1 << 20);
                input.resize(old + room, 0);
                let count = self.read(connection, &mut input, old);
                input.truncate(old + count);
                if count > 0 && connection.hold == Hold::None {
                    let used = self.execute(shift, token, connection, &mut input);
                    input.drain(..used);
                }
                if input.is_empty() {
                    input = Vec::new();
                }
                connection.input = input;
                count
            };
            received += count;
            if count == 0 {
                break;
            }
            // One that says it will be too long is not waited for.
            let request_bytes = connection.input.len().max(connection.needed) as u64;
            if request_bytes > shift.config.client_query_buffer_limit_bytes {
                self.server.stats.query_buffer_disconnections.fetch_add(1, Ordering::Relaxed);
                connection.is_dead = true;
            }
        }
        if connection.may_read && !connection.is_dead && !connection.client.close_after_reply {
            self.unfinished.borrow_mut().push_back(token);
        }
    }

    /// Goes on with the handshake of a connection; true once it may send requests.
    fn shake_hands(&self, shift: &Shift, connection: &mut Connection) -> bool {
        match connection.stream.shake_hands() {
            Ok(false) => return false,
            Ok(true) => {}
            Err(error) => {
                self.give_up_handshake(connection, &error);
                return false;
            }
        }
        let denial = crate::listener::denial(&self.server, &shift.config, &connection.stream);
        let stats = &self.server.stats;
        match denial {
            Some(denial) => {
                stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
                connection.output.extend_from_slice(denial.as_bytes());
                connection.client.close_after_reply = true;
            }
            None => drop(stats.connections_received.fetch_add(1, Ordering::Relaxed)),
        }
        denial.is_none()
    }

    pub(super) fn give_up_handshake(
        &self,
        connection: &mut Connection,
        why: &dyn std::fmt::Display,
    ) {
        let info = &connection.client.info;
        crate::log_warning!(
            "Error accepting a client connection: {why} (addr={} laddr={})",
            info.address,
            info.local_address
        );
        connection.is_dead = true;
    }

    fn take_read_buffer(&self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut *self.read_buffer.borrow_mut());
        // Empty when a long script polls from within a command that was read into it.
        if buffer.is_empty() {
            buffer.resize(READ_BYTES, 0);
        }
        buffer
    }

    /// One read into `buffer[from..]`. Clears `may_read` when the socket is drained.
    fn read(&self, connection: &mut Connection, buffer: &mut [u8], from: usize) -> usize {
        let room = buffer.len() - from;
        loop {
            match connection.stream.read(&mut buffer[from..]) {
                Ok(0) => {
                    // It may have ended only its side, and wait for replies.
                    let has_replies = connection.pending_output() > 0;
                    connection.client.close_after_reply |= has_replies;
                    connection.is_dead |= !has_replies;
                    connection.may_read = false;
                    return 0;
                }
                Ok(count) => {
                    connection.may_read =
                        count == room || connection.is_ending || connection.stream.has_more();
                    self.stats.net_input_bytes.add(count as u64);
                    self.stats.reads.add(1);
                    let info = &connection.client.info;
                    info.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
                    return count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.may_read = connection.stream.has_more();
                    connection.is_ending = false;
                    return 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.is_dead = true;
                    return 0;
                }
            }
        }
    }

    /// Executes the requests in `buffer`; answers how many bytes are done with.
    fn execute(
        &self,
        shift: &Shift,
        token: usize,
        connection: &mut Connection,
        buffer: &mut [u8],
    ) -> usize {
        if connection.output.capacity() == 0
            && let Some(spare) = self.spare_buffers.borrow_mut().pop()
        {
            connection.output = spare;
        }
        self.request_bytes.set(buffer.len());
        let before = connection.pending_output();
        let mut spans = std::mem::take(&mut *self.spans.borrow_mut());
        let mut used = 0;
        connection.needed = 0;
        self.mark.set(self.ticker.now());
        let mut prefetched = 0;
        while connection.hold == Hold::None
            && !connection.client.close_after_reply
            && !connection.is_dead
            && !connection.client.info.is_closing.load(Ordering::Acquire)
            && !self.is_shift_over.get()
            && connection.pending_output() < OUTPUT_PAUSE_BYTES
            && used < buffer.len()
        {
            if used >= prefetched {
                prefetched = self.prefetch(connection.client.db, buffer, used);
            }
            let limits = Limits {
                bulk_len_max: shift.config.proto_max_bulk_len,
                authenticated: connection.client.is_authenticated,
            };
            match connection.parser.parse(&mut buffer[used..], &limits, &mut spans) {
                Ok(Parsed::Command { consumed }) => {
                    let request = &buffer[used..];
                    let mut args: SmallVec<[&[u8]; 16]> = SmallVec::new();
                    args.extend(spans.iter().map(|span| span.of(request)));
                    let outer = self.is_busy.replace(true);
                    let ran = dispatch::run(self, shift, token, connection, &args);
                    self.is_busy.set(outer);
                    if !ran {
                        // Held back: it is parsed again when the connection goes on.
                        break;
                    }
                    used += consumed;
                    if self.view.borrow().is_stale() && used < buffer.len() {
                        // The rest of the batch is to see the new configuration.
                        self.unfinished.borrow_mut().push_back(token);
                        break;
                    }
                }
                Ok(Parsed::Empty { consumed }) => used += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    connection.needed = needed;
                    break;
                }
                Err(error) => {
                    let protocol = connection.client.protocol;
                    error.write(&mut Reply::new(&mut connection.output, protocol));
                    self.server.count_error("ERR");
                    connection.client.close_after_reply = true;
                    used = buffer.len();
                }
            }
        }
        if spans.capacity() <= SPANS_KEPT_MAX {
            *self.spans.borrow_mut() = spans;
        }
        if self.is_shift_over.get() && used < buffer.len() {
            self.unfinished.borrow_mut().push_back(token);
        }
        let fresh = connection.pending_output().saturating_sub(before);
        self.unsent_bytes.set(self.unsent_bytes.get() + fresh);
        used
    }

    /// Handles what the poller reported. One event at a time leaves the queue: those behind a
    /// script that runs for long are then handled by `serve_others`.
    pub(super) fn on_ready(&self, shift: &Shift) {
        loop {
            let Some(ready) = self.ready.borrow_mut().pop_front() else { return };
            match ready.token {
                WAKER => {}
                token if token.0 >= FIRST_LISTENER => self.accept(token),
                Token(token) if self.is_running(token) => self.missed.borrow_mut().push(token),
                Token(token) => self.on_event(shift, token, ready),
            }
            if self.unsent_bytes.get() > FLUSH_BYTES {
                self.leave_gate();
                self.flush_all(shift);
            }
        }
    }

    /// Whether a command of this connection runs now, so that it cannot be looked at.
    pub(super) fn is_running(&self, token: usize) -> bool {
        self.is_busy.get() && self.connections.borrow().get(token).is_some_and(Option::is_none)
    }

    /// Goes on with connections that were cut short in an earlier turn or just released.
    pub(super) fn go_on_with_unfinished(&self, shift: &Shift) {
        let missed = std::mem::take(&mut *self.missed.borrow_mut());
        for token in missed {
            if self.is_running(token) {
                self.missed.borrow_mut().push(token);
            } else if let Some(Some(connection)) = self.connections.borrow_mut().get_mut(token) {
                connection.may_read = true;
                // Nobody looked at what the event said.
                connection.is_ending = true;
                self.unfinished.borrow_mut().push_back(token);
            }
        }
        let count = self.unfinished.borrow().len();
        for _ in 0..count {
            let Some(token) = self.unfinished.borrow_mut().pop_front() else { return };
            if self.is_running(token) {
                self.missed.borrow_mut().push(token);
            } else {
                self.go_on(shift, token);
            }
        }
    }

    pub(super) fn go_on(&self, shift: &Shift, token: usize) {
        let Some(mut connection) = self.take(token) else { return };
        if connection.hold == Hold::None && !connection.input.is_empty() {
            let mut input = std::mem::take(&mut connection.input);
            let used = self.execute(shift, token, &mut connection, &mut input);
            input.drain(..used);
            connection.input = if input.is_empty() { Vec::new() } else { input };
        }
        if connection.may_read && !connection.is_dead {
            self.receive(shift, token, &mut connection);
        }
        self.put(shift, token, connection);
    }
}
