//! What keeps the data beyond the process: files that are loaded at start and written as it goes.
//!
//! `loading` reads them, `save` writes RDB files. The formats are `persist`'s; the commands about
//! them stand in `session/persistence.rs`.

pub mod loading;
pub mod save;

use command::Error;

use crate::config::Config;
use crate::server::{Server, ShutdownHow};

/// The state of all of it, one for the server.
#[derive(Default)]
pub struct Durability {
    pub loading: loading::Loading,
    pub saves: save::Saves,
}

impl Durability {
    /// Why commands that change anything are refused now, if they are.
    #[inline]
    pub fn refuses_writes(&self, config: &Config) -> Option<Error> {
        self.saves.refuses_writes(config)
    }

    /// Has everything on the disk that is to be there at the end. False when it could not be done
    /// and the server is to go on. The caller holds all gates.
    pub fn prepare_shutdown(&self, server: &Server, how: ShutdownHow) -> bool {
        let config = server.config.current();
        let saves = how.save || (!how.nosave && !config.save.0.is_empty());
        if !saves {
            return true;
        }
        crate::log_notice!("Saving the final RDB snapshot before exiting.");
        match save::at_shutdown(server) {
            Ok(()) => true,
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
