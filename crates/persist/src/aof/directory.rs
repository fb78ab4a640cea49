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

/// What an RDB file begins with.
const RDB: &[u8; 5] = b"REDIS";

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
    /// Whoever loads the files does not want this one, for this reason.
    Refused(String, String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::Manifest(error) => error.fmt(f),
            OpenError::Missing(name) => {
                write!(f, "{name} is in the manifest and not there: No such file or directory")
            }
            OpenError::Damaged(name, error) => write!(f, "{name}: {error}"),
            OpenError::TornWithin(name, torn) => write!(
                f,
                "{name} ends in the middle of a block behind byte {}, though it is not the last file",
                torn.keep_bytes
            ),
            OpenError::Refused(name, why) => write!(f, "{name}: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

/// Who is given what the files hold, in their order. The errors are reasons not to go on.
pub trait Load {
    /// Another file begins, in database 0.
    fn file(&mut self) {}
    /// An RDB file, or one at the beginning of a file of commands. Answers how many bytes it has.
    fn rdb(&mut self, input: &mut dyn Read) -> Result<u64, String>;
    fn block(&mut self, block: Block<'_>) -> Result<(), String>;
}

/// A rewrite that runs: what was logged so far becomes a new base file.
pub struct Rewrite<F> {
    /// To be written: all data as it was when the rewrite began.
    pub base: F,
    temporary: String,
    /// Where the blocks go that come after the base.
    blocks: Blocks,
}

enum Blocks {
    /// To the incremental file of this number, which the manifest names, and those behind it.
    Named(u64),
    /// To a file of this temporary name. No other counts once the rewrite is done.
    Unnamed(String),
}

/// The append-only files in a folder.
pub struct Directory<D> {
    disk: D,
    /// What all names begin with: `appendonly.aof`.
    name: String,
    /// As it was last replaced with success. When that fails nobody knows which one is there: so
    /// files have numbers that none had before, and what the other one may name stays.
    manifest: Manifest,
    /// The highest numbers so far.
    base_sequence: u64,
    incremental_sequence: u64,
    /// Files that only a manifest names that could not be replaced with success.
    doubtful: Vec<File>,
}

impl<D: Disk> Directory<D> {
    /// Reads the manifest; without one there are no files yet. Changes nothing.
    pub fn open(disk: D, name: &str) -> Result<Directory<D>, OpenError> {
        let names = disk.names()?;
        let manifest_name = format!("{name}.manifest");
        let mut manifest = Manifest::default();
        if names.contains(&manifest_name) {
            let mut text = Vec::new();
            disk.read(&manifest_name, 0)?.read_to_end(&mut text)?;
            manifest = Manifest::parse(&text).map_err(OpenError::Manifest)?;
        }
        if let Some(missing) = manifest.files().find(|file| !names.contains(&file.name)) {
            return Err(OpenError::Missing(missing.name.clone()));
        }
        let files = || manifest.files().chain(&manifest.history);
        let highest = |kind: Kind| {
            let of_kind = files().filter(|file| file.kind == kind || file.kind == Kind::History);
            of_kind.map(|file| file.sequence).max().unwrap_or(0)
        };
        let (base_sequence, incremental_sequence) =
            (highest(Kind::Base), highest(Kind::Incremental));
        let name = name.to_owned();
        let doubtful = Vec::new();
        Ok(Directory { disk, name, manifest, base_sequence, incremental_sequence, doubtful })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// How long the base file is, and how long all others together.
    pub fn bytes(&self) -> io::Result<(u64, u64)> {
        let bytes = |file: &File| self.disk.bytes(&file.name);
        let base = self.manifest.base.as_ref().map_or(Ok(0), bytes)?;
        let others = self.manifest.incremental.iter().map(bytes).sum::<io::Result<u64>>()?;
        Ok((base, others))
    }

    /// The base file from its beginning, an RDB or commands.
    pub fn base(&self) -> io::Result<Option<Box<dyn Read + '_>>> {
        self.manifest.base.as_ref().map(|base| self.disk.read(&base.name, 0)).transpose()
    }

    /// Hands over what all files hold, in order. Answers the file that is torn or ends in room, if one
    /// does, and where. Files behind a torn one are empty: a manifest may name the next file before
    /// anybody goes on in it. If they are not, that is an error.
    pub fn load(&self, to: &mut impl Load) -> Result<Option<(String, Torn)>, OpenError> {
        let mut torn: Option<(String, Torn)> = None;
        for file in self.manifest.files() {
            match torn {
                Some(_) if self.disk.bytes(&file.name)? == 0 => {}
                Some((before, torn)) if !torn.is_room => {
                    return Err(OpenError::TornWithin(before, torn));
                }
                _ => torn = self.load_file(file, to)?.map(|torn| (file.name.clone(), torn)),
            }
        }
        Ok(torn)
    }

    fn load_file(&self, file: &File, to: &mut impl Load) -> Result<Option<Torn>, OpenError> {
        let refused = |why| OpenError::Refused(file.name.clone(), why);
        to.file();
        let mut start = Vec::new();
        self.disk.read(&file.name, 0)?.take(RDB.len() as u64).read_to_end(&mut start)?;
        let mut offset = 0;
        if start == RDB {
            offset = to.rdb(&mut *self.disk.read(&file.name, 0)?).map_err(refused)?;
        }
        let mut reader = Reader::new(self.disk.read(&file.name, offset)?, offset);
        loop {
            match reader.next_block() {
                Ok(Next::Block(block)) => to.block(block).map_err(refused)?,
                Ok(Next::End(end)) => return Ok(end),
                Err(Error::Io(error)) => return Err(OpenError::Io(error)),
                Err(error) => return Err(OpenError::Damaged(file.name.clone(), error)),
            }
        }
    }

    /// Makes a file of the folder the base of a directory that has none yet.
    pub fn adopt(&mut self, name: &str) -> io::Result<()> {
        self.disk.sync_names()?;
        self.base_sequence += 1;
        let base = File { name: name.to_owned(), sequence: self.base_sequence, kind: Kind::Base };
        self.replace_manifest(Manifest { base: Some(base), ..self.manifest.clone() })
    }

    /// Makes a base of a directory that has no files yet: an RDB file, or one of commands, of a
    /// keyspace that is empty.
    pub fn begin_empty(&mut self, content: &[u8], is_rdb: bool) -> io::Result<()> {
        let temporary = self.temporary_base();
        let mut base = self.disk.create(&temporary)?;
        base.write_all(content)?;
        let named = self.name_base(base, &temporary, is_rdb)?;
        self.replace_manifest(Manifest { base: Some(named), ..self.manifest.clone() })
    }

    fn temporary_base(&self) -> String {
        format!("temp-{}.base", self.name)
    }

    /// Syncs a base that is whole and gives it its name, which no manifest knows yet.
    fn name_base(&mut self, mut base: D::File, temporary: &str, is_rdb: bool) -> io::Result<File> {
        base.flush()?;
        base.sync()?;
        self.base_sequence += 1;
        let sequence = self.base_sequence;
        let ending = if is_rdb { "rdb" } else { "aof" };
        let name = format!("{}.{sequence}.base.{ending}", self.name);
        self.disk.rename(temporary, &name)?;
        self.disk.sync_names()?;
        Ok(File { name, sequence, kind: Kind::Base })
    }

    /// Removes what a crash has left: files of history and temporary ones.
    pub fn clean_up(&mut self) -> io::Result<()> {
        let temporary = format!("temp-{}", self.name);
        for name in self.disk.names()?.iter().filter(|name| name.starts_with(&temporary)) {
            self.disk.remove(name)?;
        }
        self.forget_history()
    }

    /// The file that blocks are appended to: the last one, or a new one. The one that is torn is cut
    /// there.
    pub fn go_on(&mut self, torn: Option<(String, Torn)>) -> io::Result<D::File> {
        let mut cut = None;
        if let Some((name, torn)) = torn {
            cut = Some((self.disk.extend(&name, torn.keep_bytes)?, name));
        }
        match self.manifest.incremental.last() {
            Some(last) => match cut {
                Some((file, name)) if name == last.name => Ok(file),
                _ => self.disk.extend(&last.name, u64::MAX),
            },
            None => self.add_incremental(),
        }
    }

    /// The last file again, cut off behind so many bytes: what was written behind them in vain
    /// is gone.
    pub fn cut_back(&self, name: &str, keep_bytes: u64) -> io::Result<D::File> {
        self.disk.extend(name, keep_bytes)
    }

    /// Begins a rewrite. From now on blocks are appended to the new file, which replaces `current`:
    /// that is synced first, since what comes behind it counts only with it. The data as it is now
    /// has to be written to the new base.
    pub fn begin_rewrite(&mut self, current: &mut D::File) -> io::Result<Rewrite<D::File>> {
        current.sync()?;
        let temporary = self.temporary_base();
        let base = self.disk.create(&temporary)?;
        let incremental = self.add_incremental()?;
        let sequence = self.manifest.incremental.last().map_or(1, |file| file.sequence);
        *current = incremental;
        Ok(Rewrite { base, temporary, blocks: Blocks::Named(sequence) })
    }

    /// Begins a rewrite when the files so far are not to be trusted, or are of another time: they
    /// stay as they are until it is done, and then only its base and the new incremental file
    /// count, which is answered too.
    pub fn begin_anew(&mut self) -> io::Result<(Rewrite<D::File>, D::File)> {
        let blocks = format!("temp-{}.incr", self.name);
        let incremental = self.disk.create(&blocks)?;
        let temporary = self.temporary_base();
        let base = self.disk.create(&temporary)?;
        Ok((Rewrite { base, temporary, blocks: Blocks::Unnamed(blocks) }, incremental))
    }

    /// The incremental file that blocks are appended to while this rewrite runs.
    pub fn current_name<'a>(&'a self, rewrite: Option<&'a Rewrite<D::File>>) -> Option<&'a str> {
        match rewrite.map(|rewrite| &rewrite.blocks) {
            Some(Blocks::Unnamed(name)) => Some(name),
            _ => self.manifest.incremental.last().map(|file| file.name.as_str()),
        }
    }

    /// Ends a rewrite whose base is whole: it and what came since are all data now. An incremental
    /// file that no manifest names yet must have been synced; `keeps_blocks` says whether it is
    /// wanted.
    pub fn finish_rewrite(
        &mut self,
        rewrite: Rewrite<D::File>,
        is_rdb: bool,
        keeps_blocks: bool,
    ) -> io::Result<()> {
        let Rewrite { base, temporary, blocks } = rewrite;
        let mut named = None;
        let sequence = match blocks {
            Blocks::Named(sequence) => sequence,
            Blocks::Unnamed(temporary) if keeps_blocks => {
                let file = self.next_incremental();
                self.disk.rename(&temporary, &file.name)?;
                named.insert(file).sequence
            }
            Blocks::Unnamed(temporary) => {
                self.disk.remove(&temporary)?;
                u64::MAX
            }
        };
        let base = self.name_base(base, &temporary, is_rdb)?;
        let mut manifest = self.manifest.clone();
        let gone = manifest.incremental.extract_if(.., |file| file.sequence < sequence);
        let gone: Vec<File> = manifest.base.replace(base.clone()).into_iter().chain(gone).collect();
        let gone = gone.into_iter().chain(self.doubtful.clone());
        // The latest first, as Redis has it.
        let mut history: Vec<File> =
            gone.map(|file| File { kind: Kind::History, ..file }).collect();
        history.reverse();
        history.append(&mut manifest.history);
        manifest.history = history;
        manifest.incremental.extend(named.clone());
        let replaced = self.replace_manifest(manifest);
        match replaced {
            Ok(()) => self.doubtful.clear(),
            Err(_) => self.doubtful.extend([base].into_iter().chain(named)),
        }
        replaced
    }

    /// Ends a rewrite that failed. What it would have replaced is all there.
    pub fn abandon_rewrite(&mut self, rewrite: Rewrite<D::File>) -> io::Result<()> {
        drop(rewrite.base);
        let removed = self.disk.remove(&rewrite.temporary);
        if let Blocks::Unnamed(name) = rewrite.blocks {
            self.disk.remove(&name)?;
        }
        removed
    }

    fn next_incremental(&mut self) -> File {
        self.incremental_sequence += 1;
        let sequence = self.incremental_sequence;
        let name = format!("{}.{sequence}.incr.aof", self.name);
        File { name, sequence, kind: Kind::Incremental }
    }

    fn add_incremental(&mut self) -> io::Result<D::File> {
        let added = self.next_incremental();
        let file = self.disk.create(&added.name)?;
        self.disk.sync_names()?;
        let mut manifest = self.manifest.clone();
        manifest.incremental.push(added.clone());
        match self.replace_manifest(manifest) {
            Ok(()) => Ok(file),
            Err(error) => {
                self.doubtful.push(added);
                Err(error)
            }
        }
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

    /// Removes the files that are no longer needed.
    pub fn forget_history(&mut self) -> io::Result<()> {
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
