//! Scripts that stand in append-only files themselves: up to Redis 6, and unless it was told
//! otherwise, the log said EVAL and not what that did. They are run again.
//!
//! Nothing is undone here, as nothing was there; and what a script tells others (PUBLISH) is told to
//! nobody.

use std::sync::Arc;
use std::time::Instant;

use command::call::is;
use command::{Blocking, Call, Error, flag};
use engine::Txn;
use lua::{Host, LogLevel, Outcome, Tick, Vm, VmOptions};
use resp::{Answer, Protocol};

use crate::config::Config;
use crate::script::{Brought, Known, parse_sha};
use crate::server::Server;
use crate::session::scripting::key_count;
use crate::table::{Run, table};

/// Whether this is a command about scripts, which is for [`OldScripts::run`].
pub fn are_meant(args: &[&[u8]]) -> bool {
    is(args[0], "eval") || is(args[0], "evalsha") || is(args[0], "script")
}

pub struct OldScripts {
    vm: Vm,
    config: Arc<Config>,
}

impl OldScripts {
    pub fn new(config: Arc<Config>) -> OldScripts {
        let vm = Vm::new(VmOptions {
            memory_limit_bytes: config.lua_memory_limit_bytes as usize,
            jit: config.script_jit,
            redis_version: crate::REDIS_VERSION.into(),
        });
        OldScripts { vm, config }
    }

    /// Runs EVAL, EVALSHA or SCRIPT. The transaction is exclusive.
    pub fn run(&mut self, server: &Server, txn: &mut Txn<'_>, args: &[&[u8]]) -> Result<(), Error> {
        let cache = &server.scripts.cache;
        if is(args[0], "script") {
            match args[1..] {
                [what, source] if is(what, "load") => {
                    self.load(server, source, Brought::ToStay)?;
                }
                [what, ..] if is(what, "flush") => cache.flush(),
                _ => return Err(Error::SYNTAX),
            }
            return Ok(());
        }
        let [_, script, numkeys, rest @ ..] = args else { return Err(Error::SYNTAX) };
        let (keys, values) = rest.split_at(key_count(numkeys, rest)?);
        let known = match is(args[0], "eval") {
            true => self.load(server, script, Brought::ByEval)?,
            false => {
                let sha = parse_sha(script);
                sha.and_then(|sha| cache.get(&sha)).ok_or(Error::NO_SCRIPT)?
            }
        };
        let home = txn.db();
        let (mut host, mut reply) = (OldHost { server, txn }, Vec::new());
        let begun = Instant::now();
        let outcome =
            self.vm.run(&mut host, &known.script, keys, values, Protocol::Resp2, &mut reply);
        txn.select(home);
        let took_ms = begun.elapsed().as_millis() as u64;
        let threshold_ms = self.config.busy_reply_threshold_ms;
        if threshold_ms > 0 && took_ms > threshold_ms {
            crate::log_warning!(
                "Slow script detected: one of the append-only file took {took_ms} milliseconds"
            );
        }
        match outcome {
            Outcome::Ok => Ok(()),
            _ => Err(Error::new(String::from_utf8_lossy(&reply).into_owned())),
        }
    }

    fn load(
        &mut self,
        server: &Server,
        source: &[u8],
        brought: Brought,
    ) -> Result<Arc<Known>, Error> {
        let cache = &server.scripts.cache;
        if let Some(known) = cache.get(&lua::sha_of(source)) {
            return Ok(known);
        }
        let compiled = self.vm.compile(source);
        let script =
            compiled.map_err(|text| Error::new(String::from_utf8_lossy(&text).into_owned()))?;
        Ok(cache.insert(script, brought, self.config.script_cache_entries))
    }
}

/// The server, as such a script sees it: the keyspace and nothing else.
struct OldHost<'h, 'e> {
    server: &'h Server,
    txn: &'h mut Txn<'e>,
}

impl Host for OldHost<'_, '_> {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let command = table().by_name(name)?;
        command.parent.is_none().then_some(command.id as u32)
    }

    fn call(&mut self, _: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        let done = table().find(args).and_then(|command| match command.run {
            Some(Run::Keyspace(handler)) if !command.row.has(flag::NOSCRIPT) => {
                let reply = answer.reply(protocol);
                handler(&mut Call::new(self.txn, reply, Blocking::Never), args)
            }
            _ if command.full_name == "publish" => {
                answer.reply(protocol).integer(0);
                Ok(())
            }
            _ if command.full_name == "select" => {
                let number = std::str::from_utf8(args[1]).ok().and_then(|text| text.parse().ok());
                let db = number.filter(|db| *db < self.txn.databases()).ok_or(Error::DB_INDEX)?;
                self.txn.select(db);
                answer.reply(protocol).ok();
                Ok(())
            }
            _ => Err(Error::of("ERR This Redis command is not allowed from script")),
        });
        if let Err(error) = done {
            answer.reply(protocol).error(&error.0);
        }
    }

    /// It was logged when it ran for the first time.
    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()> {
        table().find(args).map(|_| true).map_err(|_| ())
    }

    fn tick(&mut self) -> Tick {
        match self.server.is_shutting_down() {
            true => Tick::Kill,
            false => Tick::Continue,
        }
    }
}
