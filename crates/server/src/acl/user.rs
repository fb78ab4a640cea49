//! A user: passwords, and selectors that say what may be done.
//!
//! [`Rules`] is plain data; a [`User`] is the name that clients hold on to while its rules change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use super::selector::{Denied, RuleError, Selector};
use crate::table::Registered;

/// SHA-256 of a password.
type Hash = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub is_enabled: bool,
    /// Any password will do.
    pub is_nopass: bool,
    /// Whether RESTORE looks into payloads; it always does, this is only remembered.
    skips_sanitizing: bool,
    passwords: Vec<Hash>,
    root: Selector,
    selectors: Vec<Selector>,
}

impl Rules {
    /// Of a new user, who may do nothing.
    pub fn new(all_channels: bool) -> Rules {
        Rules {
            is_enabled: false,
            is_nopass: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            selectors: Vec::new(),
        }
    }

    /// Of the user that clients are at first: everything, without a password.
    pub fn of_default() -> Rules {
        let mut rules = Rules::new(true);
        (rules.is_enabled, rules.is_nopass) = (true, true);
        for rule in [&b"+@all"[..], b"~*"] {
            rules.root.apply(rule).expect("these rules are there");
        }
        rules
    }

    /// Takes in rules, selectors among them as one rule or as several from `(` to `)`. The error
    /// is ready for the client.
    pub fn apply_all(&mut self, rules: &[&[u8]], all_channels: bool) -> Result<(), command::Error> {
        for rule in joined(rules)? {
            self.apply(&rule, all_channels)
                .map_err(|error| super::selector::refused(&rule, error))?;
        }
        Ok(())
    }

    fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"on" => self.is_enabled = true,
            b"off" => self.is_enabled = false,
            b"nopass" => {
                self.is_nopass = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.is_nopass = false;
                self.passwords.clear();
            }
            b"skip-sanitize-payload" => self.skips_sanitizing = true,
            b"sanitize-payload" => self.skips_sanitizing = false,
            b"clearselectors" => self.selectors.clear(),
            b"reset" => *self = Rules::new(all_channels),
            _ => match rule {
                [b'>', password @ ..] => self.add_password(hash(password)),
                [b'#', digits @ ..] => self.add_password(parse_hash(digits)?),
                [b'<', password @ ..] => self.remove_password(hash(password))?,
                [b'!', digits @ ..] => self.remove_password(parse_hash(digits)?)?,
                [b'(', inner @ .., b')'] => {
                    let mut selector = Selector::new(all_channels);
                    let words = inner.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
                    for word in words {
                        selector.apply(word)?;
                    }
                    self.selectors.push(selector);
                }
                _ => self.root.apply(rule)?,
            },
        }
        Ok(())
    }

    fn add_password(&mut self, password: Hash) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.is_nopass = false;
    }

    fn remove_password(&mut self, password: Hash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == password);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// The one password that `requirepass` sets; an empty one takes all away.
    pub fn set_only_password(&mut self, password: &[u8]) {
        self.passwords.clear();
        self.is_nopass = password.is_empty();
        if !password.is_empty() {
            self.add_password(hash(password));
        }
    }

    /// Compares hashes, so the time it takes says nothing of the password.
    pub fn accepts_password(&self, password: &[u8]) -> bool {
        self.is_nopass || self.passwords.contains(&hash(password))
    }

    /// The selectors, the root first.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Of several refusals the one that came closest.
    pub fn check(&self, command: &Registered, args: &[&[u8]]) -> Result<(), Denied> {
        let mut closest = Denied::Command;
        for selector in self.selectors() {
            match selector.check(command, args) {
                Ok(()) => return Ok(()),
                Err(denied) => closest = closest.max(denied),
            }
        }
        Err(closest)
    }

    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.selectors().any(|selector| selector.allows_channel(channel, is_pattern))
    }

    /// Words for what is on and off.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_enabled { "on" } else { "off" }];
        if self.is_nopass {
            flags.push("nopass");
        }
        flags.push(match self.skips_sanitizing {
            true => "skip-sanitize-payload",
            false => "sanitize-payload",
        });
        flags
    }

    /// 64 hexadecimal digits each.
    pub fn passwords(&self) -> impl Iterator<Item = String> {
        self.passwords.iter().map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// All of it as the rules that make it, on one line.
    pub fn text(&self) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> =
            self.flags().into_iter().map(|flag| flag.as_bytes().to_vec()).collect();
        parts.extend(self.passwords().map(|digits| format!("#{digits}").into_bytes()));
        parts.push(self.root.text());
        parts.extend(self.selectors.iter().map(|one| [b"(", &*one.text(), b")"].concat()));
        parts.join(&b' ')
    }

    fn allows_everything(&self) -> bool {
        self.root.allows_everything()
    }
}

/// Joins words from one that begins with `(` to one that ends with `)`.
fn joined(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, command::Error> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    // What was joined so far, and the word it began with.
    let mut open: Option<(Vec<u8>, &[u8])> = None;
    for rule in rules {
        let (word, begun) = match open.take() {
            Some((joined, begun)) => ([&*joined, b" ", rule].concat(), begun),
            None => (rule.to_vec(), *rule),
        };
        match word.starts_with(b"(") && !word.ends_with(b")") {
            true => open = Some((word, begun)),
            false => all.push(word),
        }
    }
    match open {
        None => Ok(all),
        Some((_, begun)) => {
            let begun = String::from_utf8_lossy(begun);
            let text = format!("ERR Unmatched parenthesis in acl selector starting at '{begun}'.");
            Err(command::Error::new(text))
        }
    }
}

fn hash(password: &[u8]) -> Hash {
    Sha256::digest(password).into()
}

fn parse_hash(digits: &[u8]) -> Result<Hash, RuleError> {
    let mut hash = Hash::default();
    if digits.len() != 2 * hash.len() {
        return Err(RuleError::PasswordHash);
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(RuleError::PasswordHash),
    };
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? * 16 + value(pair[1])?;
    }
    Ok(hash)
}

pub struct User {
    pub name: Box<[u8]>,
    rules: RwLock<Arc<Rules>>,
    /// It may do everything, so requests need not be looked at.
    is_free: AtomicBool,
}

impl User {
    pub fn new(name: &[u8], rules: Rules) -> User {
        let is_free = AtomicBool::new(rules.allows_everything());
        User { name: name.into(), rules: RwLock::new(Arc::new(rules)), is_free }
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }

    pub fn set_rules(&self, rules: Rules) {
        let is_free = rules.allows_everything();
        // Never is there a moment in which more is allowed than by the old or the new rules.
        self.is_free.store(false, Ordering::SeqCst);
        *self.rules.write() = Arc::new(rules);
        self.is_free.store(is_free, Ordering::SeqCst);
    }

    #[inline]
    pub fn may_do_everything(&self) -> bool {
        self.is_free.load(Ordering::Acquire)
    }

    /// Whether it may run this. Free users pay one load.
    #[inline]
    pub fn check(&self, command: &Registered, args: &[&[u8]]) -> Result<(), Denied> {
        match self.may_do_everything() {
            true => Ok(()),
            false => self.rules().check(command, args),
        }
    }
}
