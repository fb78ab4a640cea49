//! `cjson.encode`: reads tables where they lie, writes into one buffer.

use std::ffi::c_int;

use super::{Config, DEPTH_LIMIT, config_upvalue};
use crate::bridge::context_upvalue;
use crate::context::stack_place;
use crate::convert::push_bytes;
use crate::internals::{self, Bits, Table, Value, value_of};
use crate::order::Order;
use crate::sys::*;
use crate::{interrupt, number, raise};

#[derive(Default)]
pub struct Buffers {
    out: Vec<u8>,
}

/// Why a value has no JSON text; becomes a Lua error at the end.
enum Failure {
    Value(&'static str, &'static str),
    Depth(c_int),
    Memory,
}

pub unsafe extern "C-unwind" fn encode(L: *mut lua_State) -> c_int {
    // SAFETY: `run` raises only at points where no frame here holds a destructor; the buffers
    // belong to the context.
    unsafe {
        if lua_gettop(L) != 1 {
            luaL_argerror(L, 1, c"expected 1 argument".as_ptr());
        }
        let context = context_upvalue(L);
        let config = *config_upvalue(L);
        let buffers: *mut Buffers = &raw mut (*context).cjson.encode;
        (*buffers).out.clear();
        let order = &raw mut (*context).order;
        (*order).clear();
        // A list of one element gives the argument's raw value.
        lua_createtable(L, 1, 0);
        lua_pushvalue(L, 1);
        lua_rawseti(L, 2, 1);
        let value = internals::value_at(lua_topointer(L, 2).cast(), 1);
        let mut encoder = Encoder {
            L,
            config,
            null: (*context).cjson.null,
            limit_bytes: (*context).meter.limit_bytes,
            stack_floor: (*context).stack_floor,
            buffers: &mut *buffers,
            order: &mut *order,
        };
        match encoder.value(value, 0) {
            Ok(()) => {}
            Err(Failure::Memory) => {
                push_bytes(L, b"not enough memory");
                lua_error(L);
            }
            Err(Failure::Value(kind, reason)) => {
                raise::format(L, format_args!("Cannot serialise {kind}: {reason}"));
            }
            Err(Failure::Depth(depth)) => {
                raise::format(L, format_args!("Cannot serialise, excessive nesting ({depth})"));
            }
        }
        push_bytes(L, (*buffers).out.as_slice());
        crate::context::shrink(&mut (*buffers).out);
        1
    }
}

struct Encoder<'a> {
    L: *mut lua_State,
    config: Config,
    null: Bits,
    limit_bytes: usize,
    stack_floor: usize,
    buffers: &'a mut Buffers,
    order: &'a mut Order,
}

impl Encoder<'_> {
    /// # Safety
    /// `bits` is a live value; nothing changes Lua's heap meanwhile.
    unsafe fn value(&mut self, bits: Bits, depth: c_int) -> Result<(), Failure> {
        let out = &mut self.buffers.out;
        match value_of(bits) {
            Value::Nil => out.extend_from_slice(b"null"),
            Value::False => out.extend_from_slice(b"false"),
            Value::True => out.extend_from_slice(b"true"),
            Value::Number(value) => self.number(value)?,
            // SAFETY: a live string by the caller.
            Value::Str(string) => self.string(unsafe { internals::string_bytes(string) })?,
            // SAFETY: a live table by the caller.
            Value::Table(table) => unsafe { self.table(table, depth + 1)? },
            Value::Other(_) if bits == self.null => out.extend_from_slice(b"null"),
            other => return Err(Failure::Value(other.type_name(), "type not supported")),
        }
        Ok(())
    }

    fn number(&mut self, value: f64) -> Result<(), Failure> {
        let out = &mut self.buffers.out;
        if !value.is_finite() {
            match self.config.encode_invalid {
                0 => return Err(Failure::Value("number", "must not be NaN or Inf")),
                1 if value.is_nan() => out.extend_from_slice(b"nan"),
                1 if value < 0.0 => out.extend_from_slice(b"-inf"),
                1 => out.extend_from_slice(b"inf"),
                _ => out.extend_from_slice(b"null"),
            }
            return Ok(());
        }
        number::general(value, self.config.number_precision as usize, out);
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let out = &mut self.buffers.out;
        if out.len() + bytes.len() > self.limit_bytes {
            return Err(Failure::Memory);
        }
        out.reserve(bytes.len() + 2);
        out.push(b'"');
        let mut rest = bytes;
        loop {
            let plain = plain_prefix(rest);
            out.extend_from_slice(&rest[..plain]);
            let Some(&byte) = rest.get(plain) else { break };
            write_escape(out, byte);
            rest = &rest[plain + 1..];
        }
        out.push(b'"');
        Ok(())
    }

    /// # Safety
    /// As `value`.
    unsafe fn table(&mut self, table: *const Table, depth: c_int) -> Result<(), Failure> {
        if depth > self.config.encode_max_depth.min(DEPTH_LIMIT) || stack_place() < self.stack_floor
        {
            return Err(Failure::Depth(depth));
        }
        // SAFETY: by the caller.
        unsafe {
            self.check()?;
            match self.array_len(table)? {
                Some(len) if len > 0 => self.array(table, len, depth),
                _ => self.object(table, depth),
            }
        }
    }

    /// The highest index if the table is a list: no keys but whole numbers from 1 on.
    unsafe fn array_len(&self, table: *const Table) -> Result<Option<usize>, Failure> {
        let (mut highest, mut count) = (0.0f64, 0usize);
        // SAFETY: by the caller.
        unsafe {
            for (index, &value) in internals::array_part(table).iter().enumerate() {
                if value != internals::NIL {
                    if index == 0 {
                        return Ok(None);
                    }
                    highest = index as f64;
                    count += 1;
                }
            }
            for (key, _) in internals::hash_part(table) {
                match value_of(key) {
                    Value::Number(key)
                        if (1.0..=f64::from(i32::MAX)).contains(&key) && key.floor() == key =>
                    {
                        highest = highest.max(key);
                        count += 1;
                    }
                    _ => return Ok(None),
                }
            }
        }
        let Config { sparse_ratio, sparse_safe, sparse_convert, .. } = self.config;
        if sparse_ratio > 0
            && highest > count as f64 * f64::from(sparse_ratio)
            && highest > f64::from(sparse_safe)
        {
            if !sparse_convert {
                return Err(Failure::Value("table", "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(highest as usize))
    }

    /// # Safety
    /// As `value`.
    unsafe fn array(
        &mut self,
        table: *const Table,
        len: usize,
        depth: c_int,
    ) -> Result<(), Failure> {
        self.buffers.out.push(b'[');
        // SAFETY: by the caller.
        unsafe {
            let direct = internals::array_part(table);
            for index in 1..=len {
                if index > 1 {
                    self.buffers.out.push(b',');
                }
                let value = match direct.get(index) {
                    Some(&value) => value,
                    None => internals::value_at(table, index),
                };
                self.value(value, depth)?;
                if index % 4096 == 0 {
                    self.check()?;
                }
            }
        }
        self.buffers.out.push(b']');
        Ok(())
    }

    /// Between two of many elements: memory, and whether the script was killed.
    unsafe fn check(&mut self) -> Result<(), Failure> {
        if self.buffers.out.len() > self.limit_bytes {
            return Err(Failure::Memory);
        }
        // SAFETY: this may raise; the frames up to `encode` hold no destructors.
        unsafe { interrupt::poll(self.L) };
        Ok(())
    }

    /// # Safety
    /// As `value`.
    unsafe fn object(&mut self, table: *const Table, depth: c_int) -> Result<(), Failure> {
        // SAFETY: by the caller.
        let entries = unsafe { self.order.collect(table, depth) };
        self.buffers.out.push(b'{');
        for index in entries.clone() {
            let (key, value) = self.order.get(index);
            if index > entries.start {
                self.buffers.out.push(b',');
            }
            match value_of(key) {
                // SAFETY: the key of a live table.
                Value::Str(key) => self.string(unsafe { internals::string_bytes(key) })?,
                Value::Number(key) => {
                    self.buffers.out.push(b'"');
                    self.number(key)?;
                    self.buffers.out.push(b'"');
                }
                other => {
                    let reason = "table key must be a number or string";
                    return Err(Failure::Value(other.type_name(), reason));
                }
            }
            self.buffers.out.push(b':');
            // SAFETY: by the caller.
            unsafe { self.value(value, depth)? };
        }
        self.buffers.out.push(b'}');
        self.order.release(entries);
        Ok(())
    }
}

/// How many bytes from the front need no escape. Eight at a time: a byte that needs one is below
/// 0x20 or one of `"` `/` `\\` DEL, and each test leaves the high bit of its byte set.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        let is = |byte: u8| {
            let word = word ^ (ONES * u64::from(byte));
            word.wrapping_sub(ONES) & !word
        };
        let below_blank = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (below_blank | is(b'"') | is(b'/') | is(b'\\') | is(0x7f)) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|&byte| needs_escape(byte)).unwrap_or(bytes.len() - at)
}

fn needs_escape(byte: u8) -> bool {
    matches!(byte, 0..0x20 | b'"' | b'/' | b'\\' | 0x7f)
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'/' | b'\\' => byte,
        8 => b'b',
        9 => b't',
        10 => b'n',
        12 => b'f',
        13 => b'r',
        _ => {
            let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_prefix_ends_at_the_first_byte_to_escape() {
        for len in 0..40 {
            for place in 0..len {
                for byte in 0..=255u8 {
                    let mut bytes = vec![0xC3; len];
                    bytes[place] = byte;
                    let expected = if needs_escape(byte) { place } else { len };
                    assert_eq!(plain_prefix(&bytes), expected, "{len} {place} {byte}");
                }
            }
        }
    }
}
