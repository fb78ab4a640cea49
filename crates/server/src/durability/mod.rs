//! What keeps the data beyond the process: files that are loaded at start and written as it goes.
//!
//! `loading` reads them, `save` writes RDB files (`file`: how these get to the disk). Transactions
//! hand what they changed to the `journal`; the `keeper`, a thread of its own, writes it to the
//! append-only file; `replay` loads that again (`old_scripts`: where it says EVAL, `libraries`: where
//! it says FUNCTION; `reload`: while the server runs), and `aof` turns it on and off and has it
//! rewritten (`commands`: into commands, where no RDB file is wanted). What counts as safe is said in
//! `docs/durability.md`. The formats are `persist`'s; the commands about them stand in
//! `session/persistence.rs`.

pub mod aof;
mod commands;
mod file;
pub mod journal;
mod keeper;
mod libraries;
pub mod loading;
mod old_scripts;
pub mod reload;
mod replay;
pub mod save;

use std::thread;
use std::time::{Duration, Instant};

use command::Error;

use crate::config::Config;
use crate::server::{Server, ShutdownHow};

/// The state of all of it, one for the server.
pub struct Durability {
    pub aof: aof::Aof,
    pub loading: loading::Loading,
    pub saves: save::Saves,
}

impl Durability {
    pub fn new(workers: usize) -> Durability {
        Durability {
            aof: aof::Aof::new(workers),
            loading: loading::Loading::default(),
            saves: save::Saves::default(),
        }
    }

    /// Why commands that change anything are refused now, if they are.
    #[inline]
    pub fn refuses_writes(&self, config: &Config) -> Option<Error> {
        match self.aof.journal.is_pressed() {
            true => self.aof.refuses_writes().or_else(|| self.saves.refuses_writes(config)),
            false => self.saves.refuses_writes(config),
        }
    }

    /// Whether they have to wait: more than enough is to be written already.
    #[inline]
    pub fn delays_writes(&self) -> bool {
        let journal = &self.aof.journal;
        (journal.is_pressed() && journal.pressure() == journal::Pressure::Full)
            || self.saves.is_backed_up()
    }

    /// Has everything on the disk that is to be there at the end. False when it could not be done
    /// and the server is to go on. The caller holds all gates.
    pub fn prepare_shutdown(&self, server: &Server, how: ShutdownHow) -> bool {
        let config = server.config.current();
        if self.aof.is_beginning() {
            if !how.force {
                crate::log_warning!("Writing initial AOF, can't exit.");
                return false;
            }
            crate::log_warning!("Writing initial AOF. Exit anyway.");
        }
        let saves = how.save || (!how.nosave && !config.save.0.is_empty());
        if !saves {
            return true;
        }
        crate::log_notice!("Saving the final RDB snapshot before exiting.");
        match save::at_shutdown(server) {
            Ok(()) => true,
            Err(_) if server.ending.is_insisted() => true,
            Err(_) if how.force => {
                crate::log_warning!("Error trying to save the DB. Exit anyway.");
                true
            }
            Err(_) => {
                crate::log_warning!("Error trying to save the DB, can't exit.");
                false
            }
        }
    }
}

/// Takes as long as so many keys are to take by `key-load-delay` or `rdb-key-save-delay`, with which
/// tests make work of a few keys last: until there is no such delay any more, or it is to end.
fn delay(keys: u64, delay_us: impl Fn() -> i32, ends: impl Fn() -> bool) {
    const PAUSE: Duration = Duration::from_millis(5);
    let begun = Instant::now();
    loop {
        let per_key_us = delay_us();
        if per_key_us == 0 || keys == 0 || ends() {
            return;
        }
        let each = match per_key_us {
            1.. => Duration::from_micros(per_key_us.unsigned_abs().into()),
            // Shorter than any sleep: mostly none, so that it comes out right in all.
            _ if fastrand::u32(..per_key_us.unsigned_abs()) > 0 => return,
            _ => Duration::from_micros(1),
        };
        let whole = each.saturating_mul(u32::try_from(keys).unwrap_or(u32::MAX));
        match whole.checked_sub(begun.elapsed()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left.min(PAUSE)),
            _ => return,
        }
    }
}
