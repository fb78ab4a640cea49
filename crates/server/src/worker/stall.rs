//! What a worker does while a lock it needs is kept for long: connections stall and are offered
//! again, chores are left for later, and a worker inside of a script serves its other connections
//! from there.
//!
//! Nobody waits for a lock for longer than a moment, or one long script would keep clients from
//! being served that have nothing to do with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{KeyName, Plan, Waiter, Watch};
use mio::Events;

use super::{Ready, Shift, WorkerLoop};
use crate::connection::{Connection, Hold};
use crate::dispatch;
use crate::mailbox::Mail;
use crate::script::{NEST_LEASH, Obstacle};

/// How long a worker waits for its gate, once in a turn.
const GATE_PATIENCE: Duration = Duration::from_millis(10);
/// How long a worker waits for shards, once in a turn: commands take microseconds.
const SHARD_PATIENCE: Duration = Duration::from_millis(1);
/// How long a walk waits for each shard while nobody is known to keep one for long; it has to
/// begin anew when it gives up.
const WALK_PATIENCE: Duration = Duration::from_millis(50);
/// How long a worker inside of a script serves others while requests come in: most clients send
/// the next one within that time, and need not wait for the next interrupt, 10 ms later. It is
/// what a script may lose of each such period.
const LINGER: Duration = Duration::from_millis(3);
/// How long it waits for the next request; as short as the poller can.
const LINGER_PATIENCE: Duration = Duration::from_millis(1);
/// How soon stalled connections are offered again.
pub(super) const STALL_PERIOD: Duration = Duration::from_millis(1);

/// What is done under a shard's lock for nobody who waits for it.
pub enum Chore {
    /// A waiter that is done or cancelled is still in queues.
    Waiter(Arc<Waiter>),
    /// Nobody watches with this watch any more.
    Watch(KeyName, Arc<Watch>),
}

impl WorkerLoop {
    /// At the beginning of a turn.
    pub(super) fn renew_patience(&self) {
        self.is_gate_refused.set(false);
        self.is_shard_refused.set(false);
    }

    /// Enters the gate of this worker; false when it is not to be had soon.
    pub fn enter_gate(&self) -> bool {
        if self.is_pinned() {
            return self.in_gate.get();
        }
        let gates = self.server.engine.gates();
        if self.in_gate.get() {
            if !gates.is_wanted() {
                return true;
            }
            self.leave_gate();
        }
        let patience = if self.is_gate_refused.get() { Duration::ZERO } else { GATE_PATIENCE };
        let entered = gates.enter(self.id, Some(patience));
        self.is_gate_refused.set(!entered);
        self.in_gate.set(entered);
        entered
    }

    pub fn leave_gate(&self) {
        // A script that runs here has its locks under it.
        if !self.is_pinned() && self.in_gate.replace(false) {
            // SAFETY: entered on this thread, as the flag says.
            unsafe { self.server.engine.gates().leave(self.id) };
        }
    }

    /// Takes every gate; false when they are not to be had soon.
    pub fn enter_all_gates(&self) -> bool {
        let watch = &self.server.scripts.watch;
        if self.is_pinned() || watch.is_long() {
            return false;
        }
        self.leave_gate();
        // Who waits for commands keeps its turn; for scripts it does not.
        let give_up = || watch.is_long() || watch.is_busy();
        self.server.engine.gates().enter_all(Some(GATE_PATIENCE), give_up)
    }

    pub fn leave_all_gates(&self) {
        // SAFETY: called by whoever got true from `enter_all_gates`, on this thread.
        unsafe { self.server.engine.gates().leave_all() };
    }

    /// How long a transaction may wait for its locks.
    pub fn lock_patience(&self, plan: &Plan) -> Duration {
        match plan {
            _ if self.is_shard_refused.get() => Duration::ZERO,
            Plan::Walk if !self.is_pinned() && !self.server.scripts.watch.is_long() => {
                WALK_PATIENCE
            }
            _ => SHARD_PATIENCE,
        }
    }

    /// Somebody works on this shard: who comes later in this turn does not wait at all.
    pub fn refused(&self, shard: u16) -> Obstacle {
        self.is_shard_refused.set(true);
        Obstacle::Shard(shard)
    }

    /// Holds a connection back until what its next request needs may be free.
    pub fn stall(&self, token: usize, connection: &mut Connection, obstacle: Obstacle) {
        connection.hold = Hold::Stalled;
        self.stalled.borrow_mut().push_back(token);
        if matches!(obstacle, Obstacle::AllGates | Obstacle::Walk(_)) {
            self.is_waiting_again.set(true);
            self.set_waiting(true);
        }
    }

    /// While plans for all keys wait, no further scripts begin, or they might wait for ever.
    fn set_waiting(&self, waits: bool) {
        if self.is_waiting.replace(waits) != waits {
            self.server.scripts.watch.set_waiting(self.id, waits);
        }
    }

    /// Offers every stalled connection again, in the order in which they stalled.
    pub(super) fn offer_stalled(&self, shift: &Shift) {
        if self.stalled.borrow().is_empty() {
            self.set_waiting(false);
            return;
        }
        self.is_waiting_again.set(false);
        // What a script keeps is not to be had in a moment: nobody else is to wait for it.
        self.is_shard_refused.set(self.server.scripts.watch.is_long());
        let count = self.stalled.borrow().len();
        for _ in 0..count {
            // From within a script that one of them runs, this goes on with those behind it.
            let Some(token) = self.stalled.borrow_mut().pop_front() else { break };
            if let Some(Some(connection)) = self.connections.borrow_mut().get_mut(token)
                && connection.hold == Hold::Stalled
            {
                connection.hold = Hold::None;
            }
            self.go_on(shift, token);
        }
        self.is_shard_refused.set(false);
        if !self.is_waiting_again.get() {
            self.set_waiting(false);
        }
    }

    /// A connection is closed.
    pub(super) fn forget_stalled(&self, token: usize) {
        self.stalled.borrow_mut().retain(|stalled| *stalled != token);
    }

    /// Does a chore, now or as soon as its locks are to be had.
    pub fn see_to(&self, shift: &Shift, chore: Chore) {
        if !self.try_chore(shift, &chore) {
            self.chores.borrow_mut().push(chore);
        }
    }

    fn try_chore(&self, shift: &Shift, chore: &Chore) -> bool {
        if !self.enter_gate() {
            return false;
        }
        let (engine, patience) = (&self.server.engine, Some(Duration::ZERO));
        match chore {
            Chore::Waiter(waiter) => engine.forget_waiter(&shift.worker, waiter, patience),
            Chore::Watch(name, watch) => engine.forget_watch(&shift.worker, name, watch, patience),
        }
    }

    /// Does what was left for later.
    pub(super) fn do_chores(&self, shift: &Shift) {
        if !self.chores.borrow().is_empty() {
            let chores = std::mem::take(&mut *self.chores.borrow_mut());
            chores.into_iter().for_each(|chore| self.see_to(shift, chore));
        }
        if !self.unserved.borrow().is_empty() {
            let unserved = std::mem::take(&mut *self.unserved.borrow_mut());
            dispatch::serve_waiters(self, shift, unserved);
        }
    }

    /// Whether something waits for locks that others keep.
    pub(super) fn is_held_up(&self) -> bool {
        !self.stalled.borrow().is_empty()
            || !self.chores.borrow().is_empty()
            || !self.unserved.borrow().is_empty()
    }

    /// A script begins on this worker: the gates stay as they are until `unpin`. Answers how many
    /// run here already, which is also the VM it is to run in.
    pub fn pin(&self) -> usize {
        let level = self.scripts.get();
        self.scripts.set(level + 1);
        level
    }

    pub fn unpin(&self) {
        self.scripts.set(self.scripts.get() - 1);
    }

    /// Whether a script runs on this worker.
    pub fn is_pinned(&self) -> bool {
        self.scripts.get() > 0
    }

    /// How many scripts run on this worker: the VM that is free.
    pub fn level(&self) -> usize {
        self.scripts.get()
    }

    /// Whether another script may begin from within the one that runs here. It must not when that
    /// one is to end, nor when others have had their share of this turn.
    pub fn can_nest(&self) -> bool {
        let is_in_time = |until: Instant| Instant::now() < until;
        self.scripts.get() == 1
            && self.nests_until.get().is_some_and(is_in_time)
            && !self.server.scripts.watch.is_stopped(self.id)
    }

    /// Turns of the loop from within a script, for all connections but its own: one, and more for
    /// a moment as long as there is something to do. What the script has going is set aside
    /// meanwhile. `nests` says that other scripts may run.
    pub fn serve_others(&self, nests: bool) {
        self.nests_until.set(nests.then(|| Instant::now() + NEST_LEASH));
        let (mark, clock) = (self.mark.get(), self.clock.get());
        let outbox = std::mem::take(&mut *self.outbox.borrow_mut());
        let held_lines = self.held_lines.take();
        let request_bytes = self.request_bytes.get();
        let was_over = self.is_shift_over.get();
        let started = self.ticker.now();

        let until = Instant::now() + LINGER;
        let mut patience = Duration::ZERO;
        let mut is_renewed = false;
        let mut events = Events::with_capacity(256);
        while self.turn_from_within(&mut events, patience, &mut is_renewed) {
            patience = until.saturating_duration_since(Instant::now()).min(LINGER_PATIENCE);
            let is_over = patience.is_zero() || self.server.scripts.watch.is_stopped(self.id);
            if is_over || self.server.is_shutting_down() {
                break;
            }
        }

        self.nests_until.set(None);
        *self.outbox.borrow_mut() = outbox;
        *self.held_lines.borrow_mut() = held_lines;
        self.request_bytes.set(request_bytes);
        self.clock.set(clock);
        // Not the script's time.
        self.mark.set(mark + (self.ticker.now() - started));
        // The turn around this one goes by the old configuration.
        self.is_shift_over.set(was_over || is_renewed);
    }

    /// One of them. Answers whether something came in.
    fn turn_from_within(
        &self,
        events: &mut Events,
        patience: Duration,
        is_renewed: &mut bool,
    ) -> bool {
        let polled = self.poll.borrow_mut().poll(events, Some(patience)).is_ok();
        self.look_at_clock();
        self.mark.set(self.ticker.now());
        *is_renewed |= self.renew_shift();
        let shift = self.shift.borrow().clone();
        self.renew_patience();
        if polled {
            self.ready.borrow_mut().extend(events.iter().map(Ready::from));
        }
        self.offer_stalled(&shift);
        self.on_ready(&shift);
        let mut mails = Vec::new();
        self.server.mailboxes[self.id].take(&mut mails);
        let (later, mut now): (Vec<Mail>, Vec<Mail>) =
            mails.into_iter().partition(|mail| mail.token().is_some_and(|to| self.is_running(to)));
        self.postponed_mail.borrow_mut().extend(later);
        self.handle_mail(&shift, &mut now);
        self.go_on_with_unfinished(&shift);
        self.do_chores(&shift);
        self.release_held_back();
        self.release_synced(&shift);
        self.flush_all(&shift);
        self.time_out_blocked(&shift);
        self.end_pause();
        polled && !events.is_empty()
    }
}
