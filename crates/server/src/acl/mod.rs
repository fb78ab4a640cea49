//! Access control: who may connect, and what each user may do.
//!
//! `selector.rs` is what a user may do, `user.rs` adds passwords, `log.rs` keeps what was refused;
//! this file holds the users and reads and writes them. Requests are checked in `dispatch.rs`, the
//! commands are in `session/acl.rs`. Rules, texts and files are those of Redis 7.2.
//!
//! Thread safety: clients hold their user and see its rules change. The map of users has a lock
//! of its own, which is never held while anything else is locked but the rules of one user.

pub mod log;
mod selector;
mod user;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use command::Error;
use parking_lot::{Mutex, RwLock};

use crate::config::{AclPubsubDefault, Config, Users};
use crate::table::Registered;
use log::{Context, Log, Reason};
pub use selector::{Denied, Selector};
pub use user::{Rules, User};

/// The user of clients that have not said who they are.
pub const DEFAULT: &[u8] = b"default";

const WARNING: &str =
    "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";

type ByName = BTreeMap<Box<[u8]>, Arc<User>>;

pub struct Acl {
    users: RwLock<ByName>,
    default: Arc<User>,
    /// The default user has a password or is off.
    needs_password: AtomicBool,
    pub log: Mutex<Log>,
}

impl Denied {
    pub fn reason(self) -> Reason {
        match self {
            Denied::Command => Reason::Command,
            Denied::Key(_) | Denied::Option(_) => Reason::Key,
            Denied::Channel(_) => Reason::Channel,
        }
    }

    /// Whose argument it is about, or the command.
    pub fn object(self, command: &Registered, args: &[&[u8]]) -> Vec<u8> {
        match self {
            Denied::Command => command.full_name.as_bytes().to_vec(),
            Denied::Key(at) | Denied::Option(at) | Denied::Channel(at) => args[at].to_vec(),
        }
    }

    /// The code of the error that says so.
    pub fn code(self) -> &'static str {
        match self {
            Denied::Option(_) => "ERR",
            _ => "NOPERM",
        }
    }

    /// What the client is told; keys and channels are named only to who may know (ACL DRYRUN).
    pub fn text(
        self,
        user: &[u8],
        command: &Registered,
        args: &[&[u8]],
        names_all: bool,
    ) -> String {
        let user = String::from_utf8_lossy(user);
        let object = self.object(command, args);
        let object = String::from_utf8_lossy(&object);
        match self {
            Denied::Command => {
                format!("User {user} has no permissions to run the '{object}' command")
            }
            Denied::Key(_) if names_all => {
                format!("User {user} has no permissions to access the '{object}' key")
            }
            Denied::Key(_) => "No permissions to access a key".to_owned(),
            Denied::Option(_) => {
                let option = object.to_ascii_uppercase();
                // SORT_RO goes by that name too.
                format!("{option} option of SORT denied due to insufficient ACL permissions.")
            }
            Denied::Channel(_) if names_all => {
                format!("User {user} has no permissions to access the '{object}' channel")
            }
            Denied::Channel(_) => "No permissions to access a channel".to_owned(),
        }
    }

    /// Why EXEC refuses a command that could be queued.
    pub fn text_in_exec(self) -> &'static str {
        match self {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Key(_) | Denied::Option(_) => "no permission to touch the specified keys",
            Denied::Channel(_) => {
                "no permission to access one of the channels used as arguments to the command"
            }
        }
    }
}

impl Acl {
    /// The users of the configuration, which was checked when it was read.
    pub fn new(config: &Config) -> Result<Acl, String> {
        let default = Arc::new(User::new(DEFAULT, Rules::of_default()));
        let acl = Acl {
            users: RwLock::new(ByName::from([(DEFAULT.into(), default.clone())])),
            default,
            needs_password: AtomicBool::new(false),
            log: Mutex::default(),
        };
        acl.set_default_password(config.requirepass.as_bytes());
        if !config.users.is_empty() {
            if !config.aclfile.is_empty() {
                return Err(
                    "there are users in the configuration and an aclfile: only one of the \
                            two can be used"
                        .into(),
                );
            }
            let mut read = BTreeMap::new();
            for line in config.users.words() {
                let words: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
                acl.read_user(&words, all_channels(config), &mut read)?;
            }
            acl.replace(read, false);
        }
        Ok(acl)
    }

    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// Whether new clients have to authenticate.
    #[inline]
    pub fn needs_password(&self) -> bool {
        self.needs_password.load(Ordering::Acquire)
    }

    pub fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().get(name).cloned()
    }

    /// All users in the order of their names.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.users.read().values().cloned().collect()
    }

    /// The user with this password, if both are right and it is not switched off.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.user(name)?;
        let rules = user.rules();
        (rules.is_enabled && rules.accepts_password(password)).then_some(user)
    }

    /// `requirepass`.
    pub fn set_default_password(&self, password: &[u8]) {
        let mut rules = Rules::clone(&self.default.rules());
        rules.set_only_password(password);
        self.default.set_rules(rules);
        self.note_default();
    }

    fn note_default(&self) {
        let rules = self.default.rules();
        self.needs_password.store(!rules.is_nopass || !rules.is_enabled, Ordering::Release);
    }

    /// ACL SETUSER: makes or changes a user, or nothing if a rule is refused.
    pub fn set_user(&self, name: &[u8], rules: &[&[u8]], config: &Config) -> Result<(), Error> {
        let mut users = self.users.write();
        let all_channels = all_channels(config);
        let known = users.get(name).cloned();
        let mut changed = match &known {
            Some(user) => Rules::clone(&user.rules()),
            None => Rules::new(all_channels),
        };
        changed.apply_all(rules, all_channels)?;
        match known {
            Some(user) => user.set_rules(changed),
            None => _ = users.insert(name.into(), Arc::new(User::new(name, changed))),
        }
        self.note_default();
        Ok(())
    }

    /// ACL DELUSER: the users that were there.
    pub fn remove(&self, names: &[&[u8]]) -> Vec<Arc<User>> {
        let mut users = self.users.write();
        names.iter().filter_map(|name| users.remove(*name)).collect()
    }

    /// Lines that make the users again.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let users = self.users();
        users
            .iter()
            .map(|user| [b"user ", &*user.name, b" ", &*user.rules().text()].concat())
            .collect()
    }

    /// The users as lines of the configuration: none if they have a file of their own, or if there
    /// is only the default user as `requirepass` makes it.
    pub fn as_setting(&self, config: &Config) -> Users {
        let mut plain = Rules::of_default();
        plain.set_only_password(config.requirepass.as_bytes());
        let users = self.users();
        let is_plain = users.len() == 1 && *self.default.rules() == plain;
        if is_plain || !config.aclfile.is_empty() {
            return Users::default();
        }
        let line = |user: &Arc<User>| {
            let rules = user.rules().text();
            let words = rules.split(|byte| *byte == b' ').map(<[u8]>::to_vec);
            [user.name.to_vec()].into_iter().chain(words).collect()
        };
        Users::of(users.iter().map(line).collect())
    }

    /// Reads `name rule …` into `read`. The error has no place yet.
    fn read_user(
        &self,
        words: &[&[u8]],
        all_channels: bool,
        read: &mut BTreeMap<Box<[u8]>, Rules>,
    ) -> Result<(), String> {
        let Some((name, rules)) = words.split_first() else {
            return Err("a user needs a name".into());
        };
        // The default user, too, may do no more than its line says.
        let mut made = Rules::new(all_channels);
        made.apply_all(rules, all_channels)
            .map_err(|error| error.0.strip_prefix("ERR ").unwrap_or(&error.0).to_owned())?;
        match read.insert(Box::from(*name), made) {
            None => Ok(()),
            Some(_) => Err(format!("Duplicate user '{}' found", String::from_utf8_lossy(name))),
        }
    }

    /// Reads an ACL file: all users, or what is wrong with the file.
    pub fn load(&self, path: &Path, config: &Config) -> Result<Vec<Arc<User>>, String> {
        let shown = path.display();
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                let reason = crate::config::reason(&error);
                return Err(format!("Error loading ACLs, opening file '{shown}': {reason}"));
            }
        };
        let mut read = BTreeMap::new();
        let mut errors = String::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let words: Vec<&[u8]> =
                line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
            let outcome = match &words[..] {
                [b"user", rest @ ..] if !rest.is_empty() => {
                    self.read_user(rest, all_channels(config), &mut read)
                }
                _ => Err("line should start with user keyword".to_owned()),
            };
            if let Err(error) = outcome {
                errors += &format!("{shown}:{}: {error}. ", index + 1);
            }
        }
        match errors.is_empty() {
            true => Ok(self.replace(read, true)),
            false => Err(errors + WARNING),
        }
    }

    /// Puts these users in the place of all others; answers those who are gone or changed.
    fn replace(&self, mut read: BTreeMap<Box<[u8]>, Rules>, resets: bool) -> Vec<Arc<User>> {
        let mut users = self.users.write();
        if resets {
            read.entry(DEFAULT.into()).or_insert_with(Rules::of_default);
        }
        let kept: HashSet<&[u8]> = read.keys().map(|name| &**name).chain([DEFAULT]).collect();
        let mut affected = Vec::new();
        users.retain(|name, user| {
            let stays = kept.contains(&**name);
            if !stays {
                affected.push(user.clone());
            }
            stays
        });
        for (name, rules) in read {
            match users.get(&name) {
                Some(user) if *user.rules() == rules => {}
                Some(user) => {
                    user.set_rules(rules);
                    affected.push(user.clone());
                }
                None => {
                    let user = Arc::new(User::new(&name, rules));
                    users.insert(name, user);
                }
            }
        }
        self.note_default();
        affected
    }

    /// Writes an ACL file: a crash leaves the old one or the new one.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut temporary = path.to_owned().into_os_string();
        temporary.push(format!("-{}.tmp", std::process::id()));
        let temporary = Path::new(&temporary);
        let write = || {
            let mut file = std::fs::File::create(temporary)?;
            for line in self.lines() {
                file.write_all(&line)?;
                file.write_all(b"\n")?;
            }
            file.sync_all()?;
            std::fs::rename(temporary, path)?;
            std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        };
        let written = write();
        if written.is_err() {
            // Nothing to do about a failure to clean up after a failure.
            let _ = std::fs::remove_file(temporary);
        }
        written
    }
}

/// What a request was refused for, and where, as the log has it.
pub struct Refusal {
    pub reason: Reason,
    pub context: Context,
    pub object: Vec<u8>,
}

pub fn all_channels(config: &Config) -> bool {
    config.acl_pubsub_default == AclPubsubDefault::Allchannels
}
