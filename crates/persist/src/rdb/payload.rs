//! Single values: what DUMP answers and RESTORE takes. The type and the value as in a file, then
//! the version in two bytes and the CRC-64 of all before it, both little-endian.

use std::sync::atomic::{AtomicBool, Ordering};

use data::Limits;
use engine::{Value, ValueRef};

use super::decode::{self, Scratch};
use super::encode::{Encoder, Pieces};
use super::source::Source;
use super::{Error, Fault, VERSION_MAX, Version, checksum, opcode};

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
    end(out, version)
}

fn end(mut body: Vec<u8>, version: Version) -> Vec<u8> {
    body.extend(version.number().to_le_bytes());
    let sum = checksum(&body);
    body.extend(sum.to_le_bytes());
    body
}

/// The payload of FUNCTION DUMP: the codes of libraries.
pub fn dump_functions<'c>(codes: impl Iterator<Item = &'c [u8]>, version: Version) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(version, true), Vec::new());
    for code in codes {
        out.push(opcode::FUNCTION2);
        encoder.string(code, &mut out);
    }
    end(out, version)
}

/// Why the payload of FUNCTION DUMP was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionsError {
    /// Not of a version that is read, or not what was dumped.
    Footer,
    /// As only candidates of Redis 7.0 wrote it.
    PreGa,
    /// It has something else than libraries.
    OtherKind,
    Broken,
}

/// The codes of libraries in a payload.
pub fn restore_functions(payload: &[u8]) -> Result<Vec<Vec<u8>>, FunctionsError> {
    let body = body(payload).ok_or(FunctionsError::Footer)?;
    let mut source = Source::short(body, body.len());
    let mut codes = Vec::new();
    let broken = |_: Fault| FunctionsError::Broken;
    while !source.is_at_end().map_err(broken)? {
        match source.byte().map_err(broken)? {
            opcode::FUNCTION2 => {}
            opcode::FUNCTION_PRE_GA => return Err(FunctionsError::PreGa),
            _ => return Err(FunctionsError::OtherKind),
        }
        let mut code = Vec::new();
        source.string(&mut code).map_err(broken)?;
        codes.push(code);
    }
    Ok(codes)
}

static TRUSTS_CHECKSUMS: AtomicBool = AtomicBool::new(false);

/// Whether `restore` believes any checksum from now on: for tests of damaged values.
pub fn trust_checksums(trusts: bool) {
    TRUSTS_CHECKSUMS.store(trusts, Ordering::Relaxed);
}

/// What stands before the footer, if that is right.
fn body(payload: &[u8]) -> Option<&[u8]> {
    let body_bytes = payload.len().checked_sub(FOOTER_BYTES)?;
    let (body, footer) = payload.split_at(body_bytes);
    let (version, sum) = footer.split_at(2);
    let number = u16::from_le_bytes(version.try_into().expect("two bytes"));
    let sum = u64::from_le_bytes(sum.try_into().expect("eight bytes"));
    let is_trusted = TRUSTS_CHECKSUMS.load(Ordering::Relaxed);
    let is_right = is_trusted || checksum(&payload[..body_bytes + 2]) == sum;
    (number <= VERSION_MAX && is_right).then_some(body)
}

/// The value of a payload, in the encoding that `limits` ask for.
pub fn restore(payload: &[u8], limits: &Limits) -> Result<Value, RestoreError> {
    let body = body(payload).ok_or(RestoreError::Footer)?;
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
