//! Loading append-only files: an RDB goes where RDB files go, commands are run.
//!
//! They are run long before anything expires, since what is expired may still be renamed by them.
//! Nobody else changes anything meanwhile.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use command::{Blocking, Call};
use engine::{Plan, Txn, Worker};
use persist::aof::{Block, Directory, Folder, Load, OpenError, Torn};
use persist::rdb;
use resp::{Protocol, Reply};

use super::libraries::{self, FileLibraries};
use super::loading::{self, Gates, Part};
use super::old_scripts::{self, OldScripts};
use crate::config::{Config, reason};
use crate::look_ahead;
use crate::server::{Server, unix_ms};
use crate::table::{Run, table};

/// Commands that run under one hold of all gates.
const BATCH_COMMANDS: usize = 1000;
/// When they run, Unix ms: nothing has expired then.
const EARLY_MS: i64 = 1;

/// The files of the configuration, and how many bytes they have; the error is for the user. A file
/// as Redis 6 wrote it is moved into the directory.
pub fn open(config: &Config) -> Result<(Directory<Folder>, u64), String> {
    let path = config.appenddirname.as_path();
    let failed = |error: &dyn std::fmt::Display| {
        format!("can't open the append-only files in '{}': {error}", path.display())
    };
    let folder = Folder::open(path.to_owned()).map_err(|error| failed(&reason(&error)))?;
    let name = config.appendfilename.as_path().to_string_lossy().into_owned();
    let mut directory = match Directory::open(folder, &name) {
        Err(OpenError::Missing(missing)) if missing == name && Path::new(&name).is_file() => {
            // Redis names the old file in the manifest before it moves it, and was kept from that.
            crate::log_notice!("Moving the AOF file '{name}' into '{}'", path.display());
            std::fs::rename(&name, path.join(&name)).map_err(|error| failed(&reason(&error)))?;
            let folder = Folder::open(path.to_owned()).map_err(|error| failed(&reason(&error)))?;
            Directory::open(folder, &name)
        }
        opened => opened,
    }
    .map_err(|error| failed(&error))?;
    let is_new = directory.manifest().files().next().is_none();
    if is_new && Path::new(&name).is_file() {
        crate::log_notice!("Moving the AOF file '{name}' into '{}'", path.display());
        adopt(&mut directory, path, &name).map_err(|error| failed(&reason(&error)))?;
    }
    let (base_bytes, other_bytes) = directory.bytes().map_err(|error| failed(&reason(&error)))?;
    Ok((directory, base_bytes + other_bytes))
}

/// The file is there under its old name until the manifest names it under the new one.
fn adopt(directory: &mut Directory<Folder>, path: &Path, name: &str) -> std::io::Result<()> {
    let inside = path.join(name);
    if !inside.is_file() {
        std::fs::hard_link(name, inside)?;
    }
    directory.adopt(name)?;
    std::fs::remove_file(name)
}

/// Loads the files. Answers where they are torn, if they are. The error is for the user.
pub fn load(
    server: &Server,
    directory: &Directory<Folder>,
    gates: Gates,
) -> Result<Option<(String, Torn)>, String> {
    let config = server.config.current();
    let started = Instant::now();
    let worker = server.own_worker();
    let mut replay = Replay {
        clock_ms: unix_ms(),
        server,
        gates,
        worker: &worker,
        txn: None,
        db: 0,
        databases: config.databases,
        run: 0,
        before_bytes: 0,
        file_bytes: 0,
        commands: 0,
        errors: 0,
        reply: Vec::new(),
        scripts: None,
        libraries: None,
        looked_until: 0,
    };
    let loaded = directory.load(&mut replay);
    replay.leave();
    let (commands, errors) = (replay.commands, replay.errors);
    if server.is_shutting_down() {
        return Ok(None);
    }
    let folder = config.appenddirname.as_path().display();
    let torn = loaded.map_err(|error| match error {
        OpenError::Damaged(..) | OpenError::TornWithin(..) => format!(
            "Bad file format reading the append only file: {error}. Make a backup, then look at it \
             with 'luar check-aof {folder}/{}.manifest'",
            config.appendfilename.as_path().display()
        ),
        other => format!("can't load the append-only files in '{folder}': {other}"),
    })?;
    if errors > 0 {
        crate::log_warning!("{errors} commands of the append-only files answered errors");
    }
    if let Some((name, Torn { dropped_bytes, dropped_commands, keep_bytes, is_room: false })) =
        &torn
    {
        if !config.aof_load_truncated {
            return Err(format!(
                "Unexpected end of file reading the append only file: {dropped_bytes} bytes behind \
                 byte {keep_bytes} are not whole ({dropped_commands} commands). Make a backup, then \
                 use 'luar check-aof --fix {folder}/{}.manifest', or set 'aof-load-truncated' to yes",
                config.appendfilename.as_path().display()
            ));
        }
        crate::log_warning!(
            "The AOF file {name} ends in the middle of a block: it is truncated to {keep_bytes} \
             bytes, {dropped_bytes} bytes and {dropped_commands} commands are lost"
        );
    }
    crate::log_notice!(
        "DB loaded from append only file: {:.3} seconds, {commands} commands",
        started.elapsed().as_secs_f64()
    );
    Ok(torn)
}

struct Replay<'s> {
    server: &'s Server,
    gates: Gates,
    worker: &'s Worker,
    /// While there is one, all gates are held.
    txn: Option<Txn<'s>>,
    /// When it began, Unix ms.
    clock_ms: i64,
    db: u32,
    databases: u32,
    /// Commands in the transaction.
    run: usize,
    /// Of the files before this one, and of this one so far.
    before_bytes: u64,
    file_bytes: u64,
    commands: u64,
    errors: u64,
    reply: Vec<u8>,
    /// Made when the first one is met.
    scripts: Option<OldScripts>,
    libraries: Option<FileLibraries<'s>>,
    /// The memory of the keys before this byte of the file was asked for.
    looked_until: u64,
}

impl<'s> Replay<'s> {
    fn enter(&mut self) -> &mut Txn<'s> {
        let (server, gates, worker, db) = (self.server, self.gates, self.worker, self.db);
        self.txn.get_or_insert_with(|| {
            gates.enter(server);
            let mut txn = Txn::begin(&server.engine, worker, Plan::Exclusive, EARLY_MS);
            txn.select(db);
            txn
        })
    }

    fn leave(&mut self) {
        if let Some(txn) = self.txn.take() {
            txn.commit();
            self.gates.leave(self.server);
        }
        self.run = 0;
        self.server.durability.loading.advance(self.before_bytes + self.file_bytes);
    }

    fn command(&mut self, args: &[&[u8]]) -> Result<(), String> {
        self.run += 1;
        self.commands += 1;
        let name = || args[0].escape_ascii().to_string();
        if args[0].eq_ignore_ascii_case(b"select") && args.len() == 2 {
            let number = std::str::from_utf8(args[1]).ok().and_then(|text| text.parse().ok());
            let db = number.filter(|db| *db < self.databases);
            let databases = self.databases;
            self.db = db.ok_or_else(|| {
                let number = args[1].escape_ascii();
                format!("it selects database {number}, and 'databases' allows for {databases}")
            })?;
            if let Some(txn) = &mut self.txn {
                txn.select(self.db);
            }
            return Ok(());
        }
        let failed = if old_scripts::are_meant(args) {
            self.script(args)
        } else if libraries::are_meant(args) {
            let server = self.server;
            let libraries = self.libraries.get_or_insert_with(|| FileLibraries::new(server));
            libraries.run(args).is_err()
        } else {
            self.keyspace_command(args)?
        };
        if failed {
            self.errors += 1;
            if self.errors == 1 {
                crate::log_warning!("A '{}' of the append-only files answers an error", name());
            }
        }
        Ok(())
    }
}

impl Replay<'_> {
    /// Asks for the memory that the next commands will touch.
    fn look_ahead(&mut self, block: &Block<'_>) {
        let (targets, next) = look_ahead::targets(block.behind, 0);
        if targets.len() > 1 {
            self.enter();
            self.server.engine.prefetch(self.db, &targets);
        }
        // Where the next command is not whole there, the next block shows more.
        let next = if next > block.behind.len() { 0 } else { next as u64 };
        self.looked_until = block.end_offset + next;
    }

    /// Answers whether it failed.
    fn keyspace_command(&mut self, args: &[&[u8]]) -> Result<bool, String> {
        let name = || args[0].escape_ascii().to_string();
        let command = table().find(args).map_err(|_| {
            let count = args.len() - 1;
            format!("Unknown command '{}' reading the append only file: {count} arguments", name())
        })?;
        let Some(Run::Keyspace(handler)) = command.run else {
            return Err(format!("the command '{}' has no place in it", name()));
        };
        self.enter();
        self.reply.clear();
        let Some(txn) = &mut self.txn else { unreachable!("entered above") };
        let reply = Reply::new(&mut self.reply, Protocol::Resp2);
        let mut call = Call::new(txn, reply, Blocking::Never);
        call.clock_ms = self.clock_ms;
        Ok(match handler(&mut call, args) {
            Ok(()) => self.reply.first() == Some(&b'-'),
            Err(_) => true,
        })
    }

    /// Answers whether it failed.
    fn script(&mut self, args: &[&[u8]]) -> bool {
        let server = self.server;
        self.enter();
        let Some(txn) = &mut self.txn else { unreachable!("entered above") };
        let new = || OldScripts::new(server.config.current());
        self.scripts.get_or_insert_with(new).run(server, txn, args).is_err()
    }
}

impl Load for Replay<'_> {
    fn file(&mut self) {
        self.before_bytes += std::mem::take(&mut self.file_bytes);
        (self.db, self.looked_until) = (0, 0);
        if let Some(txn) = &mut self.txn {
            txn.select(0);
        }
    }

    fn rdb(&mut self, input: &mut dyn Read) -> Result<u64, String> {
        self.leave();
        let limits = crate::settings::of(&self.server.config.current()).limits;
        let mut reader = rdb::Reader::new(input, &limits).map_err(|error| error.to_string())?;
        let part = Part {
            before_bytes: self.before_bytes,
            bytes: self.server.durability.loading.progress().total_bytes,
            drops_expired: false,
            replaces: false,
            gates: self.gates,
        };
        loading::keys(self.server, &mut reader, &part)?;
        self.file_bytes = reader.offset();
        Ok(reader.offset())
    }

    fn block(&mut self, block: Block<'_>) -> Result<(), String> {
        for args in block.commands() {
            let at = |why| format!("in the block at byte {}: {why}", block.offset);
            self.command(&args).map_err(at)?;
        }
        self.file_bytes = block.end_offset;
        if block.end_offset >= self.looked_until {
            self.look_ahead(&block);
        }
        if self.run >= BATCH_COMMANDS {
            self.leave();
            if self.server.is_shutting_down() {
                return Err("the server shuts down".into());
            }
        }
        Ok(())
    }
}
