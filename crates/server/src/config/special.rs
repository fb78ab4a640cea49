//! Values of the configuration with a shape of their own: save points, buffer limits, addresses,
//! event classes, percentiles. Knows no directive's default.

use crate::acl::Rules;

use super::value::{Setting, Source, WRONG_ARGUMENTS, bytes, integer, memory_text, one_of, quoted};
use super::value::{choices, single};
use std::path::PathBuf;

choices! {
    LogLevel { Debug = "debug", Verbose = "verbose", Notice = "notice", Warning = "warning" }

    MaxmemoryPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        Noeviction = "noeviction",
    }

    Appendfsync { Everysec = "everysec", Always = "always", No = "no" }

    RdbVersion { V11 = "11", V10 = "10" }

    /// Who may use a command that is off by default.
    Allowed { No = "no", Yes = "yes", Local = "local" }

    Supervised { Upstart = "upstart", Systemd = "systemd", Auto = "auto", No = "no" }

    SyslogFacility {
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }

    OomScoreAdj { No = "no", Yes = "yes", Relative = "relative", Absolute = "absolute" }

    AclPubsubDefault { Allchannels = "allchannels", Resetchannels = "resetchannels" }

    SanitizeDumpPayload { No = "no", Yes = "yes", Clients = "clients" }

    ReplDisklessLoad { Disabled = "disabled", OnEmptyDb = "on-empty-db", Swapdb = "swapdb" }

    ClusterEndpointType { Ip = "ip", Hostname = "hostname", UnknownEndpoint = "unknown-endpoint" }

    PropagationErrorBehavior {
        Ignore = "ignore",
        Panic = "panic",
        PanicOnReplicas = "panic-on-replicas",
    }

    /// What is left of a script that does not come to its own end.
    ScriptAtomicity { Rollback = "rollback", Isolation = "isolation" }

    TlsAuthClients { No = "no", Yes = "yes", Optional = "optional" }
}

impl Allowed {
    /// Whether a client may, which is on this machine or not.
    pub fn includes(self, is_local: bool) -> bool {
        match self {
            Allowed::No => false,
            Allowed::Local => is_local,
            Allowed::Yes => true,
        }
    }
}

/// Several words, such as the addresses to listen on. A single empty word means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<Vec<u8>>);

impl Words {
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Setting for Words {
    /// Refuses some lists, with a reason.
    type Rule = fn(&[&[u8]]) -> Result<(), String>;
    const MULTI: bool = true;

    fn apply(&mut self, args: &[&[u8]], rule: &Self::Rule, _: Source) -> Result<(), String> {
        let args = if let [b""] = args { &[] } else { args };
        rule(args)?;
        self.0 = args.iter().map(|arg| arg.to_vec()).collect();
        Ok(())
    }

    fn text(&self, _: &Self::Rule) -> Vec<u8> {
        self.0.join(&b' ')
    }

    fn lines(&self, _: &Self::Rule) -> Vec<Vec<u8>> {
        let words: Vec<Vec<u8>> = self.0.iter().map(|word| word_of_a_line(word)).collect();
        vec![match &words[..] {
            [] => b"\"\"".to_vec(),
            // A word that stands alone is split once more when it is read.
            [alone] => word_of_a_line(alone),
            several => several.join(&b' '),
        }]
    }
}

/// A word as it stands in a file: in quotes if it needs them.
fn word_of_a_line(word: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    match !word.is_empty() && word.iter().all(is_plain) {
        true => word.to_vec(),
        false => quoted(word),
    }
}

/// `user name rule …`: one line for each user. Not to be had by CONFIG GET: ACL LIST tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Vec<Vec<Vec<u8>>>);

impl Users {
    pub fn of(lines: Vec<Vec<Vec<u8>>>) -> Users {
        Users(lines)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words of each line, the directive's name left out.
    pub fn words(&self) -> &[Vec<Vec<u8>>] {
        &self.0
    }
}

impl Setting for Users {
    type Rule = ();
    const MULTI: bool = true;

    fn apply(&mut self, args: &[&[u8]], (): &(), source: Source) -> Result<(), String> {
        if source == (Source::Line { first: true }) {
            self.0.clear();
        }
        if let [_, rules @ ..] = args {
            let checked = Rules::new(true).apply_all(rules, true);
            checked.map_err(|error| error.0.trim_start_matches("ERR ").to_owned())?;
        }
        if !matches!(args, [b""]) {
            self.0.push(args.iter().map(|arg| arg.to_vec()).collect());
        }
        Ok(())
    }

    fn text(&self, rule: &()) -> Vec<u8> {
        self.lines(rule).join(&b' ')
    }

    fn lines(&self, (): &()) -> Vec<Vec<u8>> {
        let line = |words: &Vec<Vec<u8>>| {
            words.iter().map(|word| word_of_a_line(word)).collect::<Vec<_>>().join(&b' ')
        };
        self.0.iter().map(line).collect()
    }
}

/// Redis listens on at most 16 addresses.
pub(crate) fn addresses(args: &[&[u8]]) -> Result<(), String> {
    if args.len() > 16 {
        return Err("Too many bind addresses specified.".into());
    }
    if args.iter().any(|address| !address.iter().all(u8::is_ascii_graphic)) {
        return Err("addresses are words without white space".into());
    }
    Ok(())
}

pub(crate) fn host_and_port(args: &[&[u8]]) -> Result<(), String> {
    match args {
        [] => Ok(()),
        [_, port] if integer(port).is_some_and(|port| (0..=65535).contains(&port)) => Ok(()),
        [_, _] => Err("Invalid master port".into()),
        _ => Err(WRONG_ARGUMENTS.into()),
    }
}

/// The working directory: where files with a relative name are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn as_path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Setting for Directory {
    type Rule = ();

    /// A relative path starts at the directory set before, and at first at that of the process.
    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let path = super::value::path_of(single(args)?);
        let path = self.0.join(path).canonicalize().map_err(|error| super::reason(&error))?;
        if !path.is_dir() {
            return Err("Not a directory".into());
        }
        self.0 = path;
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        self.0.as_os_str().as_encoded_bytes().to_vec()
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![quoted(&self.text(rule))]
    }
}

/// A snapshot is due `seconds` after the last one if there were `changes` since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    pub seconds: u64,
    pub changes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavePoints(pub Vec<SavePoint>);

impl Setting for SavePoints {
    type Rule = ();
    const MULTI: bool = true;

    /// Lines add up, but the first one replaces the default, and an empty one takes all back.
    fn apply(&mut self, args: &[&[u8]], (): &(), source: Source) -> Result<(), String> {
        let args = if let [b""] = args { &[] } else { args };
        let (pairs, rest) = args.as_chunks::<2>();
        let points: Option<Vec<_>> = pairs.iter().map(save_point).collect();
        let (Some(points), true) = (points, rest.is_empty()) else {
            return Err("Invalid save parameters".into());
        };
        if points.is_empty() || source != (Source::Line { first: false }) {
            self.0.clear();
        }
        self.0.extend(points);
        Ok(())
    }

    fn text(&self, rule: &()) -> Vec<u8> {
        if self.0.is_empty() { Vec::new() } else { self.lines(rule).join(&b' ') }
    }

    fn lines(&self, (): &()) -> Vec<Vec<u8>> {
        if self.0.is_empty() {
            return vec![b"\"\"".to_vec()];
        }
        let points = self.0.iter();
        points.map(|point| format!("{} {}", point.seconds, point.changes).into_bytes()).collect()
    }
}

fn save_point([seconds, changes]: &[&[u8]; 2]) -> Option<SavePoint> {
    let seconds = integer(seconds).filter(|seconds| *seconds >= 1)?;
    let changes = integer(changes).filter(|changes| *changes >= 0)?;
    Some(SavePoint { seconds: seconds as u64, changes: changes as u64 })
}

/// How much unread output a client may leave: at once (`hard_bytes`), or for longer than
/// `soft_seconds` (`soft_bytes`). Zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    pub hard_bytes: u64,
    pub soft_bytes: u64,
    pub soft_seconds: u64,
}

/// An [`OutputLimit`] for each class of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn class(&mut self, name: &[u8]) -> Option<&mut OutputLimit> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Some(&mut self.normal),
            b"replica" | b"slave" => Some(&mut self.replica),
            b"pubsub" => Some(&mut self.pubsub),
            _ => None,
        }
    }
}

impl Setting for OutputLimits {
    type Rule = ();
    const MULTI: bool = true;

    /// Only the named classes change.
    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let (classes, rest) = args.as_chunks::<4>();
        if !rest.is_empty() {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        let mut limits = *self;
        for [class, hard, soft, seconds] in classes {
            let Some(limit) = limits.class(class) else {
                return Err("Invalid client class specified in buffer limit configuration.".into());
            };
            let seconds = integer(seconds).and_then(|seconds| u64::try_from(seconds).ok());
            let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) =
                (bytes(hard), bytes(soft), seconds)
            else {
                return Err("Error in hard, soft or soft_seconds setting in buffer limit \
                            configuration."
                    .into());
            };
            *limit = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
        }
        *self = limits;
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        let classes = [("normal", self.normal), ("slave", self.replica), ("pubsub", self.pubsub)];
        let classes = classes.map(|(class, limit)| {
            format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
        });
        classes.join(" ").into_bytes()
    }

    fn lines(&self, (): &()) -> Vec<Vec<u8>> {
        [("normal", self.normal), ("replica", self.replica), ("pubsub", self.pubsub)]
            .map(|(class, limit)| {
                let hard = memory_text(limit.hard_bytes);
                let soft = memory_text(limit.soft_bytes);
                format!("{class} {hard} {soft} {}", limit.soft_seconds).into_bytes()
            })
            .to_vec()
    }
}

/// An amount of memory, or a part of `maxmemory`. Zero bytes is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryShare {
    Bytes(u64),
    Percent(u8),
}

impl Default for MemoryShare {
    fn default() -> MemoryShare {
        MemoryShare::Bytes(0)
    }
}

impl Setting for MemoryShare {
    type Rule = ();

    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let value = single(args)?;
        let malformed = "argument must be a memory or percent value";
        *self = match value {
            [percent @ .., b'%'] => {
                let percent = integer(percent).filter(|value| *value >= 0).ok_or(malformed)?;
                if percent > 100 {
                    return Err("percentage argument must be less or equal to 100".into());
                }
                MemoryShare::Percent(percent as u8)
            }
            value => MemoryShare::Bytes(bytes(value).ok_or(malformed)?),
        };
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        match self {
            MemoryShare::Bytes(bytes) => bytes.to_string().into_bytes(),
            MemoryShare::Percent(percent) => format!("{percent}%").into_bytes(),
        }
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![match self {
            MemoryShare::Bytes(bytes) => memory_text(*bytes).into_bytes(),
            MemoryShare::Percent(_) => self.text(rule),
        }]
    }
}

/// The percentiles of command latencies that INFO shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Setting for Percentiles {
    type Rule = ();
    const MULTI: bool = true;

    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let args = if let [b""] = args { &[] } else { args };
        let mut percentiles = Vec::with_capacity(args.len());
        for arg in args {
            let Some(percentile) = std::str::from_utf8(arg).ok().and_then(|arg| arg.parse().ok())
            else {
                return Err("Invalid latency-tracking-info-percentiles parameters".into());
            };
            if !(0.0..=100.0).contains(&percentile) {
                return Err("latency-tracking-info-percentiles parameters should sit between \
                            [0.0,100.0]"
                    .into());
            }
            percentiles.push(percentile);
        }
        self.0 = percentiles;
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        let texts: Vec<_> = self.0.iter().map(|p| resp::DoubleText::new(*p)).collect();
        texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>().join(&b' ')
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![if self.0.is_empty() { b"\"\"".to_vec() } else { self.text(rule) }]
    }
}

/// The adjustments of the kernel's OOM score for a primary, a replica and a saving child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomScoreAdjValues(pub [i32; 3]);

impl Setting for OomScoreAdjValues {
    type Rule = ();
    const MULTI: bool = true;

    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let args: &[&[u8]; 3] = args.try_into().map_err(|_| WRONG_ARGUMENTS)?;
        let mut values = [0; 3];
        for (value, arg) in values.iter_mut().zip(args) {
            let Some(parsed) = integer(arg).filter(|value| (-2000..=2000).contains(value)) else {
                return Err("Invalid oom-score-adj-values, elements must be between -2000 and \
                            2000."
                    .into());
            };
            *value = parsed as i32;
        }
        self.0 = values;
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        self.0.map(|value| value.to_string()).join(" ").into_bytes()
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![self.text(rule)]
    }
}

/// The classes of keyspace events that are published, a bit for each of [`KeyspaceEvents::CLASSES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEvents(u32);

impl KeyspaceEvents {
    /// In the order in which `CONFIG GET` lists them. `A` stands for the first ten.
    const CLASSES: &'static [u8] = b"g$lshzxetdnKEm";
    const ALL: u32 = (1 << 10) - 1;

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the class with this letter is on.
    pub fn contains(self, class: u8) -> bool {
        Self::bit(class).is_some_and(|bit| self.0 & bit != 0)
    }

    fn bit(class: u8) -> Option<u32> {
        Self::CLASSES.iter().position(|letter| *letter == class).map(|index| 1 << index)
    }
}

impl Setting for KeyspaceEvents {
    type Rule = ();

    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let mut events = 0;
        for &class in single(args)? {
            events |= match class {
                b'A' => Self::ALL,
                class => Self::bit(class)
                    .ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?,
            };
        }
        self.0 = events;
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        let mut text = Vec::new();
        let mut rest = self.0;
        if rest & Self::ALL == Self::ALL {
            text.push(b'A');
            rest &= !Self::ALL;
        }
        let classes = Self::CLASSES.iter().enumerate();
        text.extend(classes.filter(|(index, _)| rest & (1 << index) != 0).map(|(_, class)| class));
        text
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![quoted(&self.text(rule))]
    }
}

/// What a signal asks of the shutdown; nothing set is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownFlags {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
}

impl ShutdownFlags {
    const NAMES: &[&str] = &["default", "save", "nosave", "now", "force"];

    fn flags(&self) -> [(&'static str, bool); 4] {
        [("save", self.save), ("nosave", self.nosave), ("now", self.now), ("force", self.force)]
    }
}

impl Setting for ShutdownFlags {
    type Rule = ();
    const MULTI: bool = true;

    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let mut flags = ShutdownFlags::default();
        if args.is_empty() {
            return Err(one_of(Self::NAMES));
        }
        for arg in args {
            match arg.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => flags.save = true,
                b"nosave" => flags.nosave = true,
                b"now" => flags.now = true,
                b"force" => flags.force = true,
                _ => return Err(one_of(Self::NAMES)),
            }
        }
        if flags.save && flags.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *self = flags;
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        let flags = self.flags();
        let set: Vec<_> = flags.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if set.is_empty() { b"default".to_vec() } else { set.join(" ").into_bytes() }
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![self.text(rule)]
    }
}

/// A process title with known placeholders, that does not come out empty.
pub(crate) fn title_template(text: &[u8]) -> Result<(), String> {
    const PLACEHOLDERS: &[&str] =
        &["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];
    let malformed = || Err("template format is invalid or contains unknown variables".into());
    let Ok(text) = std::str::from_utf8(text) else { return malformed() };
    if matches!(text.trim(), "" | "{title}") {
        return malformed();
    }
    for part in text.split('{').skip(1) {
        match part.split_once('}') {
            Some((name, _)) if PLACEHOLDERS.contains(&name) => {}
            _ => return malformed(),
        }
    }
    Ok(())
}
