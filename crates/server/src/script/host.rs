//! What a running script sees of the server: `redis.call` ends in the same `dispatch::execute` as
//! a client's command. Made by `script::run` for one run; knows nothing of caches and VMs.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command::{Blocking, Error, flag};
use engine::{Plan, Txn};
use lua::{Host, LogLevel, Tick};
use resp::{Protocol, Reply};

use crate::client::Client;
use crate::dispatch;
use crate::log::Level;
use crate::outbox::Mark;
use crate::request::Origin;
use crate::table::{Registered, table};
use crate::worker::{Shift, WorkerLoop};

/// How long a script waits for a lock it did not declare: others may wait for its own.
const EXTEND_PATIENCE: Duration = Duration::from_micros(100);
/// Why a script ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Killed,
    /// After so many ms.
    Deadline(u64),
    /// It would take more memory than this to undo it.
    UndoLimit(usize),
}

impl End {
    pub fn text(self) -> String {
        match self {
            End::Killed => "ERR Script killed by user with SCRIPT KILL...".into(),
            End::Deadline(ms) => format!("ERR Script ended by its deadline of {ms} ms"),
            End::UndoLimit(bytes) => {
                format!("ERR Script changes more than script-undo-limit ({bytes} bytes) can undo")
            }
        }
    }
}

/// What a running script sees of the server.
pub(super) struct ScriptHost<'h, 'e> {
    pub lp: &'h WorkerLoop,
    pub shift: &'e Shift,
    pub client: &'h mut Client,
    pub txn: &'h mut Txn<'e>,
    pub read_only: bool,
    pub refuse_oom: bool,
    pub has_written: bool,
    /// What it had said when it first wrote.
    pub written_from: Option<Mark>,
    /// What it does can be rolled back, within this many bytes.
    pub undo_limit_bytes: Option<usize>,
    /// When it is to end by itself, and after how many ms that is.
    pub deadline: Option<(Instant, u64)>,
    /// It is over, though it may not have noticed yet.
    pub end: Option<End>,
    /// An error reply of a call went into the statistics.
    pub has_counted_error: bool,
    /// It could not have a lock: whatever it still does is for nothing.
    pub restarts: bool,
}

impl ScriptHost<'_, '_> {
    /// Ends the script if it has been stopped.
    fn look_at_end(&mut self) -> Option<End> {
        if self.end.is_none() && (self.txn.should_stop() || self.lp.server.is_shutting_down()) {
            let late = self.deadline.filter(|(at, _)| Instant::now() >= *at);
            self.end = Some(late.map_or(End::Killed, |(_, ms)| End::Deadline(ms)));
        }
        self.end
    }

    /// Ends the script if undoing it would take too much memory.
    fn look_at_undo_limit(&mut self) {
        let Some(limit_bytes) = self.undo_limit_bytes else { return };
        if self.txn.undo_bytes() + self.lp.outbox.borrow().bytes() > limit_bytes {
            self.end.get_or_insert(End::UndoLimit(limit_bytes));
            self.lp.server.scripts.watch.stop(self.lp.id);
        }
    }

    /// Why a script may not run this command now.
    fn refusal(&self, command: &Registered) -> Option<Error> {
        let row = command.row;
        if row.has(flag::NOSCRIPT) {
            return Some(Error::of("ERR This Redis command is not allowed from script"));
        }
        if self.read_only && row.has(flag::WRITE) {
            return Some(Error::of("ERR Write commands are not allowed from read-only scripts."));
        }
        if self.refuse_oom && row.has(flag::DENYOOM) && !self.has_written {
            return Some(Error::OOM);
        }
        None
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

impl Host for ScriptHost<'_, '_> {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let command = table().by_name(name)?;
        command.parent.is_none().then_some(command.id as u32)
    }

    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        if let Some(end) = self.look_at_end() {
            Reply::new(reply, protocol).error(&end.text());
            return;
        }
        let mut command = &table().all[command as usize];
        if !command.subcommands.is_empty() || !command.row.accepts(args.len()) {
            command = match table().find(args) {
                Ok(command) => command,
                Err(error) => {
                    let text = match command.row.accepts(args.len()) {
                        true => &*error.0,
                        false => "ERR Wrong number of args calling Redis command from script",
                    };
                    Reply::new(reply, protocol).error(text);
                    return;
                }
            };
        }
        // Uncaught, the error ends the script at once; else it goes on until its next tick.
        self.restarts |= !self.txn.is_exclusive() && !self.lock(command, args);
        if self.restarts {
            Reply::new(reply, protocol).error("ERR the script is run again");
            return;
        }
        if let Some(error) = self.refusal(command) {
            self.lp.stats.rejected(command.id);
            Reply::new(reply, protocol).error(&error.0);
            return;
        }
        if command.row.has(flag::WRITE) && !self.has_written {
            self.has_written = true;
            self.written_from = Some(self.lp.outbox.borrow().mark());
            if self.undo_limit_bytes.is_none()
                && !self.lp.server.scripts.watch.note_write(self.lp.id)
            {
                self.end.get_or_insert(End::Killed);
                Reply::new(reply, protocol).error(&End::Killed.text());
                return;
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
            reply,
            Origin::Script,
            Blocking::Never,
        );
        debug_assert!(wait.is_none(), "nothing waits inside a script");
        let failed = reply.first() == Some(&b'-');
        if let Some(end) = self.look_at_end() {
            // The command may have given up in the middle.
            reply.clear();
            Reply::new(reply, protocol).error(&end.text());
        }
        self.look_at_undo_limit();
        self.has_counted_error |= failed;
        self.lp.stats.ran_in_script(command.id, failed);
        self.txn.select(self.client.db);
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        let level = match level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Verbose => Level::Verbose,
            LogLevel::Notice => Level::Notice,
            LogLevel::Warning => Level::Warning,
        };
        let text = String::from_utf8_lossy(message);
        // What is run again logs again, and what was undone never happened.
        let mut outbox = self.lp.outbox.borrow_mut();
        let may_be_undone = self.has_written || !self.txn.is_exclusive() || outbox.is_trial();
        if self.undo_limit_bytes.is_none() || !may_be_undone {
            crate::log::write(level, format_args!("{text}"));
            return;
        }
        outbox.log(level, text.into_owned());
        drop(outbox);
        self.look_at_undo_limit();
    }

    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()> {
        // There is one user, who may do everything.
        table().find(args).map(|_| true).map_err(|_| ())
    }

    fn tick(&mut self) -> Tick {
        if self.restarts || self.look_at_end().is_some() {
            return Tick::Kill;
        }
        let (lp, watch) = (self.lp, &self.lp.server.scripts.watch);
        watch.note_held(lp.id, self.txn.held());
        // An exclusive script keeps everybody waiting until it is busy.
        if !self.txn.is_exclusive() || watch.is_busy() {
            lp.serve_others();
        }
        match self.look_at_end() {
            Some(_) => Tick::Kill,
            None => Tick::Continue,
        }
    }

    fn kill_reason(&self) -> String {
        self.end.unwrap_or(End::Killed).text()
    }
}
