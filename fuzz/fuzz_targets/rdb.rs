//! Any bytes behind the header of a file end in an error or in the end of the file, and each record
//! takes a byte of them at least. The first byte chooses the version.
#![no_main]

use data::Limits;
use libfuzzer_sys::fuzz_target;
use persist::rdb::Reader;

fuzz_target!(|input: &[u8]| {
    let Some((version, body)) = input.split_first() else { return };
    let mut file = format!("REDIS{:04}", version % 14).into_bytes();
    file.extend(body);
    let Ok(mut reader) = Reader::new(&*file, &Limits::default()) else { return };
    let mut records = 0;
    while let Ok(Some(_)) = reader.item() {
        records += 1;
        assert!(records <= body.len(), "records out of nothing");
    }
    assert!(reader.offset() <= file.len() as u64);
    assert!(matches!(reader.item(), Ok(None)), "it is over");
});
