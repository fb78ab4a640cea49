//! `cjson.decode`: one pass over the text, values gathered raw and made into tables of the right
//! size when a container closes.

use std::ffi::c_int;

use super::encode::EXACT_MAX;
use super::{Config, DEPTH_LIMIT, KEPT_BUFFER_BYTES_MAX, Marks, config_upvalue};
use crate::bridge::context_upvalue;
use crate::context::stack_place;
use crate::convert::push_bytes;
use crate::internals::{self, Bits, Likeness, Str};
use crate::sys::*;
use crate::{interrupt, raise};

/// Keys of the last object at each of so many depths are tried first for the next one.
const REMEMBERED_DEPTHS: usize = 8;
const REMEMBERED_KEYS: usize = internals::LIKENESS_KEYS_MAX;

/// Values, and bytes of a string, after which the interrupt is looked at.
const VALUES_AT_ONCE: u32 = 4096;
const LONG_STRING_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Buffers {
    /// Finished values of the open containers, innermost last; keys and values alternate in
    /// objects.
    values: Vec<Bits>,
    /// Text of a string with escapes.
    text: Vec<u8>,
    models: [Model; REMEMBERED_DEPTHS],
}

/// The last object at a depth, as a model for the next one.
#[derive(Default)]
struct Model {
    keys: Vec<*const Str>,
    /// The object, if all its keys are in `keys` and there are no others.
    table: Option<Bits>,
    likeness: Option<Likeness>,
}

/// Why a text is no JSON; becomes a Lua error at the end. Positions count from 0. Boxed, so that what
/// goes well is handed on in registers.
enum Failure {
    Expected { what: &'static str, found: &'static str, at: usize },
    Depth { depth: c_int, at: usize },
    Memory,
}

pub unsafe extern "C-unwind" fn decode(L: *mut lua_State) -> c_int {
    // SAFETY: buffers belong to the context, so nothing here has a destructor; the argument stays
    // on the stack while its bytes are read, NUL included.
    unsafe {
        if lua_gettop(L) != 1 {
            luaL_argerror(L, 1, c"expected 1 argument".as_ptr());
        }
        let mut len = 0;
        let text: *const u8 = luaL_checklstring(L, 1, &mut len).cast();
        let text = std::slice::from_raw_parts(text, len + 1);
        if len >= 2 && (text[0] == 0 || text[1] == 0) {
            raise::format(L, format_args!("JSON parser does not support UTF-16 or UTF-32"));
        }
        let context = context_upvalue(L);
        let buffers: *mut Buffers = &raw mut (*context).cjson.decode;
        (*buffers).values.clear();
        for model in &mut (*buffers).models {
            model.keys.clear();
            (model.table, model.likeness) = (None, None);
        }
        let config = *config_upvalue(L);
        let marks = (*context).cjson.marks;
        let stack_floor = (*context).stack_floor;
        let limit_bytes = (*context).meter.limit_bytes;
        let mut decoder = Decoder {
            L,
            text,
            at: 0,
            config,
            marks,
            countdown: VALUES_AT_ONCE,
            stack_floor,
            limit_bytes,
            buffers: &mut *buffers,
        };
        let result = decoder.document();
        // Nothing that is to be freed may be held when an error is raised.
        match result.map_err(|failure| *failure) {
            Ok(value) => internals::push(L, value),
            Err(Failure::Expected { what, found, at }) => raise::format(
                L,
                format_args!("Expected {what} but found {found} at character {}", at + 1),
            ),
            Err(Failure::Memory) => {
                push_bytes(L, b"not enough memory");
                lua_error(L);
            }
            Err(Failure::Depth { depth, at }) => raise::format(
                L,
                format_args!(
                    "Found too many nested data structures ({depth}) at character {}",
                    at + 1
                ),
            ),
        }
        if (*buffers).values.capacity() * 8 + (*buffers).text.capacity() > KEPT_BUFFER_BYTES_MAX {
            *buffers = Buffers::default();
        }
        1
    }
}

struct Decoder<'a> {
    L: *mut lua_State,
    /// The text with the NUL that Lua keeps behind it.
    text: &'a [u8],
    at: usize,
    config: Config,
    marks: Marks,
    /// Values until the interrupt is looked at.
    countdown: u32,
    stack_floor: usize,
    limit_bytes: usize,
    buffers: &'a mut Buffers,
}

impl Decoder<'_> {
    unsafe fn document(&mut self) -> Result<Bits, Box<Failure>> {
        // SAFETY: by the caller.
        let value = unsafe { self.value(0)? };
        // A NUL ends the text wherever it stands.
        if self.next_byte() != 0 { Err(self.unexpected("the end")) } else { Ok(value) }
    }

    /// The next byte that is no blank; `at` points to it.
    fn next_byte(&mut self) -> u8 {
        loop {
            match self.byte() {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return byte,
            }
        }
    }

    #[inline]
    fn byte(&self) -> u8 {
        debug_assert!(self.at < self.text.len());
        // SAFETY: no parser passes a NUL, and there is one at the end of the text.
        unsafe { *self.text.get_unchecked(self.at) }
    }

    /// A value in a container: most are strings and numbers, for which nothing deeper is entered.
    #[inline(always)]
    unsafe fn element(&mut self, depth: c_int) -> Result<Bits, Box<Failure>> {
        // SAFETY: by the caller.
        unsafe {
            match self.next_byte() {
                b'"' => Ok(internals::string_bits(self.string("value", None)?)),
                b'0'..=b'9' => self.any_number(),
                _ => self.value(depth),
            }
        }
    }

    unsafe fn value(&mut self, depth: c_int) -> Result<Bits, Box<Failure>> {
        // SAFETY: by the caller.
        unsafe {
            match self.next_byte() {
                b'"' => Ok(internals::string_bits(self.string("value", None)?)),
                b'{' => self.object(depth + 1),
                b'[' => self.array(depth + 1),
                b'-' | b'0'..=b'9' => self.any_number(),
                b't' if self.text[self.at..].starts_with(b"true") => {
                    self.at += 4;
                    Ok(internals::TRUE)
                }
                b'f' if self.text[self.at..].starts_with(b"false") => {
                    self.at += 5;
                    Ok(internals::FALSE)
                }
                b'n' if self.text[self.at..].starts_with(b"null") => {
                    self.at += 4;
                    Ok(self.marks.null)
                }
                _ if self.is_odd_number() => self.any_number(),
                _ => Err(self.unexpected("value")),
            }
        }
    }

    /// Gathers a value; what is gathered counts against the script's memory.
    #[inline]
    fn keep(&mut self, value: Bits) -> Result<(), Box<Failure>> {
        self.buffers.values.push(value);
        self.countdown -= 1;
        if self.countdown == 0 { self.pause() } else { Ok(()) }
    }

    /// Between two of many values: memory, and whether the script was killed.
    #[cold]
    fn pause(&mut self) -> Result<(), Box<Failure>> {
        self.countdown = VALUES_AT_ONCE;
        // SAFETY: this may raise; the frames up to `decode` hold no destructors.
        unsafe { interrupt::poll(self.L) };
        if self.buffers.values.len() * size_of::<Bits>() > self.limit_bytes {
            return Err(Failure::Memory.into());
        }
        Ok(())
    }

    fn descend(&self, depth: c_int) -> Result<(), Box<Failure>> {
        if depth > self.config.decode_max_depth.min(DEPTH_LIMIT) || stack_place() < self.stack_floor
        {
            return Err(Failure::Depth { depth, at: self.at }.into());
        }
        Ok(())
    }

    unsafe fn object(&mut self, depth: c_int) -> Result<Bits, Box<Failure>> {
        self.descend(depth)?;
        self.at += 1;
        let first = self.buffers.values.len();
        let mut count = 0;
        let mut all_known = true;
        // SAFETY: by the caller; the gathered values are live because nothing collects garbage
        // before `decode` pushes the result.
        unsafe {
            if self.next_byte() == b'}' {
                self.at += 1;
                return Ok(internals::new_object(self.L, &[]));
            }
            loop {
                if self.next_byte() != b'"' {
                    return Err(self.unexpected("object key string"));
                }
                let (key, known) = self.key(depth, count)?;
                count += 1;
                all_known &= known;
                self.buffers.values.push(internals::string_bits(key));
                if self.next_byte() != b':' {
                    return Err(self.unexpected("colon"));
                }
                self.at += 1;
                let value = self.element(depth)?;
                self.keep(value)?;
                match self.next_byte() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(self.unexpected("comma or object end")),
                }
            }
            self.at += 1;
            let table = self.new_object(first, depth, all_known);
            self.buffers.values.truncate(first);
            Ok(table)
        }
    }

    /// The object of the pairs gathered from `first` on. One whose keys are the model's is built
    /// in its likeness, without looking for the place of any key.
    ///
    /// # Safety
    /// As `object`.
    unsafe fn new_object(&mut self, first: usize, depth: c_int, all_known: bool) -> Bits {
        let pairs = &self.buffers.values[first..];
        let slot = depth as usize - 1;
        // SAFETY: by the caller; models were made during this decode and nobody has changed them.
        unsafe {
            let Some(model) = self.buffers.models.get_mut(slot) else {
                return internals::new_object(self.L, pairs);
            };
            let count = pairs.len() / 2;
            if all_known
                && count == model.keys.len()
                && let Some(table) = model.table
            {
                if model.likeness.is_none() {
                    model.likeness = Likeness::of(table, pairs);
                }
                if let Some(likeness) = &model.likeness {
                    return likeness.new_object(self.L, pairs);
                }
            }
            let table = internals::new_object(self.L, pairs);
            if count > REMEMBERED_KEYS {
                (model.table, model.likeness) = (None, None);
                return table;
            }
            model.keys.truncate(count);
            // A key with escapes is not among those remembered.
            let mut keys = model.keys.iter().zip(pairs.chunks_exact(2));
            let is_whole = count == model.keys.len()
                && keys.all(|(&key, pair)| internals::string_bits(key) == pair[0]);
            model.table = is_whole.then_some(table);
            model.likeness = None;
            table
        }
    }

    unsafe fn array(&mut self, depth: c_int) -> Result<Bits, Box<Failure>> {
        self.descend(depth)?;
        self.at += 1;
        let first = self.buffers.values.len();
        // SAFETY: as in `object`.
        unsafe {
            if self.next_byte() == b']' {
                self.at += 1;
                return Ok(self.new_array(self.buffers.values.len()));
            }
            loop {
                let value = self.element(depth)?;
                self.keep(value)?;
                match self.next_byte() {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(self.unexpected("comma or array end")),
                }
            }
            self.at += 1;
            let table = self.new_array(first);
            self.buffers.values.truncate(first);
            Ok(table)
        }
    }

    /// # Safety
    /// As `object`.
    unsafe fn new_array(&mut self, first: usize) -> Bits {
        // SAFETY: by the caller.
        unsafe {
            let table = internals::new_array(self.L, &self.buffers.values[first..]);
            if self.config.mark_arrays {
                internals::mark_new(table, self.marks.array);
            }
            table
        }
    }

    /// An object's key. Lists of like objects repeat their keys in the same order, so the key
    /// that the last object at this depth had in this place is compared before a new one is made.
    /// Says whether it was that key.
    unsafe fn key(
        &mut self,
        depth: c_int,
        place: usize,
    ) -> Result<(*const Str, bool), Box<Failure>> {
        let slot = depth as usize - 1;
        // SAFETY: remembered keys were made during this very decode, which collects no garbage.
        unsafe {
            let Some(model) = self.buffers.models.get(slot) else {
                return Ok((self.string("object key string", None)?, false));
            };
            if let Some(&known) = model.keys.get(place) {
                let bytes = internals::string_bytes(known);
                let start = self.at + 1;
                if let Some(text) = self.text.get(start..start + bytes.len() + 1)
                    && text[bytes.len()] == b'"'
                    && internals::starts_with(text, known)
                {
                    self.at = start + bytes.len() + 1;
                    return Ok((known, true));
                }
            }
            Ok((self.string("object key string", Some((slot, place)))?, false))
        }
    }

    /// The string whose opening quote is at `at`. One without escapes may be remembered as a key.
    unsafe fn string(
        &mut self,
        what: &'static str,
        remember: Option<(usize, usize)>,
    ) -> Result<*const Str, Box<Failure>> {
        let start = self.at + 1;
        let end = start + plain_len(&self.text[start..]);
        if self.text[end] != b'"' {
            // SAFETY: by the caller.
            return unsafe { self.escaped_string(start, end, what) };
        }
        self.at = end + 1;
        if end - start > LONG_STRING_BYTES {
            // SAFETY: this may raise; the frames up to `decode` hold no destructors.
            unsafe { interrupt::poll(self.L) };
        }
        // SAFETY: by the caller.
        let string = unsafe { internals::new_string(self.L, &self.text[start..end]) };
        if let Some((slot, place)) = remember
            && place < REMEMBERED_KEYS
        {
            let keys = &mut self.buffers.models[slot].keys;
            // A key of the same bytes is compared against the text up to its closing quote, which
            // is right only if the bytes hold neither quote nor backslash; these do not.
            if place < keys.len() {
                keys[place] = string;
            } else if place == keys.len() {
                keys.push(string);
            }
        }
        Ok(string)
    }

    unsafe fn escaped_string(
        &mut self,
        start: usize,
        mut end: usize,
        what: &'static str,
    ) -> Result<*const Str, Box<Failure>> {
        let mut from = start;
        self.buffers.text.clear();
        loop {
            self.buffers.text.extend_from_slice(&self.text[from..end]);
            match self.text[end] {
                b'"' => break,
                b'\\' => {
                    from = end + self.escape(end, what)?;
                    self.countdown -= 1;
                    if self.countdown == 0 {
                        self.pause()?;
                    }
                }
                _ => {
                    let found = "unexpected end of string";
                    return Err(Failure::Expected { what, found, at: end }.into());
                }
            }
            end = from + plain_len(&self.text[from..]);
        }
        self.at = end + 1;
        // SAFETY: by the caller.
        Ok(unsafe { internals::new_string(self.L, &self.buffers.text) })
    }

    /// Appends what the escape at `at` stands for; returns its length.
    fn escape(&mut self, at: usize, what: &'static str) -> Result<usize, Box<Failure>> {
        let plain = match self.text[at + 1] {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b't' => 9,
            b'n' => 10,
            b'f' => 12,
            b'r' => 13,
            b'u' => {
                let Some((code, len)) = unicode_escape(&self.text[at..]) else {
                    let found = "invalid unicode escape code";
                    return Err(Failure::Expected { what, found, at }.into());
                };
                let mut utf8 = [0; 4];
                self.buffers.text.extend_from_slice(code.encode_utf8(&mut utf8).as_bytes());
                return Ok(len);
            }
            _ => {
                let found = "invalid escape code";
                return Err(Failure::Expected { what, found, at }.into());
            }
        };
        self.buffers.text.push(plain);
        Ok(2)
    }

    /// A number that is not JSON's but that strtod reads: inf, nan, hexadecimal, a plus sign.
    fn is_odd_number(&self) -> bool {
        self.config.decode_invalid && is_invalid_number(&self.text[self.at..])
    }

    /// A number, or with `exact_integers` an integer that is none.
    unsafe fn any_number(&mut self) -> Result<Bits, Box<Failure>> {
        let start = self.at;
        let number = self.number()?;
        if !self.config.exact_integers || f64::from_bits(number).abs() < EXACT_MAX {
            return Ok(number);
        }
        let digits = &self.text[start..self.at];
        if !super::is_integer(digits) {
            return Ok(number);
        }
        // SAFETY: by the caller.
        unsafe {
            let digits = internals::string_bits(internals::new_string(self.L, digits));
            let integer = internals::new_array(self.L, &[digits]);
            internals::mark_new(integer, self.marks.integer);
            Ok(integer)
        }
    }

    fn number(&mut self) -> Result<Bits, Box<Failure>> {
        let text = &self.text[self.at..];
        if !self.config.decode_invalid && is_invalid_number(text) {
            return Err(self.expected("value", "invalid number"));
        }
        if let Some((value, len)) = simple_number(text) {
            self.at += len;
            return Ok(internals::number_bits(value));
        }
        let mut end = std::ptr::null_mut();
        // SAFETY: the text ends with NUL, where strtod stops at the latest.
        let value = unsafe { libc::strtod(text.as_ptr().cast(), &mut end) };
        let len = end as usize - text.as_ptr() as usize;
        if len == 0 {
            return Err(self.expected("value", "invalid number"));
        }
        self.at += len;
        Ok(internals::number_bits(value))
    }

    #[cold]
    fn expected(&self, what: &'static str, found: &'static str) -> Box<Failure> {
        Failure::Expected { what, found, at: self.at }.into()
    }

    /// The failure for whatever token begins at `at`; a string or number there may be broken
    /// itself, which is then what the message says.
    #[cold]
    fn unexpected(&mut self, what: &'static str) -> Box<Failure> {
        let at = self.at;
        let text = &self.text[at..];
        let found = match text[0] {
            b'{' => "T_OBJ_BEGIN",
            b'}' => "T_OBJ_END",
            b'[' => "T_ARR_BEGIN",
            b']' => "T_ARR_END",
            b',' => "T_COMMA",
            b':' => "T_COLON",
            0 => "T_END",
            b'"' => return self.broken_string(what).unwrap_or(self.expected(what, "T_STRING")),
            b't' if text.starts_with(b"true") => "T_BOOLEAN",
            b'f' if text.starts_with(b"false") => "T_BOOLEAN",
            b'n' if text.starts_with(b"null") => "T_NULL",
            b'-' | b'0'..=b'9' => match self.number() {
                Ok(_) => "T_NUMBER",
                Err(_) => "invalid number",
            },
            _ if self.is_odd_number() => match self.number() {
                Ok(_) => "T_NUMBER",
                Err(_) => "invalid number",
            },
            _ => "invalid token",
        };
        Failure::Expected { what, found, at }.into()
    }

    /// What is wrong with the string at `at`, if something is.
    fn broken_string(&mut self, what: &'static str) -> Option<Box<Failure>> {
        let mut at = self.at + 1;
        self.buffers.text.clear();
        loop {
            at += plain_len(&self.text[at..]);
            match self.text[at] {
                b'"' => return None,
                b'\\' => match self.escape(at, what) {
                    Ok(len) => at += len,
                    Err(failure) => return Some(failure),
                },
                _ => {
                    let found = "unexpected end of string";
                    return Some(Failure::Expected { what, found, at }.into());
                }
            }
        }
    }
}

fn is_invalid_number(text: &[u8]) -> bool {
    if text[0] == b'+' {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text[0] {
        b'0' => matches!(text[1], b'x' | b'X' | b'0'..=b'9'),
        ..=b'9' => false,
        _ => {
            let word = text.get(..3).unwrap_or_default();
            word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
        }
    }
}

/// Numbers of at most 15 digits and no exponent, which a division makes exact.
fn simple_number(text: &[u8]) -> Option<(f64, usize)> {
    const POWERS: [f64; 16] =
        [1., 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let negative = text[0] == b'-';
    let start = usize::from(negative);
    let mut at = start;
    let mut value = 0u64;
    while text[at].is_ascii_digit() && at - start < 16 {
        value = value * 10 + u64::from(text[at] - b'0');
        at += 1;
    }
    let mut digits = at - start;
    let mut decimals = 0;
    if text[at] == b'.' {
        at += 1;
        while text[at].is_ascii_digit() && digits + decimals < 16 {
            value = value * 10 + u64::from(text[at] - b'0');
            at += 1;
            decimals += 1;
        }
    }
    digits += decimals;
    let leading_zero = text[start] == b'0' && text[start + 1].is_ascii_alphanumeric();
    if digits == 0 || digits > 15 || leading_zero || matches!(text[at], b'e' | b'E') {
        return None;
    }
    let value = value as f64 / POWERS[decimals];
    Some((if negative { -value } else { value }, at))
}

/// The code point of a `\uXXXX` escape, or of a surrogate pair of them, and the length.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let unit = |text: &[u8]| {
        let digits = text.get(2..6)?;
        digits
            .iter()
            .try_fold(0u32, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
    };
    let first = unit(text)?;
    if first & 0xF800 != 0xD800 {
        return Some((char::from_u32(first)?, 6));
    }
    if first & 0x400 != 0 || !text[6..].starts_with(b"\\u") {
        return None;
    }
    let second = unit(&text[6..])?;
    if second & 0xFC00 != 0xDC00 {
        return None;
    }
    Some((char::from_u32((((first & 0x3FF) << 10) | (second & 0x3FF)) + 0x10000)?, 12))
}

/// How many bytes from the front belong to a string as they are: up to a quote, a backslash or
/// the NUL at the text's end. Eight at a time, as in `encode`.
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        let is = |byte: u8| {
            let word = word ^ (ONES * u64::from(byte));
            word.wrapping_sub(ONES) & !word
        };
        let found = (is(b'"') | is(b'\\') | is(0)) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &text[at..];
    at + rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0)).unwrap_or(rest.len() - 1)
}
