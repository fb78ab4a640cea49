//! Files of commands and manifests: any bytes are read or refused, in the same way however they
//! come; what is kept of a torn file is whole; a manifest that is read comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use persist::aof::{Error, Manifest, Next, Reader, Torn};

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

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    if choice == 0 {
        if let Ok(manifest) = Manifest::parse(data)
            && manifest != Manifest::default()
        {
            let text = manifest.to_text();
            assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
        }
        return;
    }
    let (blocks, end) = read(data, usize::MAX);
    assert!(blocks.iter().all(|(from, to, _)| from < to));
    assert!(blocks.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let (again, end_again) = read(data, usize::from(choice));
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
});
