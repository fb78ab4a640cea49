//! Whole files of data: how they come by their name, and how they get to the disk.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use persist::aof::{Append, Buffer, PIECE_BYTES};

/// Bytes that go past the system's cache at once.
const DIRECT_BYTES: usize = 1 << 20;
/// Bytes of a part that is sent to the disk while the next one is written, where the cache is in
/// between.
const PART_BYTES: u64 = 8 << 20;

/// A file on its way to its name; removed if it does not get there.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nobody misses it; what went wrong before is the error to be told.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a file beside the one of this name, which it replaces once it is safe on the disk and may.
/// `temporary` is its name until then, which no other has.
pub fn replace<L>(
    path: &Path,
    temporary: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    may_replace: impl FnOnce() -> io::Result<L>,
) -> io::Result<()> {
    // `dir` may change before the end.
    let path = std::path::absolute(path)?;
    let temporary = path.with_file_name(temporary);
    let mut file = File::create(&temporary)?;
    let unfinished = Unfinished(temporary);
    write(&mut file)?;
    file.sync_all()?;
    let lock = may_replace()?;
    fs::rename(&unfinished.0, &path)?;
    drop(lock);
    std::mem::forget(unfinished);
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

/// What writes to an empty file, steadily where that is wanted. All is in the file after `flush`.
pub fn writer<'f>(file: &'f mut File, is_steady: bool) -> Box<dyn Write + Send + 'f> {
    match is_steady {
        true => Box::new(Steady::new(file)),
        false => Box::new(file),
    }
}

/// A file that goes to the disk while it is written, so that the sync at the end is short and holds up
/// nobody's disk. It is not synced by that. What is long goes past the system's cache, where the file
/// can do that: the way through it takes several times as long, and has it forget what others use.
///
/// What is written is in the file after `flush`, which is for the end: from there on it goes through
/// the cache.
struct Steady<'f> {
    file: &'f mut File,
    /// What is to go past the cache next, at most [`DIRECT_BYTES`].
    gathered: Buffer,
    way: Way,
}

enum Way {
    /// Nothing was written yet but to `gathered`.
    New,
    PastCache,
    ThroughCache(Parts),
}

impl<'f> Steady<'f> {
    /// The file is empty.
    fn new(file: &'f mut File) -> Steady<'f> {
        let mut gathered = Buffer::default();
        gathered.tail().reserve(DIRECT_BYTES + PIECE_BYTES);
        gathered.clear();
        Steady { file, gathered, way: Way::New }
    }

    /// Sends whole pieces of what has gathered, all of it where it is as long as it gets.
    fn send(&mut self) -> io::Result<()> {
        if matches!(self.way, Way::New) {
            self.way = match self.file.set_direct(true) {
                Ok(()) => Way::PastCache,
                Err(_) => Way::ThroughCache(Parts::default()),
            };
        }
        let mut written = 0;
        let whole = self.gathered.len() - self.gathered.len() % PIECE_BYTES;
        while written < whole && matches!(self.way, Way::PastCache) {
            match self.file.write(&self.gathered[written..whole]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It was a promise. What went well so far stands there.
                Err(error) if error.kind() == ErrorKind::InvalidInput => self.leave_direct()?,
                Err(error) => return Err(error),
            }
        }
        let rest = self.gathered[written..].to_vec();
        self.gathered.clear();
        match &mut self.way {
            Way::ThroughCache(parts) => {
                self.file.write_all(&rest)?;
                parts.wrote(self.file, rest.len() as u64)
            }
            _ => {
                self.gathered.tail().extend_from_slice(&rest);
                Ok(())
            }
        }
    }

    fn leave_direct(&mut self) -> io::Result<()> {
        self.file.set_direct(false)?;
        self.way = Way::ThroughCache(Parts::at(self.file.metadata()?.len()));
        Ok(())
    }
}

impl Write for Steady<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Way::ThroughCache(parts) = &mut self.way {
            let count = self.file.write(bytes)?;
            parts.wrote(self.file, count as u64)?;
            return Ok(count);
        }
        let count = bytes.len().min(DIRECT_BYTES - self.gathered.len());
        self.gathered.tail().extend_from_slice(&bytes[..count]);
        if self.gathered.len() == DIRECT_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        if matches!(self.way, Way::PastCache) {
            self.leave_direct()?;
            self.send()?;
        }
        self.file.flush()
    }
}

/// Has a file that goes through the cache written to the disk, part by part.
#[derive(Default)]
struct Parts {
    written_bytes: u64,
    /// Up to here it is on its way to the disk, and up to there it was waited for.
    begun_bytes: u64,
    done_bytes: u64,
}

impl Parts {
    /// Of a file of which nothing in front of this is to be seen to.
    fn at(bytes: u64) -> Parts {
        Parts { written_bytes: bytes, begun_bytes: bytes, done_bytes: bytes }
    }

    fn wrote(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        self.written_bytes += bytes;
        match self.written_bytes - self.begun_bytes >= PART_BYTES {
            true => self.write_out(file),
            false => Ok(()),
        }
    }

    /// Has the last part written to the disk, and waits for the one before it. An error that is told
    /// here is not told again by the sync at the end.
    #[cfg(target_os = "linux")]
    fn write_out(&mut self, file: &File) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let range = |from: u64, to: u64, flags| {
            let (fd, bytes) = (file.as_raw_fd(), (to - from) as libc::off64_t);
            // SAFETY: the file is open for as long as it is borrowed, and no memory is involved.
            match unsafe { libc::sync_file_range(fd, from as libc::off64_t, bytes, flags) } {
                0 => Ok(()),
                _ => match io::Error::last_os_error() {
                    // It is a hint to systems that know of it.
                    error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
                    error => Err(error),
                },
            }
        };
        let and_wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        range(self.begun_bytes, self.written_bytes, libc::SYNC_FILE_RANGE_WRITE)?;
        // A length of zero would mean the whole file.
        if self.done_bytes < self.begun_bytes {
            range(self.done_bytes, self.begun_bytes, and_wait)?;
        }
        self.done_bytes = self.begun_bytes;
        self.begun_bytes = self.written_bytes;
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn write_out(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        self.done_bytes = self.written_bytes;
        self.begun_bytes = self.written_bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what the lengths say, and compares with what is read again.
    fn write(file: &mut File, path: &Path, lengths: &[usize]) {
        let mut steady = Steady::new(file);
        let mut expected = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            let bytes: Vec<u8> = (0..*length).map(|byte| (byte * 7 + at) as u8).collect();
            steady.write_all(&bytes).expect("it can be written");
            expected.extend_from_slice(&bytes);
            if at % 40 == 39 {
                steady.flush().expect("it can be written");
                assert!(fs::read(path).expect("it is there") == expected);
            }
        }
        steady.flush().expect("it can be written");
        drop(steady);
        file.sync_all().expect("it can be synced");
        assert!(fs::read(path).expect("it is there") == expected);
    }

    #[test]
    fn what_is_written_is_there_whatever_way_it_went() {
        let folder = tempfile::tempdir().expect("it can be made");
        let path = folder.path().join("file");
        let lengths: [&[usize]; 8] = [
            &[],
            &[1],
            &[PIECE_BYTES],
            &[DIRECT_BYTES],
            &[DIRECT_BYTES - 1, 2, DIRECT_BYTES - 1],
            &[3 * DIRECT_BYTES + 5, 100, 10 * DIRECT_BYTES],
            &[60_001; 90],
            &[5_000_000; 6],
        ];
        for lengths in lengths {
            let mut file = File::create(&path).expect("it can be made");
            write(&mut file, &path, lengths);
        }
    }

    #[test]
    fn an_error_is_told() {
        let Ok(mut full) = File::options().write(true).open("/dev/full") else { return };
        let mut steady = Steady::new(&mut full);
        let written = steady.write_all(&vec![0; 2 * DIRECT_BYTES]).and_then(|()| steady.flush());
        assert!(written.is_err());
        let mut steady = Steady::new(&mut full);
        assert!(steady.write_all(b"a little").and_then(|()| steady.flush()).is_err());
    }
}
