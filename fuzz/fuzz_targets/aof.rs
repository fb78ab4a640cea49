//! Files of commands and manifests: any bytes are read or refused, in the same way however they
//! come; what is kept of a torn file is whole; a manifest that is read comes back as it was.
//!
//! The first byte chooses: a manifest; a file as it is, read in steps of so many bytes; or from 0xC0 on
//! parts of one, that are written into room as frames with true sums, and then damaged in one place.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use persist::aof::{Error, Log, Manifest, Memory, Next, Reader, Torn};

type Blocks = Vec<(u64, u64, Vec<Vec<Vec<u8>>>)>;

/// All blocks, and the end or where the damage is.
fn read(input: &[u8], step_bytes: usize) -> (Blocks, Result<Option<Torn>, (u64, u64)>) {
    let mut reader = Reader::in_steps(input, 0, step_bytes);
    let mut blocks = Blocks::new();
    loop {
        match reader.next_block() {
            Ok(Next::Block(block)) => {
                let own = |args: Vec<&[u8]>| args.into_iter().map(<[u8]>::to_vec).collect();
                blocks.push((block.offset, block.end_offset, block.commands().map(own).collect()));
            }
            Ok(Next::End(end)) => return (blocks, Ok(end)),
            Err(Error::Damaged { offset, block_offset, .. }) => {
                return (blocks, Err((offset, block_offset)));
            }
            Err(Error::Io(error)) => panic!("{error}"),
        }
    }
}

/// Room is made when there is less than this.
const ROOM_BYTES_MIN: u64 = 200;
const ROOM_BYTES: u64 = 500;

/// The parts as frames, each synced, the first one before there is room.
fn framed(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut log = Log::new(Memory::default(), 0);
    for part in parts {
        log.write(part)?;
        log.sync()?;
        if log.room_bytes() < ROOM_BYTES_MIN {
            log.make_room(ROOM_BYTES)?;
            log.sync()?;
        }
    }
    Ok(std::mem::take(&mut log.file().bytes))
}

/// Parts end with a byte of 0xFF. In front of them stands where the damage is, and what it is: nothing,
/// a byte that is another, a line that was never written, or no more than that.
fn check_frames(step: u8, data: &[u8]) {
    let Some((&[low, high, kind, change], rest)) = data.split_first_chunk::<4>() else { return };
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == 0xff).collect();
    let mut bytes = framed(&parts).expect("memory can be written");
    let is_frame = |part: &&[u8]| part.windows(5).any(|bytes| bytes == b"#SUM:");
    let whole: Vec<_> = parts.iter().map(|part| read(part, usize::MAX)).collect();
    if whole.iter().all(|(_, end)| *end == Ok(None)) && !parts.iter().any(is_frame) {
        let (blocks, end) = read(&bytes, usize::MAX);
        let commands = |blocks: Blocks| blocks.into_iter().map(|(_, _, commands)| commands);
        let expected = whole.into_iter().flat_map(|(blocks, _)| commands(blocks));
        assert!(commands(blocks).eq(expected), "frames are not what was written");
        assert!(end.is_ok_and(|torn| torn.is_none_or(|torn| torn.is_room)));
    }
    if !bytes.is_empty() {
        let at = usize::from(u16::from_le_bytes([low, high])) % bytes.len();
        match kind % 4 {
            0 => {}
            1 => bytes[at] ^= change,
            2 => {
                let line = at - at % 64;
                let end = bytes.len().min(line + 64);
                bytes[line..end].fill(0);
            }
            _ => bytes.truncate(at),
        }
    }
    check(step, &bytes);
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    match choice {
        0 => check_manifest(data),
        0xc0.. => check_frames(choice - 0xc0 + 1, data),
        step => check(step, data),
    }
});

fn check_manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data)
        && manifest != Manifest::default()
    {
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
    }
}

fn check(step: u8, data: &[u8]) {
    let (blocks, end) = read(data, usize::MAX);
    assert!(blocks.iter().all(|(from, to, _)| from < to));
    assert!(blocks.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let (again, end_again) = read(data, usize::from(step));
    assert!(again == blocks && end_again == end, "it depends on how the bytes come");
    match end {
        Ok(None) => {}
        Ok(Some(torn)) => {
            assert_eq!(torn.keep_bytes + torn.dropped_bytes, data.len() as u64);
            let (kept, kept_end) = read(&data[..torn.keep_bytes as usize], usize::MAX);
            assert!(kept == blocks && kept_end == Ok(None), "what is kept is not whole");
        }
        Err((offset, block_offset)) => {
            assert!(block_offset <= offset && offset <= data.len() as u64);
            if data.windows(5).any(|bytes| bytes == b"#SUM:") {
                // A frame that is cut is not whole, though its first blocks were.
                return;
            }
            let (kept, kept_end) = read(&data[..block_offset as usize], usize::MAX);
            assert!(
                kept == blocks && kept_end == Ok(None),
                "what is before the damage is not whole"
            );
        }
    }
}
