//! `luar check-aof`: are these append-only files whole, and what is in them?
//!
//! Knows files and words only; what a whole file is, `persist` says.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use persist::aof::{Error, Manifest, Next, Reader, Torn};

const USAGE: &str = "\
Usage: luar check-aof [--fix | --truncate-to-timestamp SECONDS] FILE ...

FILE is a manifest, whose files are all checked, or a base or incremental file. A file that a crash
has torn at its end loses that end with --fix; with a manifest only the last file may be torn, and
empty ones may come behind it. --truncate-to-timestamp cuts off what came after that Unix time, as
far as the file tells times (aof-timestamp-enabled).
Exit code 1 when a file is damaged or still torn, 2 when it cannot be read.
";

/// What went wrong before there was anything to check.
const TROUBLE: u8 = 2;

/// How a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Whole,
    /// Torn, and not mended, or damaged.
    Broken,
}

/// What is to be done with a file, beside looking at it.
#[derive(Clone, Copy)]
enum Wish {
    Look,
    /// Cut off what is torn.
    Fix,
    /// Cut off what came later (Unix s).
    Truncate(i64),
}

/// Runs `luar check-aof` with what stands behind it.
pub fn main(args: &[OsString]) -> ExitCode {
    let is = |wanted: &'static str| move |arg: &&OsString| arg.as_os_str() == wanted;
    if args.iter().any(|arg| is("--help")(&arg) || is("-h")(&arg)) {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let mut wish = Wish::Look;
    let mut files: Vec<&OsString> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if is("--fix")(&arg) {
            wish = Wish::Fix;
        } else if is("--truncate-to-timestamp")(&arg) {
            let time =
                rest.next().and_then(|time| time.to_str()).and_then(|time| time.parse().ok());
            let Some(time) = time.filter(|time| *time > 0) else {
                eprint!("{USAGE}");
                return ExitCode::from(TROUBLE);
            };
            wish = Wish::Truncate(time);
        } else {
            files.push(arg);
        }
    }
    if files.is_empty() {
        eprint!("{USAGE}");
        return ExitCode::from(TROUBLE);
    }
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match check(Path::new(file), wish) {
            Ok(Health::Whole) => {}
            Ok(Health::Broken) => code = ExitCode::FAILURE,
            Err(error) => {
                eprintln!("luar check-aof: {}: {error}", Path::new(file).display());
                return ExitCode::from(TROUBLE);
            }
        }
    }
    code
}

fn check(path: &Path, wish: Wish) -> io::Result<Health> {
    if path.extension().is_none_or(|extension| extension != "manifest") {
        return check_file(path, wish, true);
    }
    let mut text = Vec::new();
    File::open(path)?.read_to_end(&mut text)?;
    let manifest = match Manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(error) => {
            say(path, error);
            return Ok(Health::Broken);
        }
    };
    let files: Vec<PathBuf> =
        manifest.files().map(|file| path.with_file_name(&file.name)).collect();
    let mut health = Health::Whole;
    for (index, file) in files.iter().enumerate() {
        if !file.try_exists()? {
            say(file, "the manifest names it, and it is not there");
            health = Health::Broken;
            continue;
        }
        let is_last = files[index + 1..]
            .iter()
            .all(|later| std::fs::metadata(later).is_ok_and(|metadata| metadata.len() == 0));
        let may_be_cut = is_last && !manifest.incremental.is_empty();
        if check_file(file, wish, may_be_cut)? == Health::Broken {
            health = Health::Broken;
        }
    }
    Ok(health)
}

fn say(path: &Path, what: impl Display) {
    println!("{}: {what}", path.display());
}

/// Checks one file, and cuts it if it is torn, may be, and is to be mended.
fn check_file(path: &Path, wish: Wish, may_be_cut: bool) -> io::Result<Health> {
    let mut file = File::open(path)?;
    let mut header = Vec::new();
    file.by_ref().take(5).read_to_end(&mut header)?;
    file.rewind()?;
    let (mut keys, mut preamble_bytes) = (None, 0);
    if header == b"REDIS" {
        match check_preamble(&file) {
            Ok((count, bytes)) => (keys, preamble_bytes) = (Some(count), bytes),
            Err(persist::rdb::Error::Io(error)) => return Err(error),
            Err(error) => {
                say(path, format_args!("damaged: {error}"));
                return Ok(Health::Broken);
            }
        }
        file.seek(SeekFrom::Start(preamble_bytes))?;
    }
    let mut reader = Reader::new(file, preamble_bytes);
    let (mut blocks, mut commands) = (0u64, 0);
    let mut whole_bytes = preamble_bytes;
    let end = loop {
        match reader.next_block() {
            Ok(Next::Block(block)) => {
                if let (Wish::Truncate(until), Some(time)) = (wish, block.time_s)
                    && time > until
                {
                    let frame = block.frame_offset.filter(|offset| *offset < whole_bytes);
                    return truncate(path, whole_bytes, frame, until, may_be_cut);
                }
                whole_bytes = block.end_offset;
                blocks += 1;
                commands += block.command_count();
            }
            Ok(Next::End(end)) => break end,
            Err(Error::Io(error)) => return Err(error),
            Err(error @ Error::Damaged { .. }) => {
                say(path, error);
                return Ok(Health::Broken);
            }
        }
    };
    let keys = keys.map(|keys| format!("{keys} keys, ")).unwrap_or_default();
    let Some(torn) = end.filter(|torn| !torn.is_room) else {
        say(path, format_args!("{keys}{blocks} blocks, {commands} commands: whole"));
        return Ok(Health::Whole);
    };
    let Torn { keep_bytes, dropped_bytes, dropped_commands, .. } = torn;
    let lost = format!("{dropped_bytes} bytes, {dropped_commands} commands");
    if matches!(wish, Wish::Fix) && may_be_cut {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(keep_bytes)?;
        file.sync_all()?;
        say(path, format_args!("{keys}{blocks} blocks, {commands} commands; cut off: {lost}"));
        return Ok(Health::Whole);
    }
    let advice = match may_be_cut {
        true => "--fix cuts it there",
        false => "it is not the last file: what comes behind it does not fit",
    };
    say(path, format_args!("torn behind byte {keep_bytes}: {lost} are not whole; {advice}"));
    Ok(Health::Broken)
}

/// Cuts off what came after a time. `frame`: where the line is in front of a frame that is cut in the
/// middle, and is none any more.
fn truncate(
    path: &Path,
    keep_bytes: u64,
    frame: Option<u64>,
    until: i64,
    may_be_cut: bool,
) -> io::Result<Health> {
    if !may_be_cut {
        say(path, format_args!("has blocks after {until}, and is not the last file: not cut"));
        return Ok(Health::Broken);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    let cut_bytes = file.metadata()?.len() - keep_bytes;
    if let Some(offset) = frame {
        file.write_all_at(b"#CUT", offset)?;
        file.sync_all()?;
    }
    file.set_len(keep_bytes)?;
    file.sync_all()?;
    say(path, format_args!("{cut_bytes} bytes that came after {until} are cut off"));
    Ok(Health::Whole)
}

/// Reads the RDB at the beginning of a file; answers how many keys it has, and where it ends.
fn check_preamble(file: &File) -> Result<(u64, u64), persist::rdb::Error> {
    let limits = data::Limits::default();
    let mut reader = persist::rdb::Reader::new(BufReader::new(file), &limits)?;
    let mut keys = 0;
    while let Some(item) = reader.item()? {
        keys += u64::from(matches!(item, persist::rdb::Item::Key(_)));
    }
    Ok((keys, reader.offset()))
}
