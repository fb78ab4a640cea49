//! What append-only files need of a file system: one folder.
//!
//! Tests put a disk in its place that forgets what was not synced.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A file whose bytes are written one behind the other. They are safe once `sync` has succeeded; after
/// it has failed nothing is known of what was written since the last time.
pub trait Append: Write + Send {
    fn sync(&mut self) -> io::Result<()>;
    /// Writes all of this at a place, which has no influence on where `write` goes on.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts off for good what stands behind so many bytes.
    fn cut(&mut self, keep_bytes: u64) -> io::Result<()>;
    /// Has `write` go past the system's cache, or through it again. Past it go whole pieces of
    /// [`PIECE_BYTES`](super::PIECE_BYTES) only, from memory that is aligned like them and to places
    /// that are; a file that cannot do it may say so here, or with `InvalidInput` at the first write.
    fn set_direct(&mut self, is_direct: bool) -> io::Result<()>;
}

/// A folder. Names that were made, changed or removed are safe once `sync_names` has succeeded.
pub trait Disk {
    type File: Append;

    fn names(&self) -> io::Result<Vec<String>>;
    /// How long a file is.
    fn bytes(&self, name: &str) -> io::Result<u64>;
    /// A file from this byte on.
    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + '_>>;
    /// A new file, empty whatever was there.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// A file that is gone on with behind so many bytes; what stands there is cut off for good.
    fn extend(&self, name: &str, keep_bytes: u64) -> io::Result<Self::File>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_names(&self) -> io::Result<()>;
}

/// A folder of the operating system.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if it is not there.
    pub fn open(path: PathBuf) -> io::Result<Folder> {
        fs::create_dir_all(&path)?;
        Ok(Folder { path })
    }
}

impl Append for fs::File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn cut(&mut self, keep_bytes: u64) -> io::Result<()> {
        self.set_len(keep_bytes)?;
        self.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn set_direct(&mut self, is_direct: bool) -> io::Result<()> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        let mut flags = fcntl_getfl(&*self)?;
        flags.set(OFlags::DIRECT, is_direct);
        Ok(fcntl_setfl(&*self, flags)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn set_direct(&mut self, is_direct: bool) -> io::Result<()> {
        match is_direct {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(()),
        }
    }
}

/// A file in memory, that is written like one on a disk.
#[derive(Default)]
pub struct Memory {
    pub bytes: Vec<u8>,
    at: usize,
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_at(self.at as u64, bytes)?;
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Append for Memory {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (at, end) = (at as usize, at as usize + bytes.len());
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at..end].copy_from_slice(bytes);
        Ok(())
    }

    fn cut(&mut self, keep_bytes: u64) -> io::Result<()> {
        self.bytes.truncate(keep_bytes as usize);
        Ok(())
    }

    fn set_direct(&mut self, is_direct: bool) -> io::Result<()> {
        match is_direct {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(()),
        }
    }
}

impl Disk for Folder {
    type File = fs::File;

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        // None of ours has a name that is no text.
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut file = fs::File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Box::new(file))
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        fs::File::create(self.path.join(name))
    }

    fn extend(&self, name: &str, keep_bytes: u64) -> io::Result<fs::File> {
        // Not for appending, which would know one place only.
        let mut file = OpenOptions::new().write(true).open(self.path.join(name))?;
        if file.metadata()?.len() > keep_bytes {
            file.cut(keep_bytes)?;
        }
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}
