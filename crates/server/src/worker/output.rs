//! Sending replies, at the end of a turn: what waits for the disk, what a client takes too slowly, and
//! what all clients take together.

use std::sync::atomic::Ordering;

use super::{Shift, WorkerLoop};
use crate::client::ClientInfo;
use crate::client_memory;
use crate::connection::{Connection, Hold};
use crate::session::client::OUTPUT_BUFFER_BYTES;

/// While a connection has more than this to take, none of its further requests is executed. They
/// are still read, so that a client which sends all before it reads anything gets there; how many
/// is up to client-query-buffer-limit.
pub(super) const OUTPUT_PAUSE_BYTES: usize = 16 << 20;
/// Output buffers up to this size are kept for the next connection that replies.
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;
const SPARE_BUFFERS_MAX: usize = 64;

impl WorkerLoop {
    pub(super) fn flush(&self, connection: &mut Connection) {
        let count = connection.flush(|| self.server.durability.aof.journal.durable());
        if count > 0 {
            self.stats.net_output_bytes.add(count as u64);
            self.stats.writes.add(1);
            connection.client.info.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
        }
        if connection.output.is_empty() && connection.output.capacity() > 0 {
            let buffer = std::mem::take(&mut connection.output);
            let mut spare = self.spare_buffers.borrow_mut();
            if buffer.capacity() <= SPARE_BUFFER_BYTES_MAX && spare.len() < SPARE_BUFFERS_MAX {
                spare.push(buffer);
            }
        }
        self.report_memory(connection, true);
    }

    /// Whether some of what waits for the append-only file may go now.
    pub(super) fn may_release(&self) -> bool {
        let journal = &self.server.durability.aof.journal;
        !self.held_back.borrow().is_empty()
            && (journal.durable() != self.seen_durable.get() || journal.is_denied())
    }

    /// Has output sent that is safe now. Who waits for what may never be safe is disconnected: what
    /// became of its commands is not known.
    pub(super) fn release_held_back(&self) {
        if !self.may_release() {
            return;
        }
        let journal = &self.server.durability.aof.journal;
        let durable = journal.durable();
        self.seen_durable.set(durable);
        for token in std::mem::take(&mut *self.held_back.borrow_mut()) {
            let mut connections = self.connections.borrow_mut();
            let Some(Some(connection)) = connections.get_mut(token) else {
                drop(connections);
                if self.is_running(token) {
                    self.held_back.borrow_mut().push(token);
                }
                continue;
            };
            connection.is_listed = false;
            if journal.is_denied() && connection.held_back_for() > durable {
                connection.is_dead = true;
            }
            if !connection.is_dirty {
                connection.is_dirty = true;
                self.dirty.borrow_mut().push(token);
            }
        }
    }

    /// Keeps count of what clients take.
    pub(super) fn report_memory(&self, connection: &Connection, is_flushed: bool) {
        connection.report_buffers(is_flushed);
        let info = &connection.client.info;
        self.server.client_memory.note(info, info.sum_of_parts());
    }

    /// maxmemory-clients.
    pub(super) fn evict_clients(&self, shift: &Shift) {
        if self.server.client_memory.is_over_limit(&shift.config)
            && client_memory::is_anyone_mortal(&self.server)
            && self.enter_all_gates()
        {
            let now_ms = self.clock.get().wall_ms;
            let describe = |info: &ClientInfo| crate::session::client::describe(info, now_ms);
            client_memory::evict(&self.server, &shift.config, describe);
            self.leave_all_gates();
        }
    }

    /// Has a connection go on whose requests waited for its output to be taken.
    pub(super) fn go_on_if_drained(&self, token: usize, connection: &Connection) {
        let has_requests = !connection.input.is_empty() && !connection.parser.is_partial();
        if has_requests
            && connection.hold == Hold::None
            && connection.pending_output() < OUTPUT_PAUSE_BYTES
        {
            self.unfinished.borrow_mut().push_back(token);
        }
    }

    pub(super) fn flush_all(&self, shift: &Shift) {
        self.unsent_bytes.set(0);
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        let mut holds_back = false;
        for token in dirty.drain(..) {
            let Some(mut connection) = self.take(token) else {
                // Its script has others served: the next flush is for it.
                if self.is_running(token) {
                    self.dirty.borrow_mut().push(token);
                }
                continue;
            };
            connection.is_dirty = false;
            self.flush(&mut connection);
            self.go_on_if_drained(token, &connection);
            if connection.pending_output() > 0 {
                self.limit_output(shift, &mut connection);
            }
            if connection.is_held_back() {
                holds_back = true;
                if !std::mem::replace(&mut connection.is_listed, true) {
                    self.held_back.borrow_mut().push(token);
                }
            }
            // It is still over when `put` sees output left: the poller says when to go on.
            if connection.is_dead
                || (connection.client.close_after_reply && connection.pending_output() == 0)
            {
                self.close(shift, token, connection);
            } else {
                self.connections.borrow_mut()[token] = Some(connection);
            }
        }
        let mut list = self.dirty.borrow_mut();
        dirty.append(&mut list);
        *list = dirty;
        if holds_back {
            self.server.durability.aof.journal.wait(self.id);
        }
    }

    /// client-output-buffer-limit: disconnects whoever does not read what it asked for.
    pub(super) fn limit_output(&self, shift: &Shift, connection: &mut Connection) {
        let class = if connection.client.is_subscriber() {
            &shift.config.client_output_buffer_limit.pubsub
        } else {
            &shift.config.client_output_buffer_limit.normal
        };
        // As Redis counts it: not what every connection has room for.
        let pending = connection.pending_output().saturating_sub(OUTPUT_BUFFER_BYTES) as u64;
        let now_ms = self.clock.get().wall_ms;
        let over_hard = class.hard_bytes > 0 && pending > class.hard_bytes;
        let over_soft = class.soft_bytes > 0 && pending > class.soft_bytes;
        let since = match (over_soft, connection.over_soft_limit_since_ms) {
            (false, _) => None,
            (true, None) => Some(now_ms),
            (true, since) => since,
        };
        connection.over_soft_limit_since_ms = since;
        let too_long = since.is_some_and(|since| now_ms - since > class.soft_seconds as i64 * 1000);
        if over_hard || too_long {
            crate::log_warning!(
                "Client id={} addr={} closed for overcoming of output buffer limits.",
                connection.client.info.id,
                connection.client.info.address
            );
            self.server.stats.output_buffer_disconnections.fetch_add(1, Ordering::Relaxed);
            connection.is_dead = true;
        }
    }
}
