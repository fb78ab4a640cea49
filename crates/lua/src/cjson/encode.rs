//! `cjson.encode`: reads tables where they lie, writes into one buffer.

use std::ffi::c_int;

use super::shape::{self, Shape};
use super::{Config, DEPTH_LIMIT, Marks, config_upvalue};
use crate::bridge::context_upvalue;
use crate::context::stack_place;
use crate::convert::{self, push_bytes};
use crate::internals::{self, Bits, Node, Str, Table, Value, value_of};
use crate::order::Order;
use crate::sys::*;
use crate::{interrupt, number, raise};

/// Doubles up to here are all whole numbers without gaps.
pub const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Longer strings are written in pieces, with a look at the interrupt after each.
const LONG_STRING_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Buffers {
    out: Vec<u8>,
    /// Of the last object at each depth.
    shapes: [Shape; shape::DEPTHS],
}

/// Why a value has no JSON text; becomes a Lua error at the end. Boxed, so that what goes well is
/// handed on in registers.
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
        (*buffers).shapes.iter_mut().for_each(Shape::clear);
        let value = internals::argument(L, 1);
        let mut encoder = Encoder {
            L,
            config,
            marks: (*context).cjson.marks,
            limit_bytes: (*context).meter.limit_bytes,
            stack_floor: (*context).stack_floor,
            buffers: &mut *buffers,
            order: &mut *order,
        };
        // Nothing that is to be freed may be held when an error is raised.
        match encoder.value(value, 0).map_err(|failure| *failure) {
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
    marks: Marks,
    limit_bytes: usize,
    stack_floor: usize,
    buffers: &'a mut Buffers,
    order: &'a mut Order,
}

impl Encoder<'_> {
    /// A value in a container: most are strings, for which nothing deeper is entered.
    ///
    /// # Safety
    /// As `value`.
    #[inline(always)]
    unsafe fn element(&mut self, bits: Bits, depth: c_int) -> Result<(), Box<Failure>> {
        match value_of(bits) {
            // SAFETY: by the caller.
            Value::Str(string) => unsafe { self.string(string) },
            // SAFETY: by the caller.
            _ => unsafe { self.value(bits, depth) },
        }
    }

    /// # Safety
    /// `bits` is a live value; nothing changes Lua's heap meanwhile.
    unsafe fn value(&mut self, bits: Bits, depth: c_int) -> Result<(), Box<Failure>> {
        let out = &mut self.buffers.out;
        match value_of(bits) {
            Value::Nil => out.extend_from_slice(b"null"),
            Value::False => out.extend_from_slice(b"false"),
            Value::True => out.extend_from_slice(b"true"),
            Value::Number(value) => self.number(value)?,
            // SAFETY: a live string by the caller.
            Value::Str(string) => unsafe { self.string(string)? },
            // SAFETY: a live table by the caller.
            Value::Table(table) => unsafe { self.table(table, depth + 1)? },
            Value::Other(_) if bits == self.marks.null => out.extend_from_slice(b"null"),
            Value::Other(_) if bits == self.marks.empty_array => out.extend_from_slice(b"[]"),
            other => {
                return Err(Failure::Value(other.type_name(), "type not supported").into());
            }
        }
        Ok(())
    }

    fn number(&mut self, value: f64) -> Result<(), Box<Failure>> {
        let out = &mut self.buffers.out;
        if !value.is_finite() {
            match self.config.encode_invalid {
                0 => return Err(Failure::Value("number", "must not be NaN or Inf").into()),
                1 if value.is_nan() => out.extend_from_slice(b"nan"),
                1 if value < 0.0 => out.extend_from_slice(b"-inf"),
                1 => out.extend_from_slice(b"inf"),
                _ => out.extend_from_slice(b"null"),
            }
            return Ok(());
        }
        if self.config.exact_integers && value.abs() <= EXACT_MAX && value as i64 as f64 == value {
            convert::write_digits(out, value as i64);
        } else {
            number::general(value, self.config.number_precision as usize, out);
        }
        Ok(())
    }

    /// # Safety
    /// `string` is live.
    unsafe fn string(&mut self, string: *const Str) -> Result<(), Box<Failure>> {
        // SAFETY: by the caller.
        unsafe {
            let len = internals::string_bytes(string).len();
            if self.buffers.out.len() + len > self.limit_bytes {
                return Err(Failure::Memory.into());
            }
            if len > LONG_STRING_BYTES {
                return self.long_string(internals::string_bytes(string));
            }
            write_string(&mut self.buffers.out, string);
        }
        Ok(())
    }

    /// # Safety
    /// As `value`.
    unsafe fn long_string(&mut self, bytes: &[u8]) -> Result<(), Box<Failure>> {
        self.buffers.out.push(b'"');
        for piece in bytes.chunks(LONG_STRING_BYTES) {
            let plain = plain_prefix(piece);
            self.buffers.out.extend_from_slice(&piece[..plain]);
            write_with_escapes(&mut self.buffers.out, &piece[plain..]);
            // SAFETY: by the caller.
            unsafe { self.check()? };
        }
        self.buffers.out.push(b'"');
        Ok(())
    }

    /// # Safety
    /// As `value`.
    unsafe fn table(&mut self, table: *const Table, depth: c_int) -> Result<(), Box<Failure>> {
        if depth > self.config.encode_max_depth.min(DEPTH_LIMIT) || stack_place() < self.stack_floor
        {
            return Err(Failure::Depth(depth).into());
        }
        // SAFETY: by the caller.
        unsafe {
            self.check()?;
            let metatable = internals::metatable(table);
            if !metatable.is_null() {
                if metatable == self.marks.array {
                    return self.array(table, internals::list_len(table), depth);
                } else if metatable == self.marks.integer {
                    return self.integer(table);
                } else if metatable == self.marks.empty_array_mt && is_empty(table) {
                    return self.array(table, 0, depth);
                }
            }
            match self.array_len(table)? {
                Some(len) if len > 0 || !self.config.empty_as_object => {
                    self.array(table, len, depth)
                }
                _ => self.object(table, depth),
            }
        }
    }

    /// An integer that no number holds: its digits stand in a list of their own.
    ///
    /// # Safety
    /// As `value`.
    unsafe fn integer(&mut self, table: *const Table) -> Result<(), Box<Failure>> {
        // SAFETY: by the caller.
        let digits = unsafe {
            match value_of(internals::value_at(table, 1)) {
                Value::Str(digits) => internals::string_bytes(digits),
                _ => &[],
            }
        };
        if !super::is_integer(digits) {
            return Err(Failure::Value("table", "not an integer").into());
        }
        self.buffers.out.extend_from_slice(digits);
        Ok(())
    }

    /// The highest index if the table is a list: no keys but whole numbers from 1 on.
    unsafe fn array_len(&self, table: *const Table) -> Result<Option<usize>, Box<Failure>> {
        let (mut highest, mut count) = (0.0f64, 0usize);
        // SAFETY: by the caller.
        unsafe {
            if let Some((&zeroth, list)) = internals::array_part(table).split_first() {
                if zeroth != internals::NIL {
                    return Ok(None);
                }
                let mut used = list.iter().position(|&value| value == internals::NIL);
                count = used.unwrap_or(list.len());
                if let Some(first) = used {
                    // Behind the first gap there may be more.
                    let rest = &list[first..];
                    let last = rest.iter().rposition(|&value| value != internals::NIL);
                    used = last.map(|last| first + last + 1).or(used);
                    count += rest.iter().filter(|&&value| value != internals::NIL).count();
                }
                highest = used.unwrap_or(list.len()) as f64;
            }
            for (key, _) in internals::hash_part(table) {
                match value_of(key) {
                    Value::Number(key)
                        if (1.0..=f64::from(i32::MAX)).contains(&key)
                            && f64::from(key as i32) == key =>
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
                return Err(Failure::Value("table", "excessively sparse array").into());
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
    ) -> Result<(), Box<Failure>> {
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
                self.element(value, depth)?;
                if index % 4096 == 0 {
                    self.check()?;
                }
            }
        }
        self.buffers.out.push(b']');
        Ok(())
    }

    /// Between two of many elements: memory, and whether the script was killed.
    unsafe fn check(&mut self) -> Result<(), Box<Failure>> {
        if self.buffers.out.len() > self.limit_bytes {
            return Err(Failure::Memory.into());
        }
        // SAFETY: this may raise; the frames up to `encode` hold no destructors.
        unsafe { interrupt::poll(self.L) };
        Ok(())
    }

    /// # Safety
    /// As `value`.
    unsafe fn object(&mut self, table: *const Table, depth: c_int) -> Result<(), Box<Failure>> {
        // SAFETY: by the caller.
        let nodes = unsafe {
            if internals::array_part(table).is_empty() { internals::nodes(table) } else { &[] }
        };
        let slot = depth as usize - 1;
        if slot < shape::DEPTHS && (1..=shape::NODES_MAX).contains(&nodes.len()) {
            let shape = &mut self.buffers.shapes[slot];
            // SAFETY: by the caller.
            if shape.fits(nodes) || unsafe { shape.learn(nodes) } {
                // SAFETY: by the caller.
                return unsafe { self.shaped_object(nodes, depth) };
            }
        }
        // SAFETY: by the caller.
        let entries = unsafe { self.order.collect(self.L, table, depth) };
        self.buffers.out.push(b'{');
        for index in entries.clone() {
            let (key, value) = self.order.get(index);
            if index > entries.start {
                self.buffers.out.push(b',');
            }
            match value_of(key) {
                // SAFETY: the key of a live table.
                Value::Str(key) => unsafe { self.string(key)? },
                Value::Number(key) => {
                    self.buffers.out.push(b'"');
                    self.number(key)?;
                    self.buffers.out.push(b'"');
                }
                other => {
                    let reason = "table key must be a number or string";
                    return Err(Failure::Value(other.type_name(), reason).into());
                }
            }
            self.buffers.out.push(b':');
            // SAFETY: by the caller.
            unsafe {
                self.value(value, depth)?;
                if index % 4096 == 0 {
                    self.check()?;
                }
            }
        }
        self.buffers.out.push(b'}');
        self.order.release(entries);
        Ok(())
    }

    /// An object whose shape is the one kept for its depth. Objects inside it are deeper, so the
    /// shape stays.
    ///
    /// # Safety
    /// As `value`.
    unsafe fn shaped_object(&mut self, nodes: &[Node], depth: c_int) -> Result<(), Box<Failure>> {
        let slot = depth as usize - 1;
        self.buffers.out.push(b'{');
        for place in 0..self.buffers.shapes[slot].len() {
            let node = self.buffers.shapes[slot].write_key(place, &mut self.buffers.out);
            // SAFETY: by the caller.
            unsafe { self.element(nodes[node].value, depth)? };
        }
        self.buffers.out.push(b'}');
        Ok(())
    }
}

/// # Safety
/// `table` is live.
unsafe fn is_empty(table: *const Table) -> bool {
    // SAFETY: by the caller.
    unsafe {
        internals::array_part(table).iter().all(|&value| value == internals::NIL)
            && internals::hash_part(table).next().is_none()
    }
}

/// Appends a string as JSON.
///
/// # Safety
/// `string` is live.
#[inline]
pub unsafe fn write_string(out: &mut Vec<u8>, string: *const Str) {
    // SAFETY: by the caller. Words are read whole: the last one ends where the bytes end and begins
    // within the header in front of them if they are fewer than eight. Words are written whole
    // into the room reserved; the length is set to what is meant to be there.
    unsafe {
        let bytes = internals::string_bytes(string);
        out.reserve(bytes.len() + 2 + 8);
        let (from, start) = (string.add(1).cast::<u8>(), out.len());
        let to = out.as_mut_ptr().add(start + 1);
        to.sub(1).write(b'"');
        let mut at = 0;
        let mut found = 0;
        while at + 8 <= bytes.len() {
            let word = u64::from_le(from.add(at).cast::<u64>().read_unaligned());
            to.add(at).cast::<u64>().write_unaligned(word.to_le());
            found = to_escape(word);
            if found != 0 {
                break;
            }
            at += 8;
        }
        let left = bytes.len() - at;
        if found == 0 && left > 0 {
            let last = from.offset(bytes.len() as isize - 8).cast::<u64>().read_unaligned();
            let word = u64::from_le(last) >> (64 - 8 * left);
            to.add(at).cast::<u64>().write_unaligned(word.to_le());
            found = to_escape(word) & !(u64::MAX << (8 * left));
        }
        if found == 0 {
            to.add(bytes.len()).write(b'"');
            out.set_len(start + bytes.len() + 2);
            return;
        }
        at += found.trailing_zeros() as usize / 8;
        out.set_len(start + 1 + at);
        write_with_escapes(out, &bytes[at..]);
        out.push(b'"');
    }
}

/// The string's bytes from the first one on that needs an escape.
#[cold]
fn write_with_escapes(out: &mut Vec<u8>, mut rest: &[u8]) {
    while let Some((&byte, after)) = rest.split_first() {
        write_escape(out, byte);
        let plain = plain_prefix(after);
        out.extend_from_slice(&after[..plain]);
        rest = &after[plain..];
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// High bits of the bytes that need an escape (exact for the lowest of them): those below 0x20
/// and `"` `/` `\\` DEL.
#[inline]
fn to_escape(word: u64) -> u64 {
    let is = |byte: u8| {
        let word = word ^ (ONES * u64::from(byte));
        word.wrapping_sub(ONES) & !word
    };
    let below_blank = word.wrapping_sub(ONES * 0x20) & !word;
    (below_blank | is(b'"') | is(b'/') | is(b'\\') | is(0x7f)) & (ONES << 7)
}

/// How many bytes from the front need no escape.
fn plain_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        let found = to_escape(word);
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
