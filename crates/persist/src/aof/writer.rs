//! Blocks as they stand in an incremental file.

/// Frames the blocks of one file.
#[derive(Debug, Default)]
pub struct Writer {
    writes_times: bool,
    /// The time that the file says already, Unix s.
    written_s: Option<i64>,
}

impl Writer {
    /// For a new file, or one that is gone on with. `writes_times`: whether it says when its blocks
    /// came (`aof-timestamp-enabled`).
    pub fn new(writes_times: bool) -> Writer {
        Writer { writes_times, written_s: None }
    }

    /// Appends what time it is, if that is to be said before the next block. `now_s`: Unix s.
    pub fn time(&mut self, now_s: i64, out: &mut Vec<u8>) {
        if self.writes_times && self.written_s != Some(now_s) {
            self.written_s = Some(now_s);
            out.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
    }

    /// Appends a block of so many commands, and what time it is. `now_s`: Unix s.
    pub fn block(&mut self, commands: &[u8], count: usize, now_s: i64, out: &mut Vec<u8>) {
        if count > 0 {
            self.time(now_s, out);
            put_block(commands, count, out);
        }
    }
}

/// Appends a block of so many commands, rendered as clients send them.
pub fn put_block(commands: &[u8], count: usize, out: &mut Vec<u8>) {
    if count <= 1 {
        out.extend_from_slice(commands);
        return;
    }
    out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
    out.extend_from_slice(commands);
    out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
}
