//! What a running script sees of the server: `redis.call` ends in the same `dispatch::execute` as
//! a client's command. Made by `script::run` for one run; knows nothing of caches and VMs.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command::{Blocking, Call, Error, Row, flag};
use engine::{Plan, Txn};
use lua::{Host, LogLevel, Script, Tick};
use resp::{Answer, Protocol};

use super::Meter;
use super::watch::RunNumber;
use crate::acl::log::Context;
use crate::client::Client;
use crate::dispatch;
use crate::log::Level;
use crate::outbox::Mark;
use crate::request::Origin;
use crate::session::acl;
use crate::table::{Registered, table};
use crate::worker::{Shift, WorkerLoop};

/// How long a script waits for a lock it did not declare: others may wait for its own.
const EXTEND_PATIENCE: Duration = Duration::from_micros(100);

/// How often others are served while a script is busy with what is no step of it.
const TICK: Duration = Duration::from_millis(10);

/// States of a script in which some commands need care.
pub(super) mod state {
    /// It is over, though it may not have noticed yet.
    pub const OVER: u8 = 1 << 0;
    /// It has not written yet.
    pub const UNWRITTEN: u8 = 1 << 1;
    pub const READ_ONLY: u8 = 1 << 2;
    /// Memory was short when it began, and it has not written yet.
    pub const OUT_OF_MEMORY: u8 = 1 << 3;
    /// All its calls are timed now.
    pub const TIMED: u8 = 1 << 4;
    /// Its user may not do everything.
    pub const RESTRICTED: u8 = 1 << 5;
    /// Every state.
    pub const ANY: u8 = 1 << 6;
    /// The disk had failed when it began, and it has not written yet; or a snapshot is being taken.
    pub const DISK: u8 = 1 << 7;
}

/// The states in which a command needs care.
pub fn minds(row: &Row) -> u8 {
    let mut minds = state::OVER | state::RESTRICTED | state::TIMED;
    if super::may_be_long(row.name) {
        minds |= state::ANY;
    }
    if row.has(flag::WRITE) {
        minds |= state::UNWRITTEN | state::READ_ONLY | state::DISK;
    }
    if row.has(flag::MAY_REPLICATE) {
        minds |= state::READ_ONLY;
    }
    if row.has(flag::DENYOOM) {
        minds |= state::OUT_OF_MEMORY;
    }
    minds
}

/// A function that runs, as it was called.
pub(super) struct Called<'h> {
    pub script: &'h Script,
    pub keys: &'h [&'h [u8]],
    pub args: &'h [&'h [u8]],
    /// The command that called it, as it was written.
    pub command: &'h [u8],
}

impl Called<'_> {
    /// The command that called it.
    fn command(&self) -> Vec<Box<[u8]>> {
        let count = self.keys.len().to_string();
        let head = [self.command, self.script.label().as_bytes(), count.as_bytes()];
        head.iter().chain(self.keys).chain(self.args).map(|word| Box::from(*word)).collect()
    }
}

/// Why a script ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Killed,
    /// After so many ms.
    Deadline(u64),
    /// It would take more memory than this to undo it.
    UndoLimit(usize),
    /// It ran from within another script, and may not go on there.
    Leash,
}

impl End {
    pub fn text(self) -> String {
        match self {
            End::Killed => "ERR Script killed by user with SCRIPT KILL...".into(),
            End::Deadline(ms) => format!("ERR Script ended by its deadline of {ms} ms"),
            End::UndoLimit(bytes) => {
                format!("ERR Script changes more than script-undo-limit ({bytes} bytes) can undo")
            }
            // Nobody hears it.
            End::Leash => "ERR the script is run again".into(),
        }
    }
}

pub(super) fn log_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Debug => Level::Debug,
        LogLevel::Verbose => Level::Verbose,
        LogLevel::Notice => Level::Notice,
        LogLevel::Warning => Level::Warning,
    }
}

/// What a running script sees of the server.
pub(super) struct ScriptHost<'h, 'e> {
    pub commands: &'static [Registered],
    /// Longest string a command may make.
    pub bulk_bytes_max: usize,
    pub lp: &'h WorkerLoop,
    pub shift: &'e Shift,
    pub client: &'h mut Client,
    pub txn: &'h mut Txn<'e>,
    pub run: RunNumber,
    /// A set of `state`.
    pub state: u8,
    /// What it had said when it first wrote.
    pub written_from: Option<Mark>,
    /// What it does can be rolled back, within this many bytes.
    pub undo_limit_bytes: Option<usize>,
    /// So many of them are left beside what waits in the outbox.
    pub undo_room_bytes: usize,
    /// When it is to end by itself, and after how many ms that is.
    pub deadline: Option<(Instant, u64)>,
    pub end: Option<End>,
    /// It is a function.
    pub called: Option<Called<'h>>,
    /// Calls it has made.
    pub calls: u64,
    /// So many of them were counted when it ran before.
    pub counted_calls: u64,
    /// An error reply of a call went into the statistics.
    pub has_counted_error: bool,
    /// It could not have a lock: whatever it still does is for nothing.
    pub restarts: bool,
    pub meter: Meter,
}

impl ScriptHost<'_, '_> {
    /// Ends the script if it has been stopped.
    #[inline]
    fn look_at_end(&mut self) -> Option<End> {
        if self.end.is_none() && self.txn.should_stop() {
            let late = self.deadline.filter(|(at, _)| Instant::now() >= *at);
            self.finish(match late {
                Some((_, ms)) => End::Deadline(ms),
                None if self.run.is_nested() => End::Leash,
                None => End::Killed,
            });
        }
        self.end
    }

    #[cold]
    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.state |= state::OVER;
    }

    /// Ends the script if undoing it would take too much memory.
    #[inline(always)]
    fn look_at_undo_limit(&mut self) {
        if self.txn.undo_bytes() > self.undo_room_bytes {
            self.end_by_undo_limit();
        }
    }

    #[cold]
    fn end_by_undo_limit(&mut self) {
        self.finish(End::UndoLimit(self.undo_limit_bytes.unwrap_or(0)));
        self.lp.server.scripts.watch.stop(self.lp.id, self.run);
    }

    /// What waits in the outbox has changed.
    fn measure_undo_room(&mut self) {
        if let Some(limit_bytes) = self.undo_limit_bytes {
            let said_bytes = self.lp.outbox.borrow().bytes();
            // Without any room the first byte is too much; what was said alone is, too.
            match limit_bytes.checked_sub(said_bytes) {
                Some(room_bytes) => self.undo_room_bytes = room_bytes,
                None => {
                    self.finish(End::UndoLimit(limit_bytes));
                    self.lp.server.scripts.watch.stop(self.lp.id, self.run);
                }
            }
        }
    }

    /// Why a script may not run this command now.
    fn refusal(&self, command: &Registered, args: &[&[u8]]) -> Option<Error> {
        let row = command.row;
        if row.has(flag::NOSCRIPT) && !self.lp.server.scripts.may_call_all.load(Ordering::Relaxed) {
            return Some(Error::of("ERR This Redis command is not allowed from script"));
        }
        if let Err(denied) = self.client.user.check(command, args) {
            let text = acl::refused(self.lp, self.client, denied, command, args, Context::Lua);
            return Some(Error::new(format!("ERR ACL failure in script: {text}")));
        }
        // PUBLISH and PFCOUNT, too: read-only scripts go on while writing is paused.
        if self.is(state::READ_ONLY) && row.has(flag::WRITE | flag::MAY_REPLICATE) {
            return Some(Error::of("ERR Write commands are not allowed from read-only scripts."));
        }
        if self.is(state::OUT_OF_MEMORY) && row.has(flag::DENYOOM) {
            return Some(Error::OOM);
        }
        if self.is(state::DISK) && self.is(state::UNWRITTEN) && row.has(flag::WRITE) {
            return self.lp.server.durability.refuses_writes(&self.shift.config);
        }
        None
    }

    pub fn has_written(&self) -> bool {
        !self.is(state::UNWRITTEN)
    }

    /// A call came to nothing. It counts as an error whether the script catches it or not.
    fn count_refusal(&mut self, code: &str) {
        self.lp.server.count_error(code);
        self.has_counted_error = true;
    }

    #[inline]
    fn is(&self, state: u8) -> bool {
        self.state & state != 0
    }

    /// Has long values that a command may change saved for the snapshot first: a script cannot wait
    /// for that outside of its locks, so it does it itself, and serves others in between.
    #[cold]
    fn save_ahead(&mut self, row: &Row, args: &[&[u8]]) {
        let mut looked_at = Instant::now();
        for at in row.keys_changed(args) {
            while !self.txn.save_part(args[at]) {
                if looked_at.elapsed() < TICK {
                    continue;
                }
                if self.tick() == Tick::Kill {
                    return;
                }
                looked_at = Instant::now();
            }
        }
    }

    /// Takes the locks of a command that the script does not hold yet.
    fn lock(&mut self, command: &Registered, args: &[&[u8]]) -> bool {
        let engine = self.txn.engine();
        if let Some(key) = dispatch::only_key(command.row, args) {
            return self.txn.extend(&[engine.key_shard(key)], EXTEND_PATIENCE);
        }
        match dispatch::plan(engine, command.row, args) {
            Plan::Shards(shards) => self.txn.extend(&shards, EXTEND_PATIENCE),
            Plan::Exclusive | Plan::Walk => false,
        }
    }
}

impl ScriptHost<'_, '_> {
    /// A call of which anything may be special.
    #[inline(never)]
    fn call_with_care(
        &mut self,
        mut command: &'static Registered,
        args: &[&[u8]],
        protocol: Protocol,
        answer: &mut Answer,
    ) {
        // Only a plain call says at once which key it is about.
        self.txn.forget_key();
        if let Some(end) = self.look_at_end() {
            return answer.reply(protocol).error(&end.text());
        }
        if !command.subcommands.is_empty() || !command.row.accepts(args.len()) {
            command = match table().find(args) {
                Ok(command) => command,
                Err(error) => {
                    let text = match command.row.accepts(args.len()) {
                        true => &*error.0,
                        false => "ERR Wrong number of args calling Redis command from script",
                    };
                    self.count_refusal(error.code());
                    return answer.reply(protocol).error(text);
                }
            };
        }
        // Uncaught, the error ends the script at once; else it goes on until its next tick.
        self.restarts |= !self.txn.is_exclusive() && !self.lock(command, args);
        if self.restarts {
            self.state |= state::OVER;
            return answer.reply(protocol).error("ERR the script is run again");
        }
        if let Some(error) = self.refusal(command, args) {
            self.lp.stats.rejected(command.id);
            self.count_refusal(error.code());
            return answer.reply(protocol).error(&error.0);
        }
        if command.row.has(flag::WRITE) && self.is(state::UNWRITTEN) {
            self.state &= !(state::UNWRITTEN | state::OUT_OF_MEMORY);
            if !self.txn.has_snapshot() {
                self.state &= !state::DISK;
            }
            self.written_from = Some(self.lp.outbox.borrow().mark());
            if self.undo_limit_bytes.is_none()
                && !self.lp.server.scripts.watch.note_write(self.lp.id)
            {
                self.finish(End::Killed);
                return answer.reply(protocol).error(&End::Killed.text());
            }
        }
        if self.is(state::DISK) && command.row.has(flag::WRITE) {
            self.save_ahead(command.row, args);
            if let Some(end) = self.look_at_end() {
                return answer.reply(protocol).error(&end.text());
            }
        }
        if self.lp.server.monitor_count.load(Ordering::Relaxed) > 0 {
            crate::session::monitor::feed(self.lp, "lua", self.client.db, command, args);
        }
        self.client.protocol = protocol;
        let wait = dispatch::execute(
            self.lp,
            self.shift,
            self.client,
            command,
            args,
            self.txn,
            answer.encoded(),
            Origin::Script,
            Blocking::Never,
        );
        debug_assert!(wait.is_none(), "nothing waits inside a script");
        self.measure_undo_room();
        self.ran(command, protocol, answer);
        self.txn.select(self.client.db);
    }

    /// Takes the short way, unless the call needs care for more than its time; answers whether.
    #[inline(always)]
    fn call_plainly(
        &mut self,
        command: &'static Registered,
        args: &[&[u8]],
        protocol: Protocol,
        answer: &mut Answer,
        state: u8,
    ) -> bool {
        if let Some(plain) = &command.in_script
            && (plain.args_min..=plain.args_max).contains(&args.len())
            && state & plain.minds == 0
            && self.lp.server.monitor_count.load(Ordering::Relaxed) == 0
            && self.txn.expect_key(args[1])
        {
            self.txn.begin_command();
            if let Some(quick) = plain.quick
                && let Some(value) = quick(self.txn, args)
            {
                answer.lend(value);
                if plain.minds & state::UNWRITTEN != 0 {
                    self.look_at_undo_limit();
                }
                self.count(command, false);
                return true;
            }
            command::expire_fields(self.txn, command.row, args);
            let mut call = Call::new(self.txn, answer.reply(protocol), Blocking::Never);
            call.bulk_bytes_max = self.bulk_bytes_max;
            let result = (plain.handler)(&mut call, args);
            if let Err(error) = result {
                self.lp.server.count_error(error.code());
                answer.reply(protocol).error(&error.0);
            }
            self.ran(command, protocol, answer);
            return true;
        }
        false
    }

    #[inline(never)]
    fn call_timed(
        &mut self,
        command: &'static Registered,
        args: &[&[u8]],
        protocol: Protocol,
        answer: &mut Answer,
    ) {
        let started = self.lp.ticks();
        let untimed = self.state & !(state::TIMED | state::ANY);
        if !self.call_plainly(command, args, protocol, answer, untimed) {
            self.call_with_care(command, args, protocol, answer);
        }
        let ns = self.lp.ns_since(started);
        self.meter.note(&self.lp.server.engine, self.client.db, command, args, ns);
        if !self.meter.times_all() {
            self.state &= !state::TIMED;
        }
    }

    /// A command has run and answered.
    #[inline(always)]
    fn ran(&mut self, command: &Registered, protocol: Protocol, answer: &mut Answer) {
        let failed = answer.is_error();
        if let Some(end) = self.look_at_end() {
            // The command may have given up in the middle.
            answer.reply(protocol).error(&end.text());
        }
        self.look_at_undo_limit();
        self.has_counted_error |= failed;
        self.count(command, failed);
    }

    #[inline(always)]
    fn count(&mut self, command: &Registered, failed: bool) {
        self.calls += 1;
        if self.calls > self.counted_calls {
            self.lp.stats.ran_in_script(command.id, failed);
        }
    }
}

impl Host for ScriptHost<'_, '_> {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let command = table().by_name(name)?;
        command.parent.is_none().then_some(command.id as u32)
    }

    #[inline]
    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        let command = &self.commands[command as usize];
        if self.call_plainly(command, args, protocol, answer, self.state) {
            return;
        }
        match command.may_be_long || self.is(state::TIMED) {
            true => self.call_timed(command, args, protocol, answer),
            false => self.call_with_care(command, args, protocol, answer),
        }
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        let level = log_level(level);
        let text = String::from_utf8_lossy(message);
        // What is run again logs again, and what was undone never happened.
        let mut outbox = self.lp.outbox.borrow_mut();
        let may_be_undone =
            !self.is(state::UNWRITTEN) || !self.txn.is_exclusive() || outbox.is_trial();
        if self.undo_limit_bytes.is_none() || !may_be_undone {
            crate::log::write(level, format_args!("{text}"));
            return;
        }
        outbox.log(level, text.into_owned());
        drop(outbox);
        self.measure_undo_room();
        self.look_at_undo_limit();
    }

    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()> {
        let command = table().find(args).map_err(|_| ())?;
        Ok(self.client.user.check(command, args).is_ok())
    }

    fn tick(&mut self) -> Tick {
        let (lp, watch) = (self.lp, &self.lp.server.scripts.watch);
        if lp.server.is_shutting_down() {
            self.finish(End::Killed);
        } else if self.run.is_nested() && watch.is_stopped(lp.id) {
            self.finish(End::Leash);
        }
        if self.restarts || self.look_at_end().is_some() {
            return Tick::Kill;
        }
        if self.run.is_nested() {
            return Tick::Continue;
        }
        watch.note_held(lp.id, self.txn.held());
        if let Some(called) = &self.called {
            watch.note_function(lp.id, self.run, || called.command());
        }
        // In isolation mode a script keeps everybody waiting until it is busy. Else those are served
        // who need no locks: SCRIPT KILL before all.
        if self.undo_limit_bytes.is_some() || watch.is_busy() {
            lp.serve_others(!self.txn.is_exclusive());
        }
        self.meter.tick();
        self.state |= state::TIMED;
        match self.look_at_end() {
            Some(_) => Tick::Kill,
            None => Tick::Continue,
        }
    }

    fn kill_reason(&self) -> String {
        self.end.unwrap_or(End::Killed).text()
    }
}
