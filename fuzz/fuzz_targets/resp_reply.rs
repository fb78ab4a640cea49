//! The reply decoder and the scanner never panic, agree on where a reply ends, and a reply is only
//! decoded when all of it is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{ReplyScanner, decode};

fuzz_target!(|bytes: &[u8]| {
    let whole = ReplyScanner::new().scan(bytes);
    let mut scanner = ReplyScanner::new();
    let mut first = Ok(None);
    for end in 0..=bytes.len() {
        first = scanner.scan(&bytes[..end]);
        if first != Ok(None) {
            break;
        }
    }
    if let Ok(end) = whole {
        assert_eq!(first, Ok(end), "scanned at once and byte by byte");
    }
    match decode(bytes) {
        Ok(Some((_, end))) => assert_eq!(whole, Ok(Some(end))),
        Ok(None) => assert!(!matches!(whole, Ok(Some(_)))),
        // The decoder also refuses what is nested too deeply.
        Err(_) => {}
    }
});
