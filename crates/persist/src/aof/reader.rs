//! What is in a file of commands: its blocks, and where it is torn.
//!
//! A crash leaves a file that ends in the middle of a block, or in zeros where the file system had
//! made room: that is *torn*, and what is whole before it counts. So is the last frame (`log.rs`) if it
//! is not as it was written. Anything else that is not a block is damage, and an error with its place.
//! Memory is taken as bytes arrive, whatever lengths claim.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use super::log::{Frame, is_empty, is_room};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// The longest line that says a number.
const HEADER_BYTES_MAX: usize = 32;
/// The longest annotation.
const ANNOTATION_BYTES_MAX: usize = 1024;

/// Why a file was not read to its end.
#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// The file is damaged at this byte; the block that is concerned begins at `block_offset`.
    Damaged {
        offset: u64,
        block_offset: u64,
        what: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            Error::Damaged { offset, block_offset, what } => write!(
                f,
                "damaged at byte {offset}: {what}; all before byte {block_offset} is whole"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

/// A file that ends in the middle of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// What is whole, and may stay.
    pub keep_bytes: u64,
    pub dropped_bytes: u64,
    /// Commands that are lost, an unfinished one included.
    pub dropped_commands: u64,
    /// What is dropped is nothing but room that was made ahead: nobody misses it.
    pub is_room: bool,
}

/// What comes next in a file.
#[derive(Debug)]
pub enum Next<'a> {
    Block(Block<'a>),
    /// The end, and whether it is torn there.
    End(Option<Torn>),
}

/// Commands that count together.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    buffer: &'a [u8],
    /// Places of all arguments.
    spans: &'a [Span],
    /// For each command the number of arguments up to its end.
    ends: &'a [usize],
    /// Where it begins in the file.
    pub offset: u64,
    /// Where the next one begins.
    pub end_offset: u64,
    /// What of the file comes behind it, as far as it was read. Nobody knows yet what it is.
    pub behind: &'a [u8],
    /// Where the line is in front of the frame that it stands in.
    pub frame_offset: Option<u64>,
    /// The latest time that the file has said, Unix s.
    pub time_s: Option<i64>,
}

impl<'a> Block<'a> {
    pub fn command_count(&self) -> usize {
        self.ends.len()
    }

    /// The commands with their arguments; MULTI and EXEC are not among them.
    pub fn commands(&self) -> impl Iterator<Item = Vec<&'a [u8]>> + use<'a> {
        let Block { buffer, spans, ends, .. } = *self;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(move |(start, &end)| {
            spans[start..end]
                .iter()
                .map(|span| &buffer[span.start..span.start + span.len])
                .collect()
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
}

/// Why reading does not go on.
enum Halt {
    More,
    Damaged(&'static str),
    /// Room, or a frame that is not as it was written, up to this place.
    Frayed(usize),
}

/// Reads one file.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    step_bytes: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    buffer_offset: u64,
    has_ended: bool,
    /// Where the block begins that is read now. Places are within the buffer.
    block_start: usize,
    /// Where the next line or argument begins.
    at: usize,
    /// Arguments that the command lacks.
    arguments_left: usize,
    /// The length of the argument that comes next, if it was read.
    argument_bytes: Option<usize>,
    spans: Vec<Span>,
    ends: Vec<usize>,
    is_in_multi: bool,
    time_s: Option<i64>,
    /// Frames are looked at. Within a frame there is none.
    knows_frames: bool,
    /// The frame that is read: where its line is in the file, and where it ends there.
    frame: Option<(u64, u64)>,
    /// Bytes at the end that were read and not kept.
    passed_bytes: u64,
}

impl<R: Read> Reader<R> {
    /// `offset`: where the input begins in its file, if something else (a preamble) stands before.
    pub fn new(input: R, offset: u64) -> Reader<R> {
        Reader::in_steps(input, offset, CHUNK_BYTES)
    }

    /// The same, reading so many bytes at a time.
    pub fn in_steps(input: R, offset: u64, step_bytes: usize) -> Reader<R> {
        Reader {
            input,
            step_bytes: step_bytes as u64,
            buffer: Vec::new(),
            buffer_offset: offset,
            has_ended: false,
            block_start: 0,
            at: 0,
            arguments_left: 0,
            argument_bytes: None,
            spans: Vec::new(),
            ends: Vec::new(),
            is_in_multi: false,
            time_s: None,
            knows_frames: true,
            frame: None,
            passed_bytes: 0,
        }
    }

    /// The next block, or the end. Not to be called again behind an end or an error.
    pub fn next_block(&mut self) -> Result<Next<'_>, Error> {
        self.spans.clear();
        self.ends.clear();
        self.block_start = self.at;
        loop {
            match self.step() {
                Ok(true) => break,
                Ok(false) => {}
                Err(Halt::More) if self.fill()? => {}
                Err(Halt::More) => return self.end(),
                Err(Halt::Frayed(end)) => return self.frayed(end),
                Err(Halt::Damaged(what)) => {
                    let offset = self.buffer_offset + self.at as u64;
                    let block_offset = self.buffer_offset + self.block_start as u64;
                    if self.only_zeros_follow()? {
                        return self.end();
                    }
                    return Err(Error::Damaged { offset, block_offset, what });
                }
            }
        }
        let end_offset = self.buffer_offset + self.at as u64;
        Ok(Next::Block(Block {
            buffer: &self.buffer,
            spans: &self.spans,
            ends: &self.ends,
            offset: self.buffer_offset + self.block_start as u64,
            end_offset,
            behind: &self.buffer[self.at..],
            frame_offset: self
                .frame
                .filter(|(_, end)| end_offset <= *end)
                .map(|(offset, _)| offset),
            time_s: self.time_s,
        }))
    }

    /// Reads a line or an argument; true when it ends a block.
    fn step(&mut self) -> Result<bool, Halt> {
        if let Some(bytes) = self.argument_bytes {
            return self.argument(bytes);
        }
        if self.arguments_left > 0 {
            let line = self.line(HEADER_BYTES_MAX)?;
            let bytes = number(&self.buffer[line.clone()], b'$');
            let bytes = bytes.ok_or(Halt::Damaged("the length of an argument is expected"))?;
            self.argument_bytes = Some(bytes);
            self.at = line.end + 2;
            return Ok(false);
        }
        if self.buffer.get(self.at) == Some(&b'#') {
            let line = self.line(ANNOTATION_BYTES_MAX)?;
            if self.knows_frames && !self.is_in_multi && !self.is_in_frame(self.at) {
                if is_room(&self.buffer[line.clone()]) {
                    return Err(Halt::Frayed(self.at));
                }
                match Frame::parse(&self.buffer[line.clone()]) {
                    None => {}
                    Some(Some(frame)) => self.begin_frame(frame, line.end + 2)?,
                    Some(None) => return Err(Halt::Damaged("the line of a frame is wrong")),
                }
            }
            if let Some(time) = self.buffer[line.clone()].strip_prefix(b"#TS:") {
                let time = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
                self.time_s = time.or(self.time_s);
            }
            self.at = line.end + 2;
            if !self.is_in_multi {
                // What is whole ends behind it.
                self.block_start = self.at;
            }
            return Ok(false);
        }
        let line = self.line(HEADER_BYTES_MAX)?;
        match number(&self.buffer[line.clone()], b'*') {
            None | Some(0) => Err(Halt::Damaged("a command is expected")),
            Some(count) => {
                self.arguments_left = count;
                self.at = line.end + 2;
                Ok(false)
            }
        }
    }

    /// Looks at a frame as a whole before anything of it counts.
    fn begin_frame(&mut self, frame: Frame, from: usize) -> Result<(), Halt> {
        let bytes = usize::try_from(frame.bytes).unwrap_or(usize::MAX);
        let end = from.saturating_add(bytes);
        let Some(content) = self.buffer.get(from..end) else {
            return match self.has_ended {
                true => Err(Halt::Frayed(self.buffer.len())),
                false => Err(Halt::More),
            };
        };
        if !frame.is_of(content) {
            return Err(Halt::Frayed(end));
        }
        let line_offset = self.buffer_offset + self.at as u64;
        self.frame = Some((line_offset, self.buffer_offset + end as u64));
        Ok(())
    }

    fn argument(&mut self, bytes: usize) -> Result<bool, Halt> {
        let held = self.buffer.len() - self.at;
        if held < bytes || held - bytes < 2 {
            return Err(Halt::More);
        }
        let end = self.at + bytes;
        if self.buffer[end..end + 2] != *b"\r\n" {
            self.at = end;
            return Err(Halt::Damaged("an argument is not as long as it was said to be"));
        }
        self.spans.push(Span { start: self.at, len: bytes });
        self.at = end + 2;
        self.argument_bytes = None;
        self.arguments_left -= 1;
        if self.arguments_left > 0 {
            return Ok(false);
        }
        self.command()
    }

    /// A command is whole; true when it ends a block.
    fn command(&mut self) -> Result<bool, Halt> {
        let first = self.ends.last().copied().unwrap_or(0);
        let name = self.spans[first];
        let is_alone = self.spans.len() == first + 1;
        let name = &self.buffer[name.start..name.start + name.len];
        let is_multi = is_alone && name.eq_ignore_ascii_case(b"multi");
        let is_exec = is_alone && name.eq_ignore_ascii_case(b"exec");
        if is_multi || is_exec {
            if is_multi == self.is_in_multi {
                return Err(Halt::Damaged("MULTI and EXEC do not match"));
            }
            self.is_in_multi = is_multi;
            self.spans.pop();
            return Ok(is_exec);
        }
        self.ends.push(self.spans.len());
        Ok(!self.is_in_multi)
    }

    /// The line that begins here, without its end.
    fn line(&self, bytes_max: usize) -> Result<Range<usize>, Halt> {
        let rest = &self.buffer[self.at..];
        let Some(len) = rest.iter().take(bytes_max).position(|byte| *byte == b'\n') else {
            return match rest.len() < bytes_max {
                // Zeros are no line, however many there are.
                true if rest.first() == Some(&0) => Err(Halt::Damaged("zeros")),
                true => Err(Halt::More),
                false => Err(Halt::Damaged("a line does not end")),
            };
        };
        match rest[..len].strip_suffix(b"\r") {
            Some(line) => Ok(self.at..self.at + line.len()),
            None => Err(Halt::Damaged("a line does not end as it should")),
        }
    }

    /// Reads more; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        if self.block_start >= CHUNK_BYTES {
            let gone = std::mem::take(&mut self.block_start);
            self.buffer.drain(..gone);
            self.buffer_offset += gone as u64;
            self.at -= gone;
            self.spans.iter_mut().for_each(|span| span.start -= gone);
        }
        let read = self.input.by_ref().take(self.step_bytes).read_to_end(&mut self.buffer)?;
        self.has_ended = read == 0;
        Ok(!self.has_ended)
    }

    /// Whether the line that is wrong here ends in zeros, and nothing else follows. Reads the file
    /// to its end.
    fn only_zeros_follow(&mut self) -> io::Result<bool> {
        while self.buffer.len() - self.at < ANNOTATION_BYTES_MAX && self.fill()? {}
        let mut near = self.buffer[self.at..].iter().take(ANNOTATION_BYTES_MAX);
        let Some(first) = near.position(|byte| *byte == 0) else { return Ok(false) };
        let from = self.at + first;
        loop {
            if self.buffer[from..].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            // Only how many they are counts.
            self.passed_bytes += (self.buffer.len() - from) as u64;
            self.buffer.truncate(from);
            let mut chunk = self.input.by_ref().take(self.step_bytes);
            if chunk.read_to_end(&mut self.buffer)? == 0 {
                return Ok(true);
            }
        }
    }

    /// Room begins here, or a frame that is not as it was written and ends there. It was to be synced
    /// before more was written behind it: if something is there, it is damage.
    fn frayed(&mut self, end: usize) -> Result<Next<'_>, Error> {
        let offset = self.buffer_offset + self.at as u64;
        let is_frame = end > self.at;
        let mut is_room = !is_frame;
        let mut passed_to = self.buffer_offset + end as u64;
        let dropped_commands = match is_frame {
            true => count_commands(&self.buffer[self.at..end]),
            // The line of a frame is not there. Some of the rest may be.
            false => 1,
        };
        loop {
            if !is_empty(passed_to, &self.buffer[end..]) {
                if is_frame {
                    let what = "a frame does not have its sum";
                    return Err(Error::Damaged { offset, block_offset: offset, what });
                }
                is_room = false;
            }
            passed_to += (self.buffer.len() - end) as u64;
            self.buffer.truncate(end);
            let mut chunk = self.input.by_ref().take(self.step_bytes);
            if chunk.read_to_end(&mut self.buffer)? == 0 {
                break;
            }
        }
        Ok(Next::End(Some(Torn {
            keep_bytes: offset,
            dropped_bytes: passed_to - offset,
            dropped_commands: if is_room { 0 } else { dropped_commands },
            is_room,
        })))
    }

    /// Whether this place of the buffer is within a frame.
    fn is_in_frame(&self, at: usize) -> bool {
        self.frame.is_some_and(|(_, end)| self.buffer_offset + (at as u64) < end)
    }

    /// The file ends here. A frame that has its sum is as it was written, with nothing but whole blocks:
    /// it cannot be torn, and what is left if it were cut would not have the sum.
    fn end(&self) -> Result<Next<'_>, Error> {
        if self.is_in_frame(self.block_start) {
            return Err(Error::Damaged {
                offset: self.buffer_offset + self.at as u64,
                block_offset: self.buffer_offset + self.block_start as u64,
                what: "a frame ends in the middle of a block",
            });
        }
        Ok(Next::End(self.torn()))
    }

    /// What is lost if the file ends here.
    fn torn(&self) -> Option<Torn> {
        let total_bytes = self.buffer_offset + self.buffer.len() as u64 + self.passed_bytes;
        let keep_bytes = self.buffer_offset + self.block_start as u64;
        let is_in_command = self.arguments_left > 0 || self.at < self.buffer.len();
        (keep_bytes < total_bytes).then(|| Torn {
            keep_bytes,
            dropped_bytes: total_bytes - keep_bytes,
            dropped_commands: self.ends.len() as u64 + u64::from(is_in_command),
            is_room: false,
        })
    }
}

/// How many commands there are in what is left of a frame, behind its line.
fn count_commands(frame: &[u8]) -> u64 {
    let content =
        frame.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &frame[end + 1..]);
    let (mut reader, mut count) = (Reader::new(content, 0), 0);
    reader.knows_frames = false;
    loop {
        match reader.next_block() {
            Ok(Next::Block(block)) => count += block.command_count() as u64,
            Ok(Next::End(torn)) => return count + torn.map_or(0, |torn| torn.dropped_commands),
            Err(_) => return count + 1,
        }
    }
}

/// The number behind a marker: digits and nothing else.
fn number(line: &[u8], marker: u8) -> Option<usize> {
    const DIGITS_MAX: usize = 18;
    let digits = line.strip_prefix(&[marker])?;
    let is_number =
        (1..=DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aof::{Log, Memory, Writer};

    fn command(args: &[&str]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            out.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
        }
        out
    }

    /// The end, or the places of damage.
    type End = Result<Option<Torn>, (u64, u64)>;
    type Seen = (Vec<Vec<String>>, u64, u64, Option<i64>);

    fn read(bytes: &[u8]) -> (Vec<Seen>, End) {
        read_from(Reader::new(bytes, 0))
    }

    fn read_from<R: Read>(mut reader: Reader<R>) -> (Vec<Seen>, End) {
        let mut seen = Vec::new();
        loop {
            match reader.next_block() {
                Ok(Next::Block(block)) => {
                    let words = |args: Vec<&[u8]>| {
                        args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
                    };
                    let commands: Vec<Vec<String>> = block.commands().map(words).collect();
                    assert_eq!(commands.len(), block.command_count());
                    seen.push((commands, block.offset, block.end_offset, block.time_s));
                }
                Ok(Next::End(torn)) => return (seen, Ok(torn)),
                Err(Error::Damaged { offset, block_offset, .. }) => {
                    return (seen, Err((offset, block_offset)));
                }
                Err(Error::Io(error)) => panic!("{error}"),
            }
        }
    }

    /// Blocks of several kinds, and where each ends.
    fn sample() -> (Vec<u8>, Vec<(usize, u64)>) {
        let mut writer = Writer::new(true);
        let (mut out, mut ends) = (Vec::new(), vec![(0, 0)]);
        let long = "x".repeat(300_000);
        let blocks: [(&[&[&str]], i64); 5] = [
            (&[&["SELECT", "0"]], 7),
            (&[&["SET", "k", "v"], &["RPUSH", "l", "", "\r\n", "*1\r\n"]], 7),
            (&[&["SET", "long", &long]], 8),
            (&[&["EXEC", "is", "no", "EXEC"], &["MULTI", "x"], &["DEL", &long, "b"]], 8),
            (&[&["SET", "k", "w"]], 9),
        ];
        for (commands, now_s) in blocks {
            let rendered: Vec<u8> = commands.iter().flat_map(|args| command(args)).collect();
            writer.block(&rendered, commands.len(), now_s, &mut out);
            ends.push((out.len(), commands.len() as u64));
        }
        (out, ends)
    }

    #[test]
    fn blocks_come_back() {
        let (bytes, ends) = sample();
        let (seen, end) = read(&bytes);
        assert_eq!(end, Ok(None));
        assert_eq!(seen.len(), 5);
        assert_eq!(seen[1].0, [vec!["SET", "k", "v"], vec!["RPUSH", "l", "", "\r\n", "*1\r\n"]]);
        assert_eq!(seen[3].0[0], ["EXEC", "is", "no", "EXEC"]);
        let times: Vec<Option<i64>> = seen.iter().map(|seen| seen.3).collect();
        assert_eq!(times, [Some(7), Some(7), Some(8), Some(8), Some(9)]);
        for (seen, end) in seen.iter().zip(&ends[1..]) {
            assert_eq!(seen.2, end.0 as u64);
        }
        for step in [1, 7, 100_000] {
            assert_eq!(read_from(Reader::in_steps(&bytes[..], 0, step)).0, seen);
        }
        let (moved, _) = read_from(Reader::new(&bytes[..], 1000));
        assert!(moved.iter().zip(&seen).all(|(moved, seen)| moved.2 == seen.2 + 1000));
    }

    #[test]
    fn a_file_torn_anywhere_keeps_its_whole_blocks() {
        let (bytes, ends) = sample();
        let (all, _) = read(&bytes);
        let near_an_end = |cut: &usize| ends.iter().any(|(end, _)| cut.abs_diff(*end) < 200);
        for cut in (0..=bytes.len()).filter(near_an_end) {
            for zeros in [0, 1, 5000, 600_000] {
                if zeros == 600_000 && cut % 50 != 0 {
                    continue;
                }
                let mut torn = bytes[..cut].to_vec();
                torn.resize(cut + zeros, 0);
                let (seen, end) = read(&torn);
                let whole = ends.iter().rposition(|(end, _)| *end <= cut).unwrap();
                // Zeros may be taken for the rest of an argument, never for more than that.
                assert!(seen == all[..whole], "cut at {cut}, {zeros} zeros");
                let torn = end.unwrap_or_else(|at| panic!("cut at {cut}, {zeros} zeros: {at:?}"));
                let kept = torn.map_or(cut + zeros, |torn| torn.keep_bytes as usize);
                // An annotation may be whole where the block behind it is not.
                assert!(kept == ends[whole].0 || kept <= cut && kept - ends[whole].0 < 9);
                if let Some(torn) = torn {
                    assert_eq!(torn.keep_bytes + torn.dropped_bytes, (cut + zeros) as u64);
                    assert!(
                        torn.dropped_commands <= 1 + ends.get(whole + 1).map_or(0, |end| end.1)
                    );
                }
            }
        }
    }

    #[test]
    fn torn_files_say_what_is_lost() {
        let lost = |bytes: &[u8]| read(bytes).1.unwrap().unwrap().dropped_commands;
        let whole = command(&["SET", "k", "v"]);
        assert_eq!(lost(b"*1\r\n$4\r\nPI"), 1);
        assert_eq!(lost(b"*"), 1);
        assert_eq!(lost(&[&whole[..], &[0; 10]].concat()), 0);
        let multi = command(&["MULTI"]);
        assert_eq!(lost(&multi), 0);
        assert_eq!(lost(&[&multi[..], &whole, &whole].concat()), 2);
        assert_eq!(lost(&[&multi[..], &whole, &whole, b"*1\r\n$4\r\nEXEC"].concat()), 3);
        let torn = read(&[&whole[..], &multi, &whole].concat()).1.unwrap().unwrap();
        assert_eq!(torn.keep_bytes, whole.len() as u64);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let whole = command(&["SET", "k", "v"]);
        let multi = command(&["MULTI"]);
        let cases: [(&[u8], u64); 10] = [
            (b"x", 0),
            (b"SET k v\r\n", 0),
            (b"*0\r\n", 0),
            (b"*-1\r\n", 0),
            (b"*1\r\n*1\r\n", 4),
            (b"*1\r\n$-1\r\n", 4),
            (b"*1\r\n$4\r\nPINGPONG\r\n", 12),
            (b"*1\n$4\r\nPING\r\n", 0),
            (b"*1\r\n$4\r\nEXEC\r\n", 14),
            (b"*99999999999999999999999999999999", 0),
        ];
        for (bytes, offset) in cases {
            let bytes = [&whole[..], bytes, &whole].concat();
            let (seen, end) = read(&bytes);
            assert_eq!(seen.len(), 1);
            let place = (whole.len() as u64 + offset, whole.len() as u64);
            assert_eq!(end, Err(place), "{}", bytes.escape_ascii());
        }
        let (_, end) = read(&[&whole[..], &multi, &whole, &multi, &whole].concat());
        assert!(matches!(end, Err((_, block)) if block == whole.len() as u64));
        // Zeros with something behind them are no torn end.
        let (_, end) = read(&[&whole[..], &[0; 5000], &whole].concat());
        assert_eq!(end, Err((whole.len() as u64, whole.len() as u64)));
    }

    /// A line of room.
    const ROOM_LINE: [u8; 64] =
        *b"#ROOM                                                         \r\n";

    /// Three frames in room, and where each begins; what is behind them, and how many blocks they have.
    fn framed() -> (Vec<u8>, [usize; 4]) {
        let mut log = Log::new(Memory::default(), 0);
        log.write(&command(&["SET", "k", "v"])).expect("it fits");
        log.make_room(2000).expect("it fits");
        let mut places = [0; 4];
        for place in &mut places[..3] {
            *place = log.len_bytes() as usize;
            let some = command(&["SET", "k", &"x".repeat(*place)]);
            log.write(&[&some[..], &command(&["DEL", "k"])].concat()).expect("it fits");
            log.sync().expect("it works");
        }
        places[3] = log.len_bytes() as usize;
        assert!(log.room_bytes() > 0);
        (std::mem::take(&mut log.file().bytes), places)
    }

    #[test]
    fn room_is_no_loss() {
        let (bytes, [.., end]) = framed();
        let torn = Torn {
            keep_bytes: end as u64,
            dropped_bytes: (bytes.len() - end) as u64,
            dropped_commands: 0,
            is_room: true,
        };
        let (seen, found) = read(&bytes);
        assert_eq!((seen.len(), found), (7, Ok(Some(torn))));
        assert_eq!(read(&bytes[..end]), (seen.clone(), Ok(None)));
        for step in [1, 50, 999] {
            assert_eq!(
                read_from(Reader::in_steps(&bytes[..], 0, step)),
                (seen.clone(), Ok(Some(torn)))
            );
        }
        // It may be cut anywhere, and some of it may never have been written.
        let mut cut = bytes[..end + 200].to_vec();
        cut[end + 64..].fill(0);
        assert!(matches!(read(&cut), (_, Ok(Some(Torn { is_room: true, .. })))));
    }

    #[test]
    fn a_frame_counts_as_a_whole() {
        let (bytes, [first, _, last, end]) = framed();
        // Not all that was written is there: sectors of the last frame are what was before.
        let line = bytes[end..end + 64].to_vec();
        for sector in (last..end).step_by(64) {
            // The room before it was there.
            let zeros = Some(&[0; 64][..]).filter(|_| sector > last);
            for before in [&line[..]].into_iter().chain(zeros) {
                let mut torn = bytes.clone();
                torn[sector..sector + 64].copy_from_slice(before);
                let (seen, found) = read(&torn);
                assert_eq!(seen.len(), 5);
                let found = found.expect("it is no damage").expect("it is torn");
                assert_eq!(found.keep_bytes, last as u64);
                assert_eq!(found.dropped_bytes, (bytes.len() - last) as u64);
                assert!((1..=3).contains(&found.dropped_commands) && !found.is_room);
            }
        }
        for cut in last + 64..end {
            let (seen, found) = read(&bytes[..cut]);
            assert_eq!(seen.len(), 5);
            assert!(matches!(found, Ok(Some(Torn { is_room: false, .. }))), "{cut}: {found:?}");
        }
        // Those before it were synced, and may not be otherwise.
        for at in first..last {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x80;
            let (seen, found) = read(&damaged);
            // Without its line a frame is read as any other blocks.
            assert!(found.is_err() || seen.len() == 7, "{at}: {found:?}");
        }
    }

    #[test]
    fn a_frame_that_has_its_sum_is_not_torn() {
        let whole = command(&["SET", "k", "v"]);
        let multi = command(&["MULTI"]);
        let cut = &whole[..whole.len() - 3];
        let ends: [(&[u8], usize); 4] = [(cut, 1), (&multi, 1), (b"\0\0", 1), (b"*1", 1)];
        for (end, seen_in_frame) in ends {
            for zeros in [0, 64, 2000] {
                let mut log = Log::new(Memory::default(), 0);
                log.write(&whole).expect("it fits");
                log.make_room(200).expect("it fits");
                let line = log.len_bytes();
                log.write(&[&whole[..], end].concat()).expect("it fits");
                log.cut_room().expect("it works");
                let mut bytes = std::mem::take(&mut log.file().bytes);
                let frame_end = bytes.len() as u64;
                bytes.resize(bytes.len() + zeros, 0);
                let (seen, found) = read(&bytes);
                assert_eq!(seen.len(), 1 + seen_in_frame);
                let (offset, block_offset) = found.expect_err("it is damaged");
                assert!(line < block_offset && block_offset <= offset && offset <= frame_end);
            }
        }
        // Room is room outside of frames only.
        let mut log = Log::new(Memory::default(), 0);
        log.make_room(400).expect("it fits");
        log.write(&[&whole[..], b"#\r\n", &ROOM_LINE].concat()).expect("it fits");
        let (seen, found) = read(&log.file().bytes);
        assert_eq!(seen.len(), 1);
        assert!(matches!(found, Ok(Some(Torn { is_room: true, .. }))), "{found:?}");
        let keep_bytes = log.len_bytes();
        assert!(matches!(found, Ok(Some(torn)) if torn.keep_bytes == keep_bytes));
    }

    #[test]
    fn frames_in_frames_are_no_way_to_go_deep() {
        let mut bytes = Vec::new();
        for _ in 0..100_000 {
            let mut log = Log::new(Memory::default(), 0);
            log.make_room(128).expect("it fits");
            log.write(b"*1\r\n").expect("it fits");
            bytes.extend_from_slice(&log.file().bytes[..64]);
        }
        let (seen, found) = read(&bytes);
        assert!(seen.is_empty() && found.is_err());
    }

    #[test]
    fn how_bytes_come_makes_no_difference() {
        let whole = command(&["SET", "k", "v"]);
        let ends: [&[u8]; 5] = [b"\0", b"x", b"x\0", b"*1\r\n$9\r\nabc", &[b'x'; 40]];
        for end in ends {
            for zeros in [0, 1, 40, 900, 3000] {
                let mut bytes = [&whole[..], end].concat();
                bytes.resize(bytes.len() + zeros, 0);
                let at_once = read(&bytes);
                for step in [1, 33, 1000] {
                    let dribbled = read_from(Reader::in_steps(&bytes[..], 0, step));
                    assert_eq!(dribbled, at_once, "{} by {step}", bytes.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn claimed_lengths_take_no_memory() {
        let (_, end) = read(b"*999999999999\r\n$999999999999\r\nx");
        assert_eq!(end.unwrap().unwrap().dropped_commands, 1);
    }
}
