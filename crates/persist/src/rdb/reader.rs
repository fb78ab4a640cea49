//! Files: an iterator over what is in them, checksum included.

use std::io::{self, Read};

use data::Limits;
use engine::Value;

use super::decode::{self, Scratch};
use super::run::{self, Run};
use super::source::{Length, Source};
use super::{Error, Fault, VERSION_MAX, opcode, part};

/// Keys are cut out by so much at once: what the caches of a processor hold beside other things.
const RUN_BYTES: usize = 256 << 10;
/// Fewer are not worth handing over.
const RUN_BYTES_MIN: usize = 64 << 10;

/// One record of a file.
pub enum Item {
    /// Something about the file or its writer: `redis-ver`, `ctime` and so on.
    Aux {
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// The following keys are in this database.
    Select(u32),
    /// How many keys the database has, and how many of them expire: a hint.
    Resize {
        keys: u64,
        expires: u64,
    },
    Key(Key),
    /// The code of a library of functions.
    Function(Vec<u8>),
    /// A key that holds an empty collection, which is none.
    Empty(Vec<u8>),
    /// Something that was passed over, for the log.
    Skipped(String),
}

/// A key and its value.
pub struct Key {
    pub key: Vec<u8>,
    pub value: Value,
    /// Unix ms.
    pub expire_at_ms: Option<i64>,
    /// How long nobody had used it.
    pub idle_seconds: Option<u64>,
    /// The logarithmic counter of its uses.
    pub frequency: Option<u8>,
}

/// What a file is cut into where several threads read it.
pub enum Piece {
    Item(Item),
    /// Keys that were not looked into.
    Run(Run),
}

/// Reads a file of which it knows nothing but the bytes that come. After an error it is over.
pub struct Reader<R> {
    source: Source<R>,
    limits: Limits,
    scratch: Scratch,
    version: u16,
    is_over: bool,
    /// What is read are the keys of a [`Run`], behind which nothing follows.
    is_run: bool,
    /// Up to here keys come one by one.
    single_until: u64,
}

impl Reader<io::Empty> {
    /// Reads keys that were cut out of a file.
    pub fn of_run(run: Run, limits: &Limits) -> Reader<io::Empty> {
        let Run { bytes, offset } = run;
        let source = Source::within(bytes, offset);
        Reader { is_run: true, ..Reader::with(source, limits, VERSION_MAX) }
    }

    /// A buffer for the next run.
    pub fn into_buffer(self) -> Vec<u8> {
        self.source.into_buffer()
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header. Values get the encodings that `limits` ask for.
    pub fn new(from: R, limits: &Limits) -> Result<Reader<R>, Error> {
        let mut source = Source::new(from);
        let header: [u8; 9] = source.array().map_err(|fault| at(&source, None, fault))?;
        let digits =
            header.strip_prefix(b"REDIS").filter(|text| text.iter().all(u8::is_ascii_digit));
        let Some(digits) = digits else {
            return Err(Error::Version("this is no RDB file: it does not begin with REDIS".into()));
        };
        let version = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        if !(1..=VERSION_MAX).contains(&version) {
            let text =
                format!("RDB files of version {version} cannot be read, only 1 to {VERSION_MAX}");
            return Err(Error::Version(text));
        }
        Ok(Reader::with(source, limits, version))
    }

    fn with(source: Source<R>, limits: &Limits, version: u16) -> Reader<R> {
        let (limits, scratch) = (*limits, Scratch::default());
        Reader { source, limits, scratch, version, is_over: false, is_run: false, single_until: 0 }
    }

    pub fn version(&self) -> u16 {
        self.version
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next record; `None` at the end of the file, with the checksum verified. Bytes that come
    /// behind it are not looked at (an append-only file may go on there).
    pub fn item(&mut self) -> Result<Option<Item>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let mut key = None;
        let result = self.record(&mut key);
        self.is_over = !matches!(result, Ok(Some(_)));
        match result {
            Ok(item) => Ok(item),
            Err(Failure::Fault(fault)) => Err(at(&self.source, key, fault)),
            Err(Failure::Checksum { expected, found }) => Err(Error::Checksum { expected, found }),
        }
    }

    /// The next record, or many at once if they are keys. `spare` is a buffer for these.
    pub fn piece(&mut self, spare: &mut Vec<u8>) -> Result<Option<Piece>, Error> {
        if !self.is_over && self.source.offset() >= self.single_until {
            let bytes = self.keys_ahead().map_err(|fault| at(&self.source, None, fault))?;
            if bytes >= RUN_BYTES_MIN {
                let offset = self.source.offset();
                self.source.cut(bytes, spare);
                return Ok(Some(Piece::Run(Run { bytes: std::mem::take(spare), offset })));
            }
            self.single_until = self.source.offset() + bytes as u64;
        }
        Ok(self.item()?.map(Piece::Item))
    }

    /// How many bytes of whole keys come next, of those that fit into a run.
    fn keys_ahead(&mut self) -> Result<usize, Fault> {
        loop {
            let buffered = self.source.buffered();
            let bytes = run::whole_keys(buffered);
            // Something else comes behind it, or its end is not there yet.
            let is_cut_short = bytes == buffered.len() || run::is_key(buffered[bytes]);
            if bytes >= RUN_BYTES_MIN || !is_cut_short || !self.source.fetch(RUN_BYTES)? {
                return Ok(bytes);
            }
        }
    }

    fn record(&mut self, key: &mut Option<Vec<u8>>) -> Result<Option<Item>, Failure> {
        let (mut expire_at_ms, mut idle_seconds, mut frequency) = (None, None, None);
        let source = &mut self.source;
        if self.is_run && source.is_at_end()? {
            return Ok(None);
        }
        loop {
            let kind = source.byte()?;
            // These belong to the key that follows.
            match kind {
                opcode::EXPIRETIME => {
                    let seconds = i64::from(i32::from_le_bytes(source.array()?));
                    expire_at_ms = Some(seconds * 1000);
                    continue;
                }
                opcode::EXPIRETIME_MS => {
                    expire_at_ms = Some(i64::from_le_bytes(source.array()?));
                    continue;
                }
                opcode::FREQ => {
                    frequency = Some(source.byte()?);
                    continue;
                }
                opcode::IDLE => {
                    idle_seconds = Some(source.length()?);
                    continue;
                }
                _ => {}
            }
            return Ok(Some(match kind {
                opcode::EOF => {
                    self.verify()?;
                    return Ok(None);
                }
                opcode::SELECTDB => {
                    let number = source.length()?;
                    match u32::try_from(number) {
                        Ok(db) => Item::Select(db),
                        Err(_) => Fault::corrupt(format!("there is no database {number}"))?,
                    }
                }
                opcode::RESIZEDB => {
                    Item::Resize { keys: source.length()?, expires: source.length()? }
                }
                opcode::AUX => {
                    let (mut name, mut value) = (Vec::new(), Vec::new());
                    source.string(&mut name)?;
                    source.string(&mut value)?;
                    Item::Aux { name, value }
                }
                opcode::FUNCTION2 => {
                    let mut code = Vec::new();
                    source.string(&mut code)?;
                    Item::Function(code)
                }
                opcode::FUNCTION_PRE_GA => Fault::corrupt(
                    "a function stands here as only candidates of Redis 7.0 wrote it",
                )?,
                opcode::SLOT_INFO => {
                    for _ in 0..3 {
                        source.length()?;
                    }
                    continue;
                }
                opcode::MODULE_AUX => Item::Skipped(module_aux(source)?),
                _ => {
                    let mut name = Vec::new();
                    source.string(&mut name)?;
                    let name = key.insert(name);
                    match decode::value(source, kind, &self.limits, &mut self.scratch)? {
                        None => Item::Empty(std::mem::take(name)),
                        Some(value) => Item::Key(Key {
                            key: std::mem::take(name),
                            value,
                            expire_at_ms,
                            idle_seconds,
                            frequency,
                        }),
                    }
                }
            }));
        }
    }

    fn verify(&mut self) -> Result<(), Failure> {
        // Before version 5 there was no checksum.
        if self.version < 5 {
            return Ok(());
        }
        let expected = self.source.sum();
        let found = u64::from_le_bytes(self.source.array()?);
        if found == 0 || found == expected {
            return Ok(());
        }
        Err(Failure::Checksum { expected, found })
    }
}

enum Failure {
    Fault(Fault),
    Checksum { expected: u64, found: u64 },
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

fn at<R: Read>(source: &Source<R>, key: Option<Vec<u8>>, fault: Fault) -> Error {
    let offset = source.offset();
    match fault {
        Fault::Io(error) => Error::Io(error),
        Fault::Truncated => Error::Truncated { offset },
        Fault::Corrupt(what) => Error::Corrupt { offset, key, what },
        Fault::NotBuilt(what) => Error::NotBuilt { key: key.unwrap_or_default(), what },
    }
}

/// Passes over what a module kept beside the keys, each piece of which says what it is.
fn module_aux<R: Read>(source: &mut Source<R>) -> Result<String, Fault> {
    let name = decode::module_name(source.length()?);
    loop {
        match source.length()? {
            part::END => return Ok(format!("data of the module type '{name}'")),
            part::SIGNED | part::UNSIGNED => match source.length_or_coding()? {
                Length::Of(_) => {}
                Length::Coded(_) => return Fault::corrupt("a module's integer is a coded string"),
            },
            part::FLOAT => source.skip(4)?,
            part::DOUBLE => source.skip(8)?,
            part::STRING => source.skip_string()?,
            other => return Fault::corrupt(format!("a module wrote something of kind {other}")),
        }
    }
}
