//! The incremental file that blocks are appended to, and room that is made in it ahead.
//!
//! A sync of a file that has grown has to sync the file system's own notes as well, which takes at
//! least twice as long as the bytes alone, and much longer beside others who write. So whoever syncs
//! often makes *room*: lines that mean nothing, to be written over. A write into room may come to be on
//! the disk in any part, so it is framed: a line in front says how long it is and what its sum is.
//! `docs/formats/aof.md` has the bytes.

use std::io;

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
}

impl<F: Append> Log<F> {
    /// A file of so many bytes, with nothing behind them.
    pub fn new(file: F, bytes: u64) -> Log<F> {
        Log { file, bytes, room_bytes: 0, ends_in_frame: false }
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

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(WRITE_BYTES).try_for_each(|chunk| self.file.write_all(chunk))?;
        self.bytes += bytes.len() as u64;
        self.room_bytes = self.room_bytes.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    /// What is written is safe.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.ends_in_frame = false;
        Ok(())
    }

    /// Makes room behind what is there: about so many bytes more, to be synced next. After an error it is not known what
    /// is there behind `len_bytes`.
    pub fn make_room(&mut self, more_bytes: u64) -> io::Result<()> {
        debug_assert!(!self.needs_sync());
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
