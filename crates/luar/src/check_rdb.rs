//! `luar check-rdb`: are these RDB files whole, and what is in them?
//!
//! Knows files and words only; what a whole file is, `persist` says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use persist::rdb::{Error, Item, Reader};

const USAGE: &str = "\
Usage: luar check-rdb FILE ...

Reads each file to its end, checksum included, and says what is in it.
Exit code 1 when a file is damaged, 2 when it cannot be read.
";

/// What went wrong before there was anything to check.
const TROUBLE: u8 = 2;

/// What a file holds.
#[derive(Default)]
struct Content {
    version: u16,
    bytes: u64,
    writer: Option<String>,
    /// Keys of each database.
    keys: BTreeMap<u32, u64>,
    expires: u64,
    expired: u64,
    functions: u64,
    skipped: Vec<String>,
}

/// Runs `luar check-rdb` with what stands behind it.
pub fn main(args: &[OsString]) -> ExitCode {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if args.is_empty() {
        eprint!("{USAGE}");
        return ExitCode::from(TROUBLE);
    }
    let mut code = ExitCode::SUCCESS;
    for arg in args {
        let path = Path::new(arg);
        let mut content = Content::default();
        match check(path, &mut content) {
            Ok(()) => tell(path, &content),
            Err(Error::Io(error)) => {
                eprintln!("luar check-rdb: {}: {error}", path.display());
                return ExitCode::from(TROUBLE);
            }
            Err(error) => {
                let keys: u64 = content.keys.values().sum();
                println!("{}: damaged behind {keys} keys: {error}", path.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn check(path: &Path, content: &mut Content) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::Io)?;
    // A folder can be opened; reading it says what it is.
    let bytes = file.metadata().map_err(Error::Io)?.len();
    let (mut reader, now_ms) = (Reader::new(file, &data::Limits::default())?, now_ms());
    content.version = reader.version();
    let mut db = 0;
    while let Some(item) = reader.item()? {
        match item {
            Item::Key(key) => {
                *content.keys.entry(db).or_default() += 1;
                if let Some(when) = key.expire_at_ms {
                    content.expires += 1;
                    content.expired += u64::from(when <= now_ms);
                }
            }
            Item::Aux { name, value } if name == b"redis-ver" => {
                content.writer = Some(String::from_utf8_lossy(&value).into_owned());
            }
            Item::Select(number) => db = number,
            Item::Function(_) => content.functions += 1,
            Item::Empty(key) => {
                let key = key.escape_ascii();
                content.skipped.push(format!("the key '{key}', an empty collection"));
            }
            Item::Skipped(what) => content.skipped.push(what),
            Item::Aux { .. } | Item::Resize { .. } => {}
        }
    }
    content.bytes = reader.offset();
    if content.bytes < bytes {
        let left_bytes = bytes - content.bytes;
        content.skipped.push(format!("{left_bytes} bytes behind the end"));
    }
    Ok(())
}

fn tell(path: &Path, content: &Content) {
    let Content { version, bytes, writer, keys, expires, expired, functions, skipped } = content;
    let writer = writer.as_ref().map(|writer| format!(", of Redis {writer}")).unwrap_or_default();
    println!("{}: whole: version {version}{writer}, {bytes} bytes", path.display());
    for (db, keys) in keys {
        println!("  database {db}: {keys} keys");
    }
    println!("  {expires} keys expire, {expired} of them have already");
    if *functions > 0 {
        println!("  {functions} libraries of functions");
    }
    for what in skipped {
        println!("  passed over: {what}");
    }
}
