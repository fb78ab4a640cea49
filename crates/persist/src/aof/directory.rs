//! The files of a directory, kept in order: at any moment the manifest names files that are whole
//! and hold all data together.
//!
//! A file is made and its name synced before the manifest names it, the manifest is replaced as a
//! whole, and what it no longer names is removed afterwards. So a crash leaves files too many, never
//! one too few; `clean_up` removes them.

use std::fmt;
use std::io::{self, Read, Write};

use super::disk::{Append, Disk};
use super::manifest::{File, Kind, Manifest, ManifestError};
use super::reader::{Block, Error, Next, Reader, Torn};

/// Why the files of a directory cannot be used.
#[derive(Debug)]
pub enum OpenError {
    Io(io::Error),
    Manifest(ManifestError),
    /// The manifest names this file, and it is not there.
    Missing(String),
    /// This file is damaged.
    Damaged(String, Error),
    /// This file is torn, though others came after it.
    TornWithin(String, Torn),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::Manifest(error) => error.fmt(f),
            OpenError::Missing(name) => write!(f, "{name} is in the manifest and not there"),
            OpenError::Damaged(name, error) => write!(f, "{name}: {error}"),
            OpenError::TornWithin(name, torn) => write!(
                f,
                "{name} ends in the middle of a block behind byte {}, though it is not the last file",
                torn.keep_bytes
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

/// A rewrite that runs: what was logged so far becomes a new base file.
pub struct Rewrite<F> {
    /// To be written: all data as it was when the rewrite began.
    pub base: F,
    temporary: String,
    /// Of the incremental file that began with the rewrite.
    sequence: u64,
}

/// The append-only files in a folder.
pub struct Directory<D> {
    disk: D,
    /// What all names begin with: `appendonly.aof`.
    name: String,
    manifest: Manifest,
}

impl<D: Disk> Directory<D> {
    /// Reads the manifest; without one there are no files yet. Changes nothing.
    pub fn open(disk: D, name: &str) -> Result<Directory<D>, OpenError> {
        let names = disk.names()?;
        let manifest_name = format!("{name}.manifest");
        let mut manifest = Manifest::default();
        if names.contains(&manifest_name) {
            let mut text = Vec::new();
            disk.read(&manifest_name)?.read_to_end(&mut text)?;
            manifest = Manifest::parse(&text).map_err(OpenError::Manifest)?;
        }
        if let Some(missing) = manifest.files().find(|file| !names.contains(&file.name)) {
            return Err(OpenError::Missing(missing.name.clone()));
        }
        Ok(Directory { disk, name: name.to_owned(), manifest })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The base file from its beginning, an RDB or commands.
    pub fn base(&self) -> io::Result<Option<Box<dyn Read + '_>>> {
        self.manifest.base.as_ref().map(|base| self.disk.read(&base.name)).transpose()
    }

    /// Hands over the blocks of all incremental files, in order. Answers where the last one is
    /// torn, if it is; a torn file before it is an error.
    pub fn replay(&self, mut run: impl FnMut(Block<'_>)) -> Result<Option<Torn>, OpenError> {
        let mut torn = None;
        for (index, file) in self.manifest.incremental.iter().enumerate() {
            let mut reader = Reader::new(self.disk.read(&file.name)?, 0);
            let end = loop {
                match reader.next_block() {
                    Ok(Next::Block(block)) => run(block),
                    Ok(Next::End(end)) => break end,
                    Err(Error::Io(error)) => return Err(OpenError::Io(error)),
                    Err(error) => return Err(OpenError::Damaged(file.name.clone(), error)),
                }
            };
            if let Some(end) = end
                && index + 1 < self.manifest.incremental.len()
            {
                return Err(OpenError::TornWithin(file.name.clone(), end));
            }
            torn = end;
        }
        Ok(torn)
    }

    /// Removes what a crash has left: files of history and temporary ones.
    pub fn clean_up(&mut self) -> io::Result<()> {
        let temporary = format!("temp-{}", self.name);
        for name in self.disk.names()?.iter().filter(|name| name.starts_with(&temporary)) {
            self.disk.remove(name)?;
        }
        self.forget_history()
    }

    /// The file that blocks are appended to: the last one, cut where it is torn, or a new one.
    pub fn go_on(&mut self, torn: Option<Torn>) -> io::Result<D::File> {
        let Some(last) = self.manifest.incremental.last() else { return self.add_incremental() };
        self.disk.extend(&last.name, torn.map_or(u64::MAX, |torn| torn.keep_bytes))
    }

    /// Begins a rewrite. From now on blocks are appended to the new file, which replaces `current`:
    /// that is synced first, since what comes behind it counts only with it. The data as it is now
    /// has to be written to the new base.
    pub fn begin_rewrite(&mut self, current: &mut D::File) -> io::Result<Rewrite<D::File>> {
        current.sync()?;
        let incremental = self.add_incremental()?;
        let sequence = self.manifest.incremental.last().map_or(1, |file| file.sequence);
        let temporary = format!("temp-{}.base", self.name);
        let base = self.disk.create(&temporary)?;
        *current = incremental;
        Ok(Rewrite { base, temporary, sequence })
    }

    /// Ends a rewrite whose base is whole: it and what came since are all data now.
    pub fn finish_rewrite(&mut self, rewrite: Rewrite<D::File>, is_rdb: bool) -> io::Result<()> {
        let Rewrite { mut base, temporary, sequence } = rewrite;
        base.flush()?;
        base.sync()?;
        let number = self.manifest.base.as_ref().map_or(0, |base| base.sequence) + 1;
        let ending = if is_rdb { "rdb" } else { "aof" };
        let name = format!("{}.{number}.base.{ending}", self.name);
        self.disk.rename(&temporary, &name)?;
        self.disk.sync_names()?;
        let mut manifest = self.manifest.clone();
        let new = File { name, sequence: number, kind: Kind::Base };
        let gone = manifest.incremental.extract_if(.., |file| file.sequence < sequence);
        let gone: Vec<File> = manifest.base.replace(new).into_iter().chain(gone).collect();
        let history = gone.into_iter().map(|file| File { kind: Kind::History, ..file });
        manifest.history.extend(history);
        self.replace_manifest(manifest)?;
        self.forget_history()
    }

    /// Ends a rewrite that failed. What it would have replaced is all there.
    pub fn abandon_rewrite(&mut self, rewrite: Rewrite<D::File>) -> io::Result<()> {
        drop(rewrite.base);
        self.disk.remove(&rewrite.temporary)
    }

    fn add_incremental(&mut self) -> io::Result<D::File> {
        let sequence = self.manifest.incremental.last().map_or(0, |file| file.sequence) + 1;
        let name = format!("{}.{sequence}.incr.aof", self.name);
        let file = self.disk.create(&name)?;
        self.disk.sync_names()?;
        let mut manifest = self.manifest.clone();
        manifest.incremental.push(File { name, sequence, kind: Kind::Incremental });
        self.replace_manifest(manifest)?;
        Ok(file)
    }

    fn replace_manifest(&mut self, manifest: Manifest) -> io::Result<()> {
        let temporary = format!("temp-{}.manifest", self.name);
        let mut file = self.disk.create(&temporary)?;
        file.write_all(manifest.to_text().as_bytes())?;
        file.flush()?;
        file.sync()?;
        drop(file);
        self.disk.rename(&temporary, &format!("{}.manifest", self.name))?;
        self.disk.sync_names()?;
        self.manifest = manifest;
        Ok(())
    }

    fn forget_history(&mut self) -> io::Result<()> {
        if self.manifest.history.is_empty() {
            return Ok(());
        }
        for file in &self.manifest.history {
            match self.disk.remove(&file.name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.replace_manifest(Manifest { history: Vec::new(), ..self.manifest.clone() })
    }
}
