//! Libraries of functions in the files that are loaded: those in RDB files, and the commands about
//! them in append-only files. Nobody calls a function meanwhile.

use std::sync::Arc;

use command::call::is;
use command::{Error, Result};

use crate::script::{FileLoader, Libraries, Present};
use crate::server::Server;
use crate::session::functions::{load_arguments, restore_arguments};

/// Whether this is a command about libraries, which is for [`FileLibraries::run`].
pub fn are_meant(args: &[&[u8]]) -> bool {
    is(args[0], "function")
}

/// Loads libraries in a VM of its own.
pub struct FileLibraries<'s> {
    server: &'s Server,
    loader: FileLoader,
}

impl FileLibraries<'_> {
    pub fn new(server: &Server) -> FileLibraries<'_> {
        FileLibraries { server, loader: FileLoader::new(&server.config.current()) }
    }

    /// Adds the library of a source.
    pub fn add(&mut self, source: &[u8], present: Present) -> Result {
        self.change(|libraries, loader, server| {
            loader.add(server, libraries, source, present).map(drop)
        })
    }

    /// Runs FUNCTION LOAD, DELETE, FLUSH or RESTORE.
    pub fn run(&mut self, args: &[&[u8]]) -> Result {
        match args[1..] {
            [what, ref rest @ ..] if is(what, "load") => {
                let (present, source) = load_arguments(rest)?;
                self.add(source, present)
            }
            [what, name] if is(what, "delete") => self.change(|libraries, _, _| {
                let is_gone = std::str::from_utf8(name).is_ok_and(|name| libraries.remove(name));
                is_gone.then_some(()).ok_or(Error::of("ERR Library not found"))
            }),
            [what, ..] if is(what, "flush") => self.change(|libraries, _, _| {
                *libraries = Libraries::default();
                Ok(())
            }),
            [what, _, ..] if is(what, "restore") => self.change(|libraries, loader, server| {
                let add = |all: &mut Libraries, source: &[u8]| {
                    loader.add(server, all, source, Present::Stay)
                };
                *libraries = restore_arguments(args, libraries, add)?;
                Ok(())
            }),
            _ => Err(Error::SYNTAX),
        }
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut Libraries, &mut FileLoader, &Server) -> Result,
    ) -> Result {
        let scripts = &self.server.scripts;
        let mut libraries = Libraries::clone(&scripts.functions.current());
        change(&mut libraries, &mut self.loader, self.server)?;
        scripts.functions.set(&scripts.cache, Arc::new(libraries));
        Ok(())
    }
}
