//! What a transaction tells the outside: messages and log lines of scripts. They leave once it has
//! committed; what is rolled back is never said.

use std::cell::RefCell;

use crate::log::{self, Level};
use crate::session::pubsub::Publication;

struct Line {
    level: Level,
    text: String,
}

#[derive(Default)]
pub struct Outbox {
    publications: Vec<Publication>,
    lines: Vec<Line>,
    publication_bytes: usize,
    line_bytes: usize,
    /// A dry run: what is said is looked at and then forgotten.
    is_trial: bool,
}

/// A place in the outbox.
#[derive(Clone, Copy)]
pub struct Mark {
    publications: usize,
    lines: usize,
    publication_bytes: usize,
    line_bytes: usize,
}

impl Mark {
    /// The same for messages, and for lines another one.
    pub fn with_lines_of(self, other: Mark) -> Mark {
        Mark { lines: other.lines, line_bytes: other.line_bytes, ..self }
    }
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty() && self.lines.is_empty()
    }

    /// Memory of what waits here.
    pub fn bytes(&self) -> usize {
        self.publication_bytes + self.line_bytes
    }

    pub fn publish(&mut self, publication: Publication) {
        self.publication_bytes += publication.memory_bytes();
        self.publications.push(publication);
    }

    pub fn log(&mut self, level: Level, text: String) {
        if log::is_written(level) {
            self.line_bytes += size_of::<Line>() + text.len();
            self.lines.push(Line { level, text });
        }
    }

    /// Whether nothing of what is said will leave.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    pub fn set_trial(&mut self, is_trial: bool) {
        self.is_trial = is_trial;
    }

    /// The messages behind a mark.
    pub fn publications_since(&self, mark: Mark) -> &[Publication] {
        &self.publications[mark.publications..]
    }

    pub fn mark(&self) -> Mark {
        Mark {
            publications: self.publications.len(),
            lines: self.lines.len(),
            publication_bytes: self.publication_bytes,
            line_bytes: self.line_bytes,
        }
    }

    /// Forgets what came behind the mark.
    pub fn cut_back(&mut self, mark: Mark) {
        self.publications.truncate(mark.publications);
        self.lines.truncate(mark.lines);
        self.publication_bytes = mark.publication_bytes;
        self.line_bytes = mark.line_bytes;
    }
}

/// Writes the lines, and answers the messages to be sent.
pub fn empty(outbox: &RefCell<Outbox>) -> Vec<Publication> {
    let Outbox { publications, lines, .. } = outbox.take();
    for line in lines {
        log::write(line.level, format_args!("{}", line.text));
    }
    publications
}
