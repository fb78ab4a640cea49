//! Single values: what DUMP answers and RESTORE takes. The type and the value as in a file, then
//! the version in two bytes and the CRC-64 of all before it, both little-endian.

use std::sync::atomic::{AtomicBool, Ordering};

use data::Limits;
use engine::{Value, ValueRef};

use super::decode::{self, Scratch};
use super::encode::{Encoder, Pieces};
use super::source::Source;
use super::{CRC, Error, Fault, VERSION_MAX, Version};

const FOOTER_BYTES: usize = 10;
const PIECE_BYTES: usize = 1 << 20;

/// Why a payload was not restored.
#[derive(Debug)]
pub enum RestoreError {
    /// Not of a version that is read, or not what was dumped.
    Footer,
    /// The value is broken or of a type that is not built; why, for the log.
    Value(Error),
}

/// The payload of a value.
pub fn dump(value: ValueRef<'_>, version: Version) -> Vec<u8> {
    let mut encoder = Encoder::new(version, true);
    let mut out = vec![encoder.kind(value)];
    let mut pieces = Pieces::of(value);
    while pieces.next(&mut encoder, PIECE_BYTES, &mut out) {}
    out.extend(version.number().to_le_bytes());
    let sum = CRC.checksum(&out);
    out.extend(sum.to_le_bytes());
    out
}

static TRUSTS_CHECKSUMS: AtomicBool = AtomicBool::new(false);

/// Whether `restore` believes any checksum from now on: for tests of damaged values.
pub fn trust_checksums(trusts: bool) {
    TRUSTS_CHECKSUMS.store(trusts, Ordering::Relaxed);
}

/// The value of a payload, in the encoding that `limits` ask for.
pub fn restore(payload: &[u8], limits: &Limits) -> Result<Value, RestoreError> {
    let body_bytes = payload.len().checked_sub(FOOTER_BYTES).ok_or(RestoreError::Footer)?;
    let (body, footer) = payload.split_at(body_bytes);
    let (version, sum) = footer.split_at(2);
    let number = u16::from_le_bytes(version.try_into().expect("two bytes"));
    let sum = u64::from_le_bytes(sum.try_into().expect("eight bytes"));
    let is_trusted = TRUSTS_CHECKSUMS.load(Ordering::Relaxed);
    if number > VERSION_MAX || (!is_trusted && CRC.checksum(&payload[..body_bytes + 2]) != sum) {
        return Err(RestoreError::Footer);
    }
    let mut source = Source::short(body, body.len());
    let result = (|| {
        let kind = source.byte()?;
        let value = decode::value(&mut source, kind, limits, &mut Scratch::default())?;
        if !source.is_at_end()? {
            return Fault::corrupt("more follows the value");
        }
        match value {
            Some(value) => Ok(value),
            None => Fault::corrupt("the collection is empty"),
        }
    })();
    result.map_err(|fault| {
        let offset = source.offset();
        RestoreError::Value(match fault {
            Fault::Io(error) => Error::Io(error),
            Fault::Truncated => Error::Truncated { offset },
            Fault::Corrupt(what) => Error::Corrupt { offset, key: None, what },
            Fault::NotBuilt(what) => Error::NotBuilt { key: Vec::new(), what },
        })
    })
}
