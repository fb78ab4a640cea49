//! HyperLogLog: how many different elements were seen, in at most 12 KB. Byte for byte the strings
//! that Redis makes, so that they can be read by either. Knows nothing of keys; the commands PF…
//! and the door call it.
//!
//! A string has 16 bytes in front: `HYLL`, the encoding, three of no meaning, and the last count,
//! little-endian, whose highest bit says that it is out of date. Behind them stand 16384 registers.
//! Dense: six bits each, the lowest bits of a byte first. Sparse: runs of `00nnnnnn`, so many zeros
//! and one; `01nnnnnn nnnnnnnn`, the same with longer numbers; `1vvvvvnn`, up to four times v + 1.
//!
//! The estimate is that of O. Ertl, "New cardinality estimation algorithms for HyperLogLog
//! sketches", 2017; the hash is MurmurHash64A.

/// A power of two.
pub const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
/// Bits of a hash that a register tells of.
const RANK_MAX: usize = 64 - INDEX_BITS as usize + 1;
const REGISTER_BITS: usize = 6;
const HEADER_BYTES: usize = 16;
pub const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;
/// Where the last count stands.
pub const COUNT_AT: usize = 8;
const OUTDATED_AT: usize = HEADER_BYTES - 1;
const OUTDATED: u8 = 0x80;

const MAGIC: &[u8] = b"HYLL";
const ENCODING_AT: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;

const ZEROS_MAX: usize = 64;
const VALUE_MAX: u8 = 32;
const VALUE_RUN_MAX: usize = 4;

/// The runs of a sparse one are not those of 16384 registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupted;

/// Whether this is the beginning, and the size, of a HyperLogLog.
pub fn is_one(text: &[u8]) -> bool {
    text.len() >= HEADER_BYTES
        && text.starts_with(MAGIC)
        && match text[ENCODING_AT] {
            DENSE => text.len() == DENSE_BYTES,
            SPARSE => true,
            _ => false,
        }
}

pub fn is_dense(text: &[u8]) -> bool {
    text[ENCODING_AT] == DENSE
}

/// One that has seen nothing.
pub fn empty() -> Vec<u8> {
    let mut text = vec![0; HEADER_BYTES];
    text[..MAGIC.len()].copy_from_slice(MAGIC);
    text[ENCODING_AT] = SPARSE;
    Run::Zeros(REGISTERS).write(&mut text);
    text
}

/// A register that an element would raise, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rise {
    register: usize,
    to: u8,
    /// Where the register stands in the sparse string that was looked at.
    found: Option<Found>,
}

impl Rise {
    fn of(element: &[u8]) -> Rise {
        let hash = murmur(element);
        let register = hash as usize & (REGISTERS - 1);
        let rest = hash >> INDEX_BITS | 1 << (RANK_MAX - 1);
        Rise { register, to: rest.trailing_zeros() as u8 + 1, found: None }
    }

    /// What of a dense string it changes, beside the place of the count: offset and bytes.
    pub fn dense_place(self) -> (usize, usize) {
        let bit = self.register * REGISTER_BITS;
        let at = HEADER_BYTES + bit / 8;
        (at, (DENSE_BYTES - at).min(2))
    }
}

/// What an element would change; `None` if nothing. O(1) if dense, O(bytes) else.
pub fn rise(text: &[u8], element: &[u8]) -> Result<Option<Rise>, Corrupted> {
    let mut rise = Rise::of(element);
    let now = match is_dense(text) {
        true => dense_get(text, rise.register),
        false => rise.found.insert(find(text, rise.register)?).run.value(),
    };
    Ok((now < rise.to).then_some(rise))
}

/// Raises a register of the string that was looked at, which is as it was then, and says that the count
/// is out of date. A sparse string that would become
/// longer than `sparse_bytes_max` becomes a dense one.
pub fn raise(text: &mut Vec<u8>, rise: Rise, sparse_bytes_max: usize) -> Result<(), Corrupted> {
    match is_dense(text) {
        true => dense_set(text, rise.register, rise.to),
        false => sparse_set(text, rise, sparse_bytes_max)?,
    }
    text[OUTDATED_AT] |= OUTDATED;
    Ok(())
}

/// Whether all registers can be read.
pub fn check(text: &[u8]) -> Result<(), Corrupted> {
    if is_dense(text) {
        return Ok(());
    }
    let mut registers = 0;
    for place in runs(text) {
        registers += place.ok_or(Corrupted)?.run.len();
        if registers > REGISTERS {
            return Err(Corrupted);
        }
    }
    if registers == REGISTERS { Ok(()) } else { Err(Corrupted) }
}

/// The count that was noted, unless it is out of date.
pub fn noted_count(text: &[u8]) -> Option<u64> {
    if text[OUTDATED_AT] & OUTDATED != 0 {
        return None;
    }
    let bytes = text[COUNT_AT..HEADER_BYTES].try_into().expect("it has eight bytes");
    Some(u64::from_le_bytes(bytes))
}

/// Says that the count is out of date.
pub fn forget_count(text: &mut [u8]) {
    text[OUTDATED_AT] |= OUTDATED;
}

/// About how many different elements were seen. O(registers).
pub fn count(text: &[u8]) -> Result<u64, Corrupted> {
    let mut histogram = [0; 64];
    if is_dense(text) {
        // Several, as one would have each step wait for the one before.
        let mut lanes = [[0_u32; 64]; 4];
        for bytes in text[HEADER_BYTES..].as_chunks::<3>().0 {
            let four = unpacked(*bytes);
            for (lane, register) in lanes.iter_mut().zip(four) {
                lane[usize::from(register)] += 1;
            }
        }
        for lane in lanes {
            histogram.iter_mut().zip(lane).for_each(|(sum, count)| *sum += count);
        }
    } else {
        check(text)?;
        for Place { run, .. } in runs(text).flatten() {
            histogram[usize::from(run.value())] += run.len() as u32;
        }
    }
    Ok(estimate(&histogram))
}

/// The greatest value of each register in many strings.
pub struct Union {
    registers: Box<[u8; REGISTERS]>,
}

impl Default for Union {
    fn default() -> Union {
        Union { registers: Box::new([0; REGISTERS]) }
    }
}

impl Union {
    /// O(registers).
    pub fn add(&mut self, text: &[u8]) -> Result<(), Corrupted> {
        if is_dense(text) {
            let packed = text[HEADER_BYTES..].as_chunks::<3>().0;
            for (four, bytes) in self.registers.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
                let others = unpacked(*bytes);
                four.iter_mut().zip(others).for_each(|(mine, other)| *mine = other.max(*mine));
            }
            return Ok(());
        }
        check(text)?;
        let mut at = 0;
        for Place { run, .. } in runs(text).flatten() {
            let registers = &mut self.registers[at..at + run.len()];
            if run.value() > 0 {
                registers.iter_mut().for_each(|mine| *mine = run.value().max(*mine));
            }
            at += run.len();
        }
        Ok(())
    }

    pub fn count(&self) -> u64 {
        let mut histogram = [0; 64];
        self.registers.iter().for_each(|&value| histogram[usize::from(value)] += 1);
        estimate(&histogram)
    }

    /// Raises the registers of a string to these.
    pub fn raise_all(&self, text: &mut Vec<u8>, sparse_bytes_max: usize) -> Result<(), Corrupted> {
        for (register, &to) in self.registers.iter().enumerate() {
            match is_dense(text) {
                true if to > dense_get(text, register) => dense_set(text, register, to),
                false if to > 0 => {
                    let found = find(text, register)?;
                    if found.run.value() < to {
                        let rise = Rise { register, to, found: Some(found) };
                        sparse_set(text, rise, sparse_bytes_max)?;
                    }
                }
                _ => {}
            }
        }
        forget_count(text);
        Ok(())
    }
}

/// Makes a string dense; false if it was. The count stays.
pub fn make_dense(text: &mut Vec<u8>) -> Result<bool, Corrupted> {
    if is_dense(text) {
        return Ok(false);
    }
    check(text)?;
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER_BYTES].copy_from_slice(&text[..HEADER_BYTES]);
    dense[ENCODING_AT] = DENSE;
    let mut at = 0;
    for Place { run, .. } in runs(text).flatten() {
        if run.value() > 0 {
            (at..at + run.len()).for_each(|register| dense_set(&mut dense, register, run.value()));
        }
        at += run.len();
    }
    *text = dense;
    Ok(true)
}

/// All registers of a dense string.
pub fn registers(text: &[u8]) -> impl Iterator<Item = u8> {
    text[HEADER_BYTES..].as_chunks::<3>().0.iter().flat_map(|bytes| unpacked(*bytes))
}

/// The runs of a sparse string in words, as PFDEBUG DECODE answers them.
pub fn described(text: &[u8]) -> Result<String, Corrupted> {
    check(text)?;
    let words = runs(text).flatten().map(|place| match (place.run, place.bytes) {
        (Run::Zeros(len), 1) => format!("z:{len}"),
        (Run::Zeros(len), _) => format!("Z:{len}"),
        (Run::Value(value, len), _) => format!("v:{value},{len}"),
    });
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// Registers of one value that stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Zeros(usize),
    Value(u8, usize),
}

/// A run and where it stands in the text.
#[derive(Clone, Copy)]
struct Place {
    run: Run,
    at: usize,
    bytes: usize,
}

impl Run {
    fn len(self) -> usize {
        match self {
            Run::Zeros(len) | Run::Value(_, len) => len,
        }
    }

    fn value(self) -> u8 {
        match self {
            Run::Zeros(_) => 0,
            Run::Value(value, _) => value,
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Run::Zeros(len @ 0..=ZEROS_MAX) => out.push(len as u8 - 1),
            Run::Zeros(len) => {
                out.extend_from_slice(&[0x40 | ((len - 1) >> 8) as u8, (len - 1) as u8]);
            }
            Run::Value(value, len) => out.push(0x80 | (value - 1) << 2 | (len - 1) as u8),
        }
    }

    /// The same, so many registers long.
    fn of_len(self, len: usize) -> Run {
        match self {
            Run::Zeros(_) => Run::Zeros(len),
            Run::Value(value, _) => Run::Value(value, len),
        }
    }
}

fn run_at(text: &[u8], at: usize) -> Option<Place> {
    let place = |run, bytes| Some(Place { run, at, bytes });
    let byte = *text.get(at)?;
    let low = usize::from(byte & 0x3f);
    match byte >> 6 {
        0 => place(Run::Zeros(low + 1), 1),
        1 => place(Run::Zeros((low << 8 | usize::from(*text.get(at + 1)?)) + 1), 2),
        _ => place(Run::Value((byte >> 2 & 0x1f) + 1, usize::from(byte & 3) + 1), 1),
    }
}

/// The runs of a sparse string; `None` in place of one that is cut off.
fn runs(text: &[u8]) -> impl Iterator<Item = Option<Place>> {
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        if at >= text.len() {
            return None;
        }
        let place = run_at(text, at);
        at = place.map_or(text.len(), |place| place.at + place.bytes);
        Some(place)
    })
}

/// The run that a register stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    run: Run,
    at: usize,
    bytes: usize,
    /// Its first register.
    first: usize,
    /// Where the run before it stands.
    before: Option<usize>,
}

/// O(bytes), eight of them at a time.
fn find(text: &[u8], register: usize) -> Result<Found, Corrupted> {
    let (mut first, mut at, mut before) = (0, HEADER_BYTES, None);
    while let Some(Strides { registers, bytes, last }) = strides_at(text, at)
        && first + registers <= register
    {
        first += registers;
        at += bytes;
        before = Some(at - last);
    }
    loop {
        let Place { run, bytes, .. } = run_at(text, at).ok_or(Corrupted)?;
        if register < first + run.len() {
            return Ok(Found { run, at, bytes, first, before });
        }
        first += run.len();
        before = Some(at);
        at += bytes;
    }
}

/// Several runs.
struct Strides {
    registers: usize,
    bytes: usize,
    /// Bytes of the last one.
    last: usize,
}

/// The next eight bytes of runs, or those up to a long one and that. Which kinds of runs there are
/// cannot be foreseen, so nothing branches on that. `None` near the end.
#[inline]
fn strides_at(text: &[u8], at: usize) -> Option<Strides> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let bytes: &[u8; 9] = text.get(at..)?.first_chunk()?;
    let word = u64::from_le_bytes(*bytes.first_chunk().expect("one less"));
    let is_value = word >> 7 & ONES;
    let is_long = word >> 6 & ONES & !is_value;
    // Bytes in front of the first long run.
    let short = is_long.trailing_zeros() as usize / 8;
    // 3f, and 03 for values.
    let low = word & (ONES * 0x3f) & !(is_value * 0x3c);
    let ahead = if short == 8 { u64::MAX } else { (1 << (8 * short)) - 1 };
    let low = low & ahead;
    let pairs = (low & EVEN) + (low >> 8 & EVEN);
    let sum = (pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48) as usize;
    if short == 8 {
        return Some(Strides { registers: sum + 8, bytes: 8, last: 1 });
    }
    let long = usize::from(bytes[short] & 0x3f) << 8 | usize::from(bytes[short + 1]);
    Some(Strides { registers: sum + short + long + 1, bytes: short + 2, last: 2 })
}

/// Raises a register of a sparse string that is lower.
fn sparse_set(text: &mut Vec<u8>, rise: Rise, bytes_max: usize) -> Result<(), Corrupted> {
    let Rise { register, to, found } = rise;
    if to > VALUE_MAX {
        make_dense(text)?;
        dense_set(text, register, to);
        return Ok(());
    }
    let found = match found {
        Some(found) => found,
        None => find(text, register)?,
    };
    let (before, behind) = (register - found.first, found.first + found.run.len() - register - 1);
    let mut new = Vec::with_capacity(5);
    if before > 0 {
        found.run.of_len(before).write(&mut new);
    }
    Run::Value(to, 1).write(&mut new);
    if behind > 0 {
        found.run.of_len(behind).write(&mut new);
    }
    let grows = new.len().saturating_sub(found.bytes);
    if grows > 0 && text.len() + grows > bytes_max {
        make_dense(text)?;
        dense_set(text, register, to);
        return Ok(());
    }
    text.splice(found.at..found.at + found.bytes, new);
    merge(text, found.before.unwrap_or(HEADER_BYTES));
    Ok(())
}

/// Joins runs of one value around a change. As far as Redis does, or bytes would differ.
fn merge(text: &mut Vec<u8>, mut at: usize) {
    const LOOKED_AT: usize = 5;
    for _ in 0..LOOKED_AT {
        let Some(Place { run, bytes, .. }) = run_at(text, at) else { return };
        if let Run::Value(value, len) = run
            && let Some(Place { run: Run::Value(next, more), .. }) = run_at(text, at + 1)
            && value == next
            && len + more <= VALUE_RUN_MAX
        {
            text.remove(at);
            text[at] = 0x80 | (value - 1) << 2 | (len + more - 1) as u8;
            continue;
        }
        at += bytes;
    }
}

fn unpacked([a, b, c]: [u8; 3]) -> [u8; 4] {
    [a & 0x3f, a >> 6 | (b & 0xf) << 2, b >> 4 | (c & 3) << 4, c >> 2]
}

fn dense_get(text: &[u8], register: usize) -> u8 {
    let bit = register * REGISTER_BITS;
    let at = HEADER_BYTES + bit / 8;
    let next = text.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([text[at], next]) >> (bit % 8)) as u8 & 0x3f
}

fn dense_set(text: &mut [u8], register: usize, value: u8) {
    let bit = register * REGISTER_BITS;
    let at = HEADER_BYTES + bit / 8;
    let next = text.get(at + 1).copied().unwrap_or(0);
    let word = u16::from_le_bytes([text[at], next]) & !(0x3f << (bit % 8));
    let [low, high] = (word | u16::from(value) << (bit % 8)).to_le_bytes();
    text[at] = low;
    if let Some(next) = text.get_mut(at + 1) {
        *next = high;
    }
}

/// How many elements leave so many registers at each value.
fn estimate(histogram: &[u32; 64]) -> u64 {
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let registers = REGISTERS as f64;
    let full = f64::from(histogram[RANK_MAX]);
    let mut z = registers * tau((registers - full) / registers);
    for &count in histogram[1..RANK_MAX].iter().rev() {
        z = (z + f64::from(count)) * 0.5;
    }
    z += registers * sigma(f64::from(histogram[0]) / registers);
    // Without end when all are zero: then the quotient is 0.
    (ALPHA * registers * registers / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

/// MurmurHash64A with the seed that Redis uses.
fn murmur(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(text: &mut Vec<u8>, element: &[u8], sparse_bytes_max: usize) {
        if let Some(rise) = rise(text, element).expect("ours") {
            raise(text, rise, sparse_bytes_max).expect("ours");
        }
    }

    #[test]
    fn sparse_and_dense_tell_the_same() {
        let (mut sparse, mut dense) = (empty(), empty());
        make_dense(&mut dense).expect("ours");
        let mut union = Union::default();
        for number in 0..20_000_u32 {
            let element = number.to_string();
            add(&mut sparse, element.as_bytes(), usize::MAX);
            add(&mut dense, element.as_bytes(), 0);
            if number.is_power_of_two() || number % 997 == 0 {
                check(&sparse).expect("ours");
                let count = count(&dense).expect("ours");
                assert_eq!(super::count(&sparse), Ok(count), "at {number}");
                assert!(count.abs_diff(u64::from(number) + 1) <= u64::from(number) / 30 + 1);
            }
        }
        union.add(&sparse).expect("ours");
        assert_eq!(Ok(union.count()), count(&dense));
        let mut merged = empty();
        union.raise_all(&mut merged, 3000).expect("ours");
        make_dense(&mut sparse).expect("ours");
        assert_eq!(merged, sparse);
        assert_eq!(sparse, dense);
    }

    #[test]
    fn nothing_seen_is_none() {
        assert_eq!(count(&empty()), Ok(0));
        assert_eq!(noted_count(&empty()), Some(0));
        assert_eq!(Union::default().count(), 0);
    }

    #[test]
    fn every_register_of_a_dense_one() {
        let mut text = vec![0; DENSE_BYTES];
        let value = |register: usize| (register * 7 % 51) as u8;
        for register in (0..REGISTERS).rev() {
            dense_set(&mut text, register, 63);
            dense_set(&mut text, register, value(register));
        }
        assert!(registers(&text).eq((0..REGISTERS).map(value)));
        assert!((0..REGISTERS).all(|register| dense_get(&text, register) == value(register)));
    }

    #[test]
    fn a_register_is_found_where_the_runs_have_it() {
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize
        };
        // Few elements leave long runs of zeros, many leave short ones; the last are no HyperLogLogs.
        for elements in [0, 1, 3, 30, 100, 300, 1000, 5000, 0, 0, 0] {
            let mut text = empty();
            (0..elements).for_each(|_| add(&mut text, &next().to_le_bytes(), usize::MAX));
            if elements == 0 {
                (0..500).for_each(|_| text.push(next() as u8));
            }
            let (mut first, mut before) = (0, None);
            for place in runs(&text) {
                let Some(Place { run, at, bytes }) = place else { break };
                let found = Found { run, at, bytes, first, before };
                for register in [first, first + run.len() / 2, first + run.len() - 1] {
                    assert_eq!(find(&text, register), Ok(found), "{register} of {elements}");
                }
                first += run.len();
                before = Some(at);
            }
            assert_eq!(find(&text, first), Err(Corrupted));
        }
    }

    #[test]
    fn what_is_no_sparse_one_is_refused_and_nothing_worse() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize
        };
        for _ in 0..2000 {
            let mut text = empty();
            (0..200).for_each(|_| add(&mut text, &next().to_le_bytes(), 3000));
            if next() % 2 == 0 {
                text.truncate(HEADER_BYTES + next() % (text.len() - HEADER_BYTES));
            }
            if text.len() > HEADER_BYTES {
                let at = HEADER_BYTES + next() % (text.len() - HEADER_BYTES);
                text[at] = next() as u8;
            }
            let is_whole = check(&text).is_ok();
            assert_eq!(count(&text).is_ok(), is_whole);
            assert_eq!(Union::default().add(&text).is_ok(), is_whole);
            for _ in 0..50 {
                if let Ok(Some(rise)) = rise(&text, &next().to_le_bytes()) {
                    assert!(raise(&mut text, rise, 400).is_ok() || !is_whole);
                }
            }
        }
    }
}
