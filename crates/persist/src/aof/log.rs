//! The incremental file that blocks are appended to, and room that is made in it ahead.
//!
//! A sync of a file that has grown has to sync the file system's own notes as well, which takes at
//! least twice as long as the bytes alone, and much longer beside others who write. So whoever syncs
//! often makes *room*: lines that mean nothing, to be written over. A write into room may come to be on
//! the disk in any part, so it is framed: a line in front says how long it is and what its sum is.
//! `docs/formats/aof.md` has the bytes.
//!
//! Whoever writes much has it go *past* the system's cache, which takes longer for every byte than all
//! that is done to it before. That goes by whole pieces, so lines that mean nothing fill up the last one.

use std::io;

use super::buffer::{Buffer, PIECE_BYTES};
use super::disk::Append;
use crate::rdb::checksum;

/// Lines of room, the line before a frame and the end of a frame are aligned to this in the file, so
/// that a sector holds whole ones.
const LINE_BYTES: usize = 64;
const ROOM: &[u8; LINE_BYTES] =
    b"#ROOM                                                         \r\n";
const FRAME: &[u8] = b"#SUM:";
/// The shortest line that means nothing.
const PADDING_BYTES_MIN: usize = 3;
/// The longest that is written here; readers know of 1024 bytes.
const PADDING_BYTES_MAX: usize = 512;
/// Bytes that are written at once: the system takes much longer for more, since it looks for pages
/// that lie together.
const WRITE_BYTES: usize = 128 << 10;

/// A file that is written to.
pub struct Log<F> {
    file: F,
    /// Its length without the room behind it.
    bytes: u64,
    room_bytes: u64,
    /// The last that was written is a frame that is not synced.
    ends_in_frame: bool,
    /// What is written goes past the system's cache.
    is_direct: bool,
    /// Something that went through the cache is not synced.
    has_cached: bool,
}

impl<F: Append> Log<F> {
    /// A file of so many bytes, with nothing behind them.
    pub fn new(file: F, bytes: u64) -> Log<F> {
        // Of what is there nothing is known.
        let (is_direct, has_cached) = (false, true);
        Log { file, bytes, room_bytes: 0, ends_in_frame: false, is_direct, has_cached }
    }

    pub fn file(&mut self) -> &mut F {
        &mut self.file
    }

    /// Without the room.
    pub fn len_bytes(&self) -> u64 {
        self.bytes
    }

    pub fn room_bytes(&self) -> u64 {
        self.room_bytes
    }

    /// Whether the file has to be synced before anything else is written. Of two writes that are not,
    /// the second may be on the disk alone, and the first, if it is a frame, would look damaged.
    pub fn needs_sync(&self) -> bool {
        self.ends_in_frame
    }

    /// Appends blocks. After an error it is not known what is there behind `len_bytes`.
    pub fn write(&mut self, blocks: &[u8]) -> io::Result<()> {
        debug_assert!(!self.needs_sync());
        self.leave_direct()?;
        if self.room_bytes == 0 {
            return self.put(blocks);
        }
        self.ends_in_frame = true;
        let padding = padding(self.bytes + LINE_BYTES as u64 + blocks.len() as u64);
        let mut framed = Vec::with_capacity(LINE_BYTES + blocks.len() + padding.len());
        framed.resize(LINE_BYTES, b' ');
        framed.extend_from_slice(blocks);
        framed.extend_from_slice(&padding);
        let content = &framed[LINE_BYTES..];
        let head = Frame::of(content).to_line();
        framed[..head.len()].copy_from_slice(head.as_bytes());
        framed[LINE_BYTES - 2..LINE_BYTES].copy_from_slice(b"\r\n");
        self.put(&framed)
    }

    /// Whether what is written goes past the system's cache.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Whether `write_direct` may come next. What stands before it must not be lost alone, so it
    /// has to be synced first if it went through the cache.
    pub fn may_go_direct(&self) -> bool {
        self.is_direct || !self.has_cached && self.room_bytes == 0 && padding_bytes(self.bytes) == 0
    }

    /// Ends where `write_direct` may go on, once it is synced. After an error it is not known what is
    /// there behind `len_bytes`.
    pub fn fill_up(&mut self) -> io::Result<()> {
        debug_assert!(!self.needs_sync() && self.room_bytes == 0 && !self.is_direct);
        let mut lines = Vec::new();
        fill_up(self.bytes, &mut lines);
        self.put(&lines)
    }

    /// Appends blocks, past the system's cache; and behind them, to the buffer too, what fills up the
    /// last piece. False if that is not possible with this file: nothing was written then. After an
    /// error it is not known what is there behind `len_bytes`.
    pub fn write_direct(&mut self, blocks: &mut Buffer) -> io::Result<bool> {
        debug_assert!(self.may_go_direct());
        if !self.is_direct && self.file.set_direct(true).is_err() {
            return Ok(false);
        }
        self.is_direct = true;
        fill_up(blocks.len() as u64, blocks.tail());
        blocks.align();
        let mut written = 0;
        while written < blocks.len() {
            match self.file.write(&blocks[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && written == 0 => {
                    self.leave_direct()?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes += written as u64;
        Ok(true)
    }

    fn leave_direct(&mut self) -> io::Result<()> {
        if self.is_direct {
            self.file.set_direct(false)?;
            self.is_direct = false;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.has_cached = true;
        bytes.chunks(WRITE_BYTES).try_for_each(|chunk| self.file.write_all(chunk))?;
        self.bytes += bytes.len() as u64;
        self.room_bytes = self.room_bytes.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    /// What is written is safe.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        (self.ends_in_frame, self.has_cached) = (false, false);
        Ok(())
    }

    /// Makes room behind what is there: about so many bytes more, to be synced next. After an error it is not known what
    /// is there behind `len_bytes`.
    pub fn make_room(&mut self, more_bytes: u64) -> io::Result<()> {
        debug_assert!(!self.needs_sync());
        self.leave_direct()?;
        self.has_cached = true;
        if self.room_bytes == 0 {
            self.put(&padding(self.bytes))?;
        }
        let lines = more_bytes.div_ceil(LINE_BYTES as u64);
        let piece = ROOM.repeat(WRITE_BYTES / LINE_BYTES);
        let mut left = lines * LINE_BYTES as u64;
        while left > 0 {
            let now = left.min(piece.len() as u64);
            self.file.write_at(self.bytes + self.room_bytes, &piece[..now as usize])?;
            self.room_bytes += now;
            left -= now;
        }
        Ok(())
    }

    /// Gives the room back that is left. After an error it is not known what is there behind
    /// `len_bytes`.
    pub fn cut_room(&mut self) -> io::Result<()> {
        if self.room_bytes > 0 {
            self.file.cut(self.bytes)?;
            (self.room_bytes, self.ends_in_frame) = (0, false);
        }
        Ok(())
    }

    /// The file has been replaced by an empty one.
    pub fn begin_again(&mut self) {
        (self.bytes, self.room_bytes, self.ends_in_frame) = (0, 0, false);
        (self.is_direct, self.has_cached) = (false, false);
    }
}

/// How many bytes from this place to where a piece begins.
fn padding_bytes(at: u64) -> usize {
    (at.wrapping_neg() % PIECE_BYTES as u64) as usize
}

/// Appends lines that mean nothing, from this place to where a piece begins.
fn fill_up(at: u64, out: &mut Vec<u8>) {
    let mut left = padding_bytes(at);
    if (1..PADDING_BYTES_MIN).contains(&left) {
        left += PIECE_BYTES;
    }
    while left > 0 {
        // What is left behind it is a line too.
        let bytes = if left < 2 * PADDING_BYTES_MAX { left } else { PADDING_BYTES_MAX };
        out.push(b'#');
        out.resize(out.len() + bytes - PADDING_BYTES_MIN, b'-');
        out.extend_from_slice(b"\r\n");
        left -= bytes;
    }
}

/// A line that means nothing, from this place in the file to where lines are aligned.
fn padding(at: u64) -> Vec<u8> {
    let missing = (at.wrapping_neg() % LINE_BYTES as u64) as usize;
    let bytes = match missing {
        0 => return Vec::new(),
        short if short < PADDING_BYTES_MIN => short + LINE_BYTES,
        bytes => bytes,
    };
    let mut line = vec![b'-'; bytes];
    line[0] = b'#';
    line[bytes - 2..].copy_from_slice(b"\r\n");
    line
}

/// Whether a line, without its end, is one of room.
pub(super) fn is_room(line: &[u8]) -> bool {
    line == &ROOM[..LINE_BYTES - 2]
}

/// Whether these bytes, which begin at this place in the file, are room or were never written.
pub(super) fn is_empty(offset: u64, bytes: &[u8]) -> bool {
    let from = (offset % LINE_BYTES as u64) as usize;
    let room = ROOM.iter().cycle().skip(from);
    bytes.iter().zip(room).all(|(byte, room)| byte == room || *byte == 0)
}

/// What the line before a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub bytes: u64,
    sum: u64,
}

impl Frame {
    fn of(content: &[u8]) -> Frame {
        Frame { bytes: content.len() as u64, sum: checksum(content) }
    }

    /// Without its end. The line has a sum of its own: a wrong length could take all that follows for
    /// a frame that is torn.
    fn to_line(self) -> String {
        let line = format!("#SUM:{}:{:016x}:", self.bytes, self.sum);
        let sum = checksum(line.as_bytes()) as u32;
        format!("{line}{sum:08x}")
    }

    /// From a line without its end: `None` if it is not one of a frame, `Some(None)` if it is wrong.
    pub fn parse(line: &[u8]) -> Option<Option<Frame>> {
        line.starts_with(FRAME).then(|| {
            let line = std::str::from_utf8(line).ok()?.trim_end_matches(' ');
            let mut fields = line.split(':').skip(1);
            let bytes = fields.next()?.parse().ok()?;
            let sum = u64::from_str_radix(fields.next()?, 16).ok()?;
            let frame = Frame { bytes, sum };
            (frame.to_line() == line).then_some(frame)
        })
    }

    pub fn is_of(self, content: &[u8]) -> bool {
        Frame::of(content) == self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned() {
        for at in 0..200 {
            let line = padding(at);
            assert_eq!((at + line.len() as u64) % LINE_BYTES as u64, 0);
            assert!(line.is_empty() || line.starts_with(b"#") && line.ends_with(b"\r\n"));
            assert!(line.is_empty() || line.len() >= PADDING_BYTES_MIN);
        }
        assert!(is_room(ROOM.strip_suffix(b"\r\n").expect("it is a line")));
        assert!(is_empty(LINE_BYTES as u64 * 7 + 5, &ROOM.repeat(3)[5..]));
        assert!(!is_empty(4, &ROOM[5..]));
    }

    #[test]
    fn pieces_are_filled_up_with_lines() {
        for at in (0..3 * PIECE_BYTES as u64).chain([u64::MAX - 1, u64::MAX - PIECE_BYTES as u64]) {
            let mut lines = Vec::new();
            fill_up(at, &mut lines);
            assert!(at.wrapping_add(lines.len() as u64).is_multiple_of(PIECE_BYTES as u64));
            assert!(lines.len() < PIECE_BYTES + PADDING_BYTES_MIN);
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                assert!(line.starts_with(b"#") && line.ends_with(b"\r\n"));
                assert!((PADDING_BYTES_MIN..2 * PADDING_BYTES_MAX).contains(&line.len()));
            }
        }
    }

    #[test]
    fn a_file_is_written_through_the_cache_and_past_it() {
        let path = std::env::temp_dir().join(format!("luar-log-{}", std::process::id()));
        let mut log = Log::new(std::fs::File::create(&path).expect("it can be made"), 0);
        let mut expected = Vec::new();
        for round in 0..20_u8 {
            let blocks = vec![round; 3000 * usize::from(round) + 1];
            if round % 5 == 0 {
                log.write(&blocks).expect("it can be written");
                expected.extend_from_slice(&blocks);
                continue;
            }
            if !log.may_go_direct() {
                log.fill_up().expect("it can be written");
                fill_up(expected.len() as u64, &mut expected);
                log.sync().expect("it can be synced");
            }
            let mut buffer = Buffer::default();
            buffer.tail().extend_from_slice(&blocks);
            if !log.write_direct(&mut buffer).expect("it can be written") {
                // Not every file system knows how.
                log.write(&buffer).expect("it can be written");
            }
            assert!(buffer.starts_with(&blocks));
            expected.extend_from_slice(&buffer);
        }
        log.sync().expect("it can be synced");
        let written = std::fs::read(&path).expect("it is there");
        std::fs::remove_file(&path).expect("it is there");
        assert!(written == expected && written.len() as u64 == log.len_bytes());
    }

    #[test]
    fn frames_are_read_as_they_are_written() {
        let line = format!("{}   ", Frame::of(b"12345").to_line());
        let frame = Frame::parse(line.as_bytes()).flatten().expect("it is one");
        assert!(frame.is_of(b"12345") && !frame.is_of(b"12346") && !frame.is_of(b"1234"));
        for at in 5..line.trim_end().len() {
            let mut wrong = line.clone().into_bytes();
            wrong[at] ^= 1;
            assert_eq!(Frame::parse(&wrong), Some(None), "{}", wrong.escape_ascii());
        }
        assert_eq!(Frame::parse(b"#SUM:"), Some(None));
        assert_eq!(Frame::parse(b"#TS:5"), None);
        // Even the longest fits its line.
        let longest = Frame { bytes: u64::MAX, sum: u64::MAX }.to_line();
        assert!(longest.len() <= LINE_BYTES - 2);
    }
}
