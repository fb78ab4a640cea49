//! What a worker does `hz` times a second: its share of expiring keys, save points, idle clients.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::{Plan, Txn};

use super::{Shift, WorkerLoop};
use crate::connection::Hold;
use crate::durability::journal::UNWRITTEN_MS_MAX;
use crate::{dispatch, durability, memory, tls};

impl WorkerLoop {
    pub(super) fn cron(&self, shift: &Shift) {
        let period = Duration::from_millis(1000 / u64::from(shift.config.hz.clamp(1, 500)));
        self.cron_at.set(self.clock.get().at + period);
        if self.server.is_cron_paused.load(Ordering::Relaxed) {
            return;
        }
        let now_ms = self.clock.get().wall_ms;
        let is_loading = self.server.durability.loading.is_on();
        if self.server.active_expire.load(Ordering::Relaxed)
            && !is_loading
            && !self.server.durability.delays_writes()
            && !self.server.is_paused(true, now_ms)
            && self.enter_gate()
        {
            // A quarter of the period, as Redis allows its slow cycle.
            let budget = period / 4;
            let started = Instant::now();
            let (turn, ready) = self.server.engine.expire_cycle(
                &shift.worker,
                self.server.mailboxes.len(),
                self.expire_turn.get(),
                now_ms,
                || started.elapsed() > budget || self.server.engine.gates().is_wanted(),
            );
            self.expire_turn.set(turn);
            let (ns, threshold_ms) =
                (started.elapsed().as_nanos() as u64, shift.config.latency_monitor_threshold_ms);
            self.server.latency.note("expire-cycle", ns, threshold_ms, now_ms);
            dispatch::serve_waiters(self, shift, ready);
        }
        if !is_loading && dispatch::is_over_memory_limit(shift) {
            let _ = dispatch::make_room(self, shift, now_ms);
        }
        if self.id == 0
            && durability::save::is_due(&self.server, &shift.config)
            && self.enter_all_gates()
        {
            let engine = &self.server.engine;
            let mut txn = Txn::begin(engine, &shift.worker, Plan::Exclusive, now_ms);
            // The log says what went wrong; it is tried again.
            let _ = durability::save::in_background(&self.server, &mut txn);
            txn.commit();
            self.leave_all_gates();
        }
        self.close_idle(shift, now_ms);
        if self.id == 0 {
            self.server.migrations.links.close_idle();
        }
        self.server.durability.aof.journal.look_at_age(UNWRITTEN_MS_MAX);
        // The peak has to be seen now and then even if nobody asks.
        memory::used_bytes();
    }

    /// timeout: closes clients that were silent for too long.
    fn close_idle(&self, shift: &Shift, now_ms: i64) {
        let count = self.connections.borrow().len();
        for token in 0..count {
            let Some(mut connection) = self.take(token) else { continue };
            if connection.over_soft_limit_since_ms.is_some() {
                self.limit_output(shift, &mut connection);
            }
            let last_ms = connection.client.info.last_active_ms.load(Ordering::Relaxed);
            let limit_ms = i64::from(shift.config.timeout_seconds) * 1000;
            let exempt = connection.hold == Hold::Blocked
                || connection.client.is_subscriber()
                || connection.client.is_monitor;
            if limit_ms > 0 && !exempt && now_ms - last_ms > limit_ms {
                connection.is_dead = true;
            }
            if connection.stream.is_opening()
                && now_ms - connection.client.info.created_ms > tls::HANDSHAKE_MS_MAX
            {
                self.give_up_handshake(&mut connection, &"the handshake takes too long");
            }
            if connection.is_dead {
                self.close(shift, token, connection);
            } else {
                self.connections.borrow_mut()[token] = Some(connection);
            }
        }
    }
}
