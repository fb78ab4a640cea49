//! The request parser gives the same answer however the bytes are cut, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{Limits, Parsed, Parser, ProtocolError};

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn feed<'a>(chunks: impl Iterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut parser = Parser::new();
    let mut commands = Vec::new();
    let mut spans = Vec::new();
    let mut pending = Vec::new();
    for chunk in chunks {
        pending.extend_from_slice(chunk);
        let mut start = 0;
        loop {
            let rest = &mut pending[start..];
            match parser.parse(rest, limits, &mut spans) {
                Ok(Parsed::Command { consumed }) => {
                    commands.push(spans.iter().map(|span| span.of(rest).to_vec()).collect());
                    start += consumed;
                }
                Ok(Parsed::Empty { consumed }) => start += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    assert!(needed > rest.len());
                    break;
                }
                Err(error) => return (commands, Some(error)),
            }
        }
        pending.drain(..start);
        assert!(parser.used_bytes() <= 256 + 32 * pending.len());
    }
    (commands, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&[flags, step], bytes)) = input.split_first_chunk() else { return };
    let limits = Limits { bulk_len_max: 1 << (flags >> 3), authenticated: flags & 1 == 0 };
    let whole = feed(std::iter::once(bytes), &limits);
    let pieces = feed(bytes.chunks(usize::from(step) + 1), &limits);
    assert_eq!(whole, pieces);
});
