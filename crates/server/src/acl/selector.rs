//! A selector: commands, keys and channels that go together. A request passes if one selector of
//! the user allows all of it.
//!
//! Knows nothing of users, passwords and clients. The rules and their texts are Redis's.

use command::keys::key_flag;
use command::row::category;
use command::{Error, flag};
use data::glob;

use crate::table::{Registered, table};

/// Why a rule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    Syntax,
    UnknownCommand,
    /// `+config|get|x`
    NestedArgument,
    BehindAllKeys,
    BehindAllChannels,
    PasswordHash,
    NoSuchPassword,
}

impl RuleError {
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Syntax => "Syntax error",
            RuleError::UnknownCommand => "Unknown command or category name in ACL",
            RuleError::NestedArgument => "Allowing first-arg of a subcommand is not supported",
            RuleError::BehindAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and \
                 does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::BehindAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid \
                 and does not have any effect. Try 'resetchannels' to start with an empty list of \
                 channels"
            }
            RuleError::PasswordHash => {
                "The password hash must be exactly 64 characters and contain only lowercase \
                 hexadecimal characters"
            }
            RuleError::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
        }
    }
}

/// What a request asks for that a selector does not allow: the arguments' positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    Command,
    Key(usize),
    /// An option that lets the command read keys which are not among its arguments.
    Option(usize),
    Channel(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Box<[u8]>,
    reads: bool,
    writes: bool,
}

impl KeyPattern {
    fn text(&self) -> Vec<u8> {
        let sign: &[u8] = match (self.reads, self.writes) {
            (true, false) => b"%R~",
            (false, true) => b"%W~",
            _ => b"~",
        };
        [sign, &self.pattern].concat()
    }
}

/// One bit for each command of the table, subcommands included.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Commands(Box<[u64]>);

impl Commands {
    fn none() -> Commands {
        Commands(vec![0; table().all.len().div_ceil(64)].into_boxed_slice())
    }

    fn has(&self, id: usize) -> bool {
        self.0[id / 64] & 1 << (id % 64) != 0
    }

    fn set(&mut self, id: usize, allowed: bool) {
        match allowed {
            true => self.0[id / 64] |= 1 << (id % 64),
            false => self.0[id / 64] &= !(1 << (id % 64)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    commands: Commands,
    /// Commands that come with later versions are allowed too.
    future_commands: bool,
    /// `+select|0`: a command that is not allowed but with this first argument.
    first_args: Vec<(usize, Box<[u8]>)>,
    /// What was said of commands behind the last `+@all` or `-@all`, for ACL LIST.
    command_rules: Vec<String>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Box<[u8]>>,
}

impl Selector {
    /// Allows nothing, except all channels if the configuration says so.
    pub fn new(all_channels: bool) -> Selector {
        Selector {
            commands: Commands::none(),
            future_commands: false,
            first_args: Vec::new(),
            command_rules: Vec::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
        }
    }

    /// Whether it stops nothing at all.
    pub fn allows_everything(&self) -> bool {
        let all = |id| self.commands.has(id);
        self.all_keys
            && self.all_channels
            && self.future_commands
            && (0..table().all.len()).all(all)
    }

    /// Takes one rule in.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            b"resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            b"resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            b"allcommands" | b"+@all" => self.set_all_commands(true),
            b"nocommands" | b"-@all" => self.set_all_commands(false),
            _ => match rule {
                [b'~', pattern @ ..] => self.add_keys(pattern, true, true)?,
                [b'%', rest @ ..] => self.add_keys_of_kind(rest)?,
                [b'&', pattern @ ..] => self.add_channel(pattern)?,
                [sign @ (b'+' | b'-'), b'@', _, ..] => {
                    self.set_category(&rule[1..], *sign == b'+')?
                }
                [b'+', name @ ..] => self.allow(name)?,
                [b'-', name @ ..] => {
                    let command = named(name).ok_or(RuleError::UnknownCommand)?;
                    self.set_command(command, false);
                    self.note_rule(command.full_name.to_owned(), false);
                }
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn set_all_commands(&mut self, allowed: bool) {
        (0..table().all.len()).for_each(|id| self.commands.set(id, allowed));
        self.future_commands = allowed;
        self.first_args.clear();
        self.command_rules.clear();
    }

    fn add_keys_of_kind(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        let (mut reads, mut writes) = (false, false);
        for (at, byte) in rest.iter().enumerate() {
            match byte.to_ascii_uppercase() {
                b'R' if !reads => reads = true,
                b'W' if !writes => writes = true,
                b'~' if reads || writes => return self.add_keys(&rest[at + 1..], reads, writes),
                _ => break,
            }
        }
        Err(RuleError::Syntax)
    }

    fn add_keys(&mut self, pattern: &[u8], reads: bool, writes: bool) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::BehindAllKeys);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => {
                known.reads |= reads;
                known.writes |= writes;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.into(), reads, writes }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::BehindAllChannels);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| **known == *pattern) {
            self.channels.push(pattern.into());
        }
        Ok(())
    }

    fn set_category(&mut self, name: &[u8], allowed: bool) -> Result<(), RuleError> {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let (bit, name) = category::NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .ok_or(RuleError::UnknownCommand)?;
        for command in table().all.iter().filter(|one| one.row.all_categories() & bit != 0) {
            self.commands.set(command.id, allowed);
            self.first_args.retain(|(id, _)| *id != command.id);
        }
        self.note_rule((*name).to_owned(), allowed);
        Ok(())
    }

    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        if let Some(command) = named(name) {
            self.set_command(command, true);
            self.note_rule(command.full_name.to_owned(), true);
            return Ok(());
        }
        let bar = name.iter().rposition(|byte| *byte == b'|').ok_or(RuleError::UnknownCommand)?;
        let command = named(&name[..bar]).ok_or(RuleError::UnknownCommand)?;
        let first_arg = &name[bar + 1..];
        if command.parent.is_some() {
            return Err(RuleError::NestedArgument);
        }
        if first_arg.is_empty() {
            return Err(RuleError::Syntax);
        }
        if !command.subcommands.is_empty() {
            return Err(RuleError::UnknownCommand);
        }
        let allowed = (command.id, first_arg.to_ascii_lowercase().into_boxed_slice());
        if !self.first_args.contains(&allowed) {
            self.first_args.push(allowed);
        }
        self.note_rule(String::from_utf8_lossy(name).to_ascii_lowercase(), true);
        Ok(())
    }

    fn set_command(&mut self, command: &Registered, allowed: bool) {
        for &id in command.subcommands.iter().chain([&command.id]) {
            self.commands.set(id, allowed);
            self.first_args.retain(|(of, _)| *of != id);
        }
    }

    /// Remembers a rule instead of what it makes superfluous: itself, and rules on subcommands.
    fn note_rule(&mut self, rule: String, allowed: bool) {
        self.command_rules.retain(|known| {
            let known = &known[1..];
            known != rule && !known.strip_prefix(&*rule).is_some_and(|rest| rest.starts_with('|'))
        });
        self.command_rules.push(format!("{}{rule}", if allowed { '+' } else { '-' }));
    }

    /// Whether it allows a request; else what it stumbles over first.
    pub fn check(&self, command: &Registered, args: &[&[u8]]) -> Result<(), Denied> {
        if !self.commands.has(command.id) && !command.row.has(flag::NO_AUTH) {
            let at = if command.parent.is_some() { 2 } else { 1 };
            let is_allowed = |(id, wanted): &(usize, Box<[u8]>)| {
                *id == command.id
                    && args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(wanted))
            };
            if !self.first_args.iter().any(is_allowed) {
                return Err(Denied::Command);
            }
        }
        if !self.all_keys && !command.row.keys.is_empty() {
            // Arguments without recognizable keys are refused by the command itself.
            for (at, flags) in command.row.keys_with_flags(args).unwrap_or_default() {
                if !self.allows_key(args[at], flags) {
                    return Err(Denied::Key(at));
                }
            }
            if let Some(at) = command.row.more_keys(args).by
                && !self.keys.iter().any(|known| known.reads && *known.pattern == *b"*")
            {
                return Err(Denied::Option(at));
            }
        }
        if !self.all_channels {
            let (positions, is_pattern) = channels(command, args.len());
            for at in positions {
                if !self.allows_channel(args[at], is_pattern) {
                    return Err(Denied::Channel(at));
                }
            }
        }
        Ok(())
    }

    fn allows_key(&self, key: &[u8], flags: u16) -> bool {
        let reads = flags & key_flag::ACCESS != 0;
        let writes = flags & (key_flag::INSERT | key_flag::DELETE | key_flag::UPDATE) != 0;
        self.keys.iter().any(|known| {
            (known.reads || !reads)
                && (known.writes || !writes)
                && glob::matches(&known.pattern, key, false)
        })
    }

    /// A pattern that somebody subscribes to must be allowed as it is written.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_channels
            || self.channels.iter().any(|known| match is_pattern {
                true => **known == *channel,
                false => glob::matches(known, channel, false),
            })
    }

    /// The command rules in the form they can be given again.
    pub fn commands_text(&self) -> String {
        let mut text = String::from(if self.future_commands { "+@all" } else { "-@all" });
        for rule in &self.command_rules {
            text.push(' ');
            text.push_str(rule);
        }
        text
    }

    pub fn keys_text(&self) -> Vec<u8> {
        match self.all_keys {
            true => b"~*".to_vec(),
            false => self.keys.iter().map(KeyPattern::text).collect::<Vec<_>>().join(&b' '),
        }
    }

    pub fn channels_text(&self) -> Vec<u8> {
        let patterns = self.channels.iter();
        match self.all_channels {
            true => b"&*".to_vec(),
            false => patterns.map(|one| [b"&", &**one].concat()).collect::<Vec<_>>().join(&b' '),
        }
    }

    /// All of it on one line.
    pub fn text(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let keys = self.keys_text();
        if !keys.is_empty() {
            parts.push(keys);
        }
        if !self.all_channels {
            parts.push(b"resetchannels".to_vec());
        }
        let channels = self.channels_text();
        if !channels.is_empty() {
            parts.push(channels);
        }
        parts.push(self.commands_text().into_bytes());
        parts.join(&b' ')
    }
}

/// A command or a subcommand by its full name, in any case.
fn named(name: &[u8]) -> Option<&'static Registered> {
    table().by_name(name)
}

/// Positions of the channels among so many arguments, and whether they are patterns.
fn channels(command: &Registered, argc: usize) -> (std::ops::Range<usize>, bool) {
    match command.full_name {
        "subscribe" | "ssubscribe" => (1..argc, false),
        "psubscribe" => (1..argc, true),
        "publish" | "spublish" => (1..argc.min(2), false),
        _ => (0..0, false),
    }
}

fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0 || *byte == 0x0b)
}

/// The error of a rule of ACL SETUSER.
pub fn refused(rule: &[u8], error: RuleError) -> Error {
    let rule = String::from_utf8_lossy(rule);
    Error::new(format!("ERR Error in ACL SETUSER modifier '{rule}': {}", error.text()))
}
