//! The command table of the server: keyspace families and session families under one index.

use std::sync::LazyLock;

use command::{Command, Error, Handler, Quick, Row, flag};
use hashbrown::HashMap;

use crate::request::SessionHandler;
use crate::{dispatch, script, session};

/// How a command runs.
#[derive(Clone, Copy)]
pub enum Run {
    Keyspace(Handler),
    Session(SessionHandler),
}

pub struct Registered {
    /// Place in [`CommandTable::all`]; stable while the process lives.
    pub id: usize,
    pub row: &'static Row,
    /// With the container before a bar: `config|get`.
    pub full_name: &'static str,
    /// The same in capitals: it is mostly spelled in one of the two ways.
    capitals: Box<[u8]>,
    /// `None` for containers that only hold subcommands.
    pub run: Option<Run>,
    pub parent: Option<usize>,
    pub subcommands: Vec<usize>,
    /// Its arguments do not tell how long it may take.
    pub may_be_long: bool,
    /// How scripts call it, if it is one of the many that need no special care.
    pub in_script: Option<InScript>,
}

/// A command of the keyspace whose one key is its first argument, and which scripts may call.
pub struct InScript {
    pub handler: Handler,
    pub quick: Option<Quick>,
    /// Arguments with the name counted.
    pub args_min: usize,
    pub args_max: usize,
    /// In any of these states of a script, which `script/host.rs` knows, the call needs care.
    pub minds: u8,
}

impl InScript {
    fn of<H>(command: &Command<H>, run: Run) -> Option<InScript> {
        let Run::Keyspace(handler) = run else { return None };
        let row = &command.row;
        let args_min = usize::from(row.arity.unsigned_abs());
        let takes_one_key = dispatch::only_key_at(row) == Some(1) && args_min > 1;
        let args_max = if row.arity < 0 { usize::MAX } else { args_min };
        (takes_one_key && !row.has(flag::NOSCRIPT)).then_some(InScript {
            handler,
            quick: command.quick,
            args_min,
            args_max,
            minds: script::minds(row),
        })
    }
}

pub struct CommandTable {
    pub all: Vec<Registered>,
    by_name: HashMap<&'static [u8], usize>,
    /// A guess per place of a name: the command's id plus one, or 0. Spares most requests the hash
    /// map; the names are a fixed set, so nobody can make the guesses collide.
    guesses: Box<[u16; GUESSES]>,
    pub exec: usize,
}

/// Places of `guesses`: few of some 270 names share one.
const GUESSES: usize = 4096;

/// Longest command name; anything longer is unknown.
const NAME_BYTES_MAX: usize = 32;

static TABLE: LazyLock<CommandTable> = LazyLock::new(CommandTable::build);

/// The one table of this process.
pub fn table() -> &'static CommandTable {
    &TABLE
}

impl CommandTable {
    fn build() -> CommandTable {
        let mut table = CommandTable {
            all: Vec::new(),
            by_name: HashMap::new(),
            guesses: Box::new([0; GUESSES]),
            exec: 0,
        };
        for family in command::FAMILIES {
            for command in *family {
                table.add(command, None, &Run::Keyspace);
            }
        }
        for family in session::FAMILIES {
            for command in *family {
                table.add(command, None, &Run::Session);
            }
        }
        table.exec = table.by_name[&b"exec"[..]];
        table
    }

    fn add<H: Copy>(
        &mut self,
        command: &'static Command<H>,
        parent: Option<usize>,
        run: &impl Fn(H) -> Run,
    ) {
        let id = self.all.len();
        let full_name: &'static str = match parent {
            None => command.row.name,
            // Built once for the life of the process.
            Some(parent) => Box::leak(
                format!("{}|{}", self.all[parent].full_name, command.row.name).into_boxed_str(),
            ),
        };
        self.all.push(Registered {
            id,
            row: &command.row,
            full_name,
            capitals: full_name.to_ascii_uppercase().into_bytes().into(),
            run: command.handler.map(run),
            parent,
            subcommands: Vec::new(),
            may_be_long: script::may_be_long(full_name),
            in_script: command.handler.map(run).and_then(|run| InScript::of(command, run)),
        });
        assert!(
            self.by_name.insert(full_name.as_bytes(), id).is_none(),
            "two rows named {full_name}"
        );
        match parent {
            Some(parent) => self.all[parent].subcommands.push(id),
            // Of the names that share a place the first is guessed.
            None => {
                let guess = &mut self.guesses[place(full_name.as_bytes())];
                if *guess == 0 {
                    *guess = id as u16 + 1;
                }
            }
        }
        for subcommand in command.subcommands {
            self.add(subcommand, Some(id), run);
        }
    }

    /// A command by its full name in any case, `config|get` for subcommands.
    pub fn by_name(&self, name: &[u8]) -> Option<&Registered> {
        let guess = usize::from(self.guesses[place(name)]);
        if guess > 0 {
            let guess = &self.all[guess - 1];
            if *guess.capitals == *name
                || guess.full_name.as_bytes() == name
                || guess.full_name.as_bytes().eq_ignore_ascii_case(name)
            {
                return Some(guess);
            }
        }
        let mut lower = [0u8; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        for (to, from) in lower.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        self.by_name.get(&*lower).map(|&id| &self.all[id])
    }

    /// The command or subcommand that arguments begin with, whatever else they are.
    pub fn resolve(&self, args: &[&[u8]]) -> Option<&Registered> {
        let found = self.by_name(args[0])?;
        match args.get(1) {
            Some(wanted) if !found.subcommands.is_empty() => self.subcommand(found, wanted),
            _ => Some(found),
        }
    }

    fn subcommand(&self, container: &Registered, wanted: &[u8]) -> Option<&Registered> {
        let mut all = container.subcommands.iter().map(|&id| &self.all[id]);
        all.find(|sub| sub.row.name.as_bytes().eq_ignore_ascii_case(wanted))
    }

    /// The command these arguments call: subcommands resolved, arity checked.
    pub fn find(&self, args: &[&[u8]]) -> Result<&Registered, Error> {
        // A subcommand goes by its full name only where commands are spoken of.
        let named =
            self.by_name(args[0]).filter(|found| found.full_name.len() == found.row.name.len());
        let Some(mut found) = named else { return Err(unknown_command(args)) };
        if !found.subcommands.is_empty() && args.len() > 1 {
            let wanted = args[1];
            match self.subcommand(found, wanted) {
                Some(subcommand) => found = subcommand,
                None => return Err(unknown_subcommand(found, wanted)),
            }
        }
        if !found.row.accepts(args.len()) || found.run.is_none() {
            return Err(Error::arity(found.full_name));
        }
        Ok(found)
    }
}

/// Where the guess for a name stands: the same for every spelling. The factors were found by trial:
/// with them the fewest of our names share a place.
#[inline]
fn place(name: &[u8]) -> usize {
    let letter = |at: usize| usize::from(name.get(at).map_or(0x20, |byte| byte | 0x20));
    let last = name.len().wrapping_sub(1);
    (letter(0) * 1379
        + letter(1) * 123
        + letter(2) * 2759
        + letter(name.len() / 2) * 1969
        + letter(last) * 3675
        + name.len() * 311)
        & (GUESSES - 1)
}

/// At most this many bytes of what the client sent are repeated in an error.
const ECHO_BYTES_MAX: usize = 128;

fn echo(arg: &[u8], room: usize) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(room)]).replace(['\r', '\n'], " ")
}

fn unknown_command(args: &[&[u8]]) -> Error {
    let mut shown = String::new();
    for arg in &args[1..] {
        if shown.len() >= ECHO_BYTES_MAX {
            break;
        }
        let room = ECHO_BYTES_MAX - shown.len();
        shown.push_str(&format!("'{}' ", echo(arg, room)));
    }
    Error::new(format!(
        "ERR unknown command '{}', with args beginning with: {shown}",
        echo(args[0], ECHO_BYTES_MAX)
    ))
}

fn unknown_subcommand(container: &Registered, wanted: &[u8]) -> Error {
    Error::new(format!(
        "ERR unknown subcommand '{}'. Try {} HELP.",
        echo(wanted, ECHO_BYTES_MAX),
        container.full_name.to_ascii_uppercase()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for command in &table().all {
            for name in [command.full_name.to_ascii_uppercase(), command.full_name.to_string()] {
                assert_eq!(
                    table().by_name(name.as_bytes()).map(|found| found.id),
                    Some(command.id)
                );
            }
        }
    }

    #[test]
    fn few_names_share_a_place() {
        let names = table().all.iter().filter(|command| command.parent.is_none());
        let (mut total, mut missed) = (0, 0);
        for command in names {
            let guess = usize::from(table().guesses[place(command.full_name.as_bytes())]);
            total += 1;
            missed += usize::from(guess != command.id + 1);
        }
        assert!(missed * 20 <= total, "{missed} of {total} names need the map");
    }

    #[test]
    fn other_names_are_not_found() {
        for name in ["", "g", "gett", "ge", "set\0", &"x".repeat(100)] {
            assert!(table().by_name(name.as_bytes()).is_none(), "{name}");
        }
    }
}
