//! `memory_bytes` is what the allocator really gave: checked against a counting allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use data::{Hash, Limits, List, Set, Zset, class_size};

struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes every call on to the system allocator and only counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.with(|live| live.set(live.get().wrapping_add(class_size(layout.size()))));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.with(|live| live.set(live.get().wrapping_sub(class_size(layout.size()))));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Builds a value, changes it in steps, and compares after each.
fn check<T>(
    build: impl FnOnce() -> T,
    change: impl Fn(&mut T, usize),
    bytes: impl Fn(&T) -> usize,
) {
    data::hash_bytes(b"the hasher's keys are drawn before counting");
    let before = LIVE_BYTES.get();
    let mut value = build();
    for step in 0..2000 {
        change(&mut value, step);
        assert_eq!(LIVE_BYTES.get().wrapping_sub(before), bytes(&value), "step {step}");
    }
    drop(value);
    assert_eq!(LIVE_BYTES.get(), before, "everything is given back");
}

/// Text of a number on the stack, some of them long.
fn text(number: usize) -> ([u8; 400], usize) {
    let mut buffer = [b'x'; 400];
    let digits = data::number::format_i64(number as i64 * 7919);
    buffer[..digits.len()].copy_from_slice(&digits);
    let len = if number.is_multiple_of(17) { 100 + number % 300 } else { digits.len() };
    (buffer, len)
}

#[test]
fn collections_know_their_size() {
    let limits = Limits { set_max_intset_entries: 40, ..Limits::default() };
    let growing = |step: usize| step < 1200 || step.is_multiple_of(3);
    check(
        Set::new,
        |set, step| {
            let (buffer, len) = text(if growing(step) { step } else { step - 1200 });
            // Integers alone for a while, so that all three encodings come up.
            let len = if step < 30 { len.min(5) } else { len };
            if growing(step) {
                set.add(&buffer[..len], &limits);
            } else {
                set.remove(&buffer[..len]);
            }
        },
        Set::memory_bytes,
    );
    check(
        Hash::new,
        |hash, step| {
            let (field, field_len) = text(if growing(step) { step % 900 } else { step - 1200 });
            let (value, value_len) = text(step / 2);
            if growing(step) {
                hash.set(&field[..field_len], &value[..value_len], &limits);
            } else {
                hash.remove(&field[..field_len]);
            }
        },
        Hash::memory_bytes,
    );
    check(
        Zset::new,
        |zset, step| {
            let (member, len) = text(if growing(step) { step % 900 } else { step - 1200 });
            if growing(step) {
                zset.insert(&member[..len], (step * 7919 % 1000) as f64, &limits);
            } else {
                zset.remove(&member[..len]);
            }
        },
        Zset::memory_bytes,
    );
    check(
        List::new,
        |list, step| {
            let (element, len) = text(step);
            if growing(step) {
                list.insert(list.len() / 3, &element[..len], &limits);
            } else {
                list.pop_with(data::End::Head, &limits, |_| ());
                list.pop_with(data::End::Tail, &limits, |_| ());
            }
        },
        List::memory_bytes,
    );
}
