//! What a session handler is given: the client, the server and, like keyspace handlers, the
//! transaction and the reply.

use command::{Blocking, Command, Error, Group, Result, Wait};
use engine::Txn;
use resp::Reply;

use crate::client::Client;
use crate::config::{Allowed, Config};
use crate::server::Server;
use crate::worker::{Shift, WorkerLoop};

/// A session handler. `args[0]` is the command's name; the arity was checked.
pub type SessionHandler = fn(&mut Request<'_, '_>, &[&[u8]]) -> Result;

/// A session command of a group, in whose ACL category it stands.
pub const fn row(
    group: Group,
    name: &'static str,
    arity: i16,
    handler: SessionHandler,
) -> Command<SessionHandler> {
    Command::with(group, name, arity, handler)
}

/// Where a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Network,
    /// Run by EXEC.
    Exec,
    Script,
}

pub struct Request<'r, 'e> {
    pub lp: &'r WorkerLoop,
    pub shift: &'e Shift,
    pub client: &'r mut Client,
    pub txn: &'r mut Txn<'e>,
    pub reply: Reply<'r>,
    pub origin: Origin,
    pub blocking: Blocking,
    /// Set by commands that wait.
    pub wait: Option<Wait>,
}

impl<'r> Request<'r, '_> {
    pub fn server(&self) -> &'r Server {
        &self.lp.server
    }

    pub fn config(&self) -> &Config {
        &self.shift.config
    }

    /// Refuses a command that a directive turns off for this client.
    pub fn must_be_allowed(&self, allowed: Allowed, command: &str, directive: &str) -> Result {
        if allowed.includes(self.client.info.is_local()) {
            return Ok(());
        }
        Err(Error::new(format!(
            "ERR {command} command not allowed. If the {directive} option is set to \"local\", you can \
             run it from a local connection, otherwise you need to set this option in the \
             configuration file, and then restart the server."
        )))
    }
}
