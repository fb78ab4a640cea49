//! Time and memory of the collections beside `std`: `cargo run --release -p data --example
//! collections`. Times are CPU time of the thread, but caches are shared: read ratios, not digits.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use data::{Bytes, End, Hash, Limits, List, Set, Table, Zset, class_size, hash_bytes};

/// Counts what jemalloc would give for every live allocation.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to the system allocator and only counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(class_size(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(class_size(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(class_size(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn time(name: &str, count: usize, mut work: impl FnMut()) {
    let start = cpu_ns();
    work();
    println!("  {name:<34} {:>8.1} ns", (cpu_ns() - start) as f64 / count as f64);
}

/// Runs `build` and prints the bytes its result holds per element.
fn weigh<T>(name: &str, count: usize, build: impl FnOnce() -> T) -> T {
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let start = cpu_ns();
    let built = build();
    let ns = (cpu_ns() - start) as f64 / count as f64;
    let bytes = (LIVE_BYTES.load(Ordering::Relaxed) - before) as f64 / count as f64;
    println!("{name:<36} {bytes:>8.1} B, built in {ns:.0} ns, each of {count}");
    built
}

/// Distinct numbers in a scattered order.
fn scattered(i: usize) -> usize {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn tables(count: usize) {
    let names: Vec<Vec<u8>> =
        (0..count).map(|i| format!("key:{:012}", scattered(i)).into_bytes()).collect();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|i| scattered(i.wrapping_mul(7919)));
    let hasher = |bytes: &Bytes| hash_bytes(bytes);

    let map = weigh("std HashMap<Box<[u8]>, ()>", count, || {
        let mut map: HashMap<Box<[u8]>, (), ahash::RandomState> = HashMap::default();
        for name in &names {
            map.insert(name.as_slice().into(), ());
        }
        map
    });
    time("find", count, || {
        for &i in &order {
            assert!(map.contains_key(names[i].as_slice()));
        }
    });
    drop(map);

    let mut table = weigh("Table<Bytes>", count, || {
        let mut table: Table<Bytes> = Table::new();
        for name in &names {
            table.insert_unique(hash_bytes(name), Bytes::new(name), hasher);
        }
        table
    });
    println!("  buckets alone: {:.1} B", table.memory_bytes() as f64 / count as f64);
    time("find", count, || {
        for &i in &order {
            let name = names[i].as_slice();
            assert!(table.find(hash_bytes(name), |stored| stored.as_slice() == name).is_some());
        }
    });
    time("find, absent", count, || {
        for &i in &order {
            let name = &names[i][1..];
            assert!(table.find(hash_bytes(name), |stored| stored.as_slice() == name).is_none());
        }
    });
    time("scan", count, || {
        let mut cursor = 0;
        loop {
            cursor = table.scan(cursor, |stored| {
                black_box(stored.len());
            });
            if cursor == 0 {
                break;
            }
        }
    });
    let mut seed = 1u64;
    let mut rng = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed ^ (seed >> 32)
    };
    time("random", count, || {
        for _ in 0..count {
            black_box(table.random(&mut rng));
        }
    });
    time("remove", count, || {
        for &i in &order {
            let name = names[i].as_slice();
            table.remove(hash_bytes(name), |stored| stored.as_slice() == name, hasher);
        }
    });
}

fn lists() {
    let limits = Limits::default();
    let count = 1_000_000;
    let mut list = weigh("List of 16-byte elements", count, || {
        let mut list = List::new();
        for _ in 0..count {
            list.push_front(b"0123456789abcdef", &limits);
        }
        list
    });
    time("pop_back", count, || {
        for _ in 0..count {
            black_box(list.pop_with(End::Tail, &limits, |value| value.len()));
        }
    });
    for len in [5, 400, 5000] {
        let mut list = List::new();
        for _ in 0..len {
            list.push_back(b"0123456789abcdef", &limits);
        }
        for (name, push, pop) in [
            ("push back, pop front", End::Tail, End::Head),
            ("push front, pop back", End::Head, End::Tail),
        ] {
            time(&format!("{name}, {len} long"), count, || {
                for _ in 0..count {
                    list.push(push, b"0123456789abcdef", &limits);
                    black_box(list.pop_with(pop, &limits, |value| value.len()));
                }
            });
        }
    }
}

fn hashes() {
    let limits = Limits::default();
    let small = 100_000;
    let mut all = weigh("Hash of 5 fields (3 + 10 bytes)", small, || {
        (0..small)
            .map(|_| {
                let mut hash = Hash::new();
                for field in 0..5 {
                    hash.set(format!("f{field:02}").as_bytes(), b"0123456789", &limits);
                }
                hash
            })
            .collect::<Vec<_>>()
    });
    time("get", small, || {
        for hash in &all {
            black_box(hash.get(b"f03"));
        }
    });
    time("overwrite", small, || {
        for hash in &mut all {
            black_box(hash.set(b"f03", b"9876543210", &limits));
        }
    });
    let count = 1_000_000;
    let hash = weigh("Hash field (12 + 10 bytes)", count, || {
        let mut hash = Hash::new();
        for i in 0..count {
            hash.set(format!("field{i:07}").as_bytes(), b"0123456789", &limits);
        }
        hash
    });
    drop(hash);
}

fn sets() {
    let limits = Limits::default();
    let count = 1_000_000;
    weigh("Set member (12 bytes)", count, || {
        let mut set = Set::new();
        for i in 0..count {
            set.add(format!("member{i:06}").as_bytes(), &limits);
        }
        set
    });
    let small = 100_000;
    weigh("Set of 10 integers", small, || {
        (0..small)
            .map(|_| {
                let mut set = Set::new();
                for i in 0..10 {
                    set.add((i * 1000).to_string().as_bytes(), &limits);
                }
                set
            })
            .collect::<Vec<_>>()
    });
}

fn zsets() {
    let limits = Limits::default();
    for len in [20, 100] {
        let small = 1_000_000 / len;
        weigh(&format!("Zset of {len} (member of 8 bytes)"), small, || {
            (0..small)
                .map(|_| {
                    let mut zset = Zset::new();
                    for i in 0..len {
                        let member = format!("member{:02}", scattered(i) % 97);
                        zset.insert(member.as_bytes(), (i * 7 % 31) as f64, &limits);
                    }
                    zset
                })
                .collect::<Vec<_>>()
        });
    }
    let count = 1_000_000;
    for (name, ascending) in
        [("Zset member (12 bytes), ascending", true), ("Zset member, random", false)]
    {
        let score = |i: usize| if ascending { i as f64 } else { scattered(i) as f64 };
        let mut zset = weigh(name, count, || {
            let mut zset = Zset::new();
            for i in 0..count {
                zset.insert(format!("member{i:06}").as_bytes(), score(i), &limits);
            }
            zset
        });
        let members: Vec<String> =
            (0..count).map(|i| format!("member{:06}", scattered(i) % count)).collect();
        time("score", count, || {
            for member in &members {
                black_box(zset.score(member.as_bytes()));
            }
        });
        time("rank", count, || {
            for member in &members {
                black_box(zset.rank(member.as_bytes()));
            }
        });
        time("rescore a little", count, || {
            for (i, member) in members.iter().enumerate() {
                zset.insert(member.as_bytes(), score(i % count) + 0.5, &limits);
            }
        });
        time("walk", count, || {
            for (member, _) in zset.iter() {
                black_box(member.len());
            }
        });
        time("range of 10 by rank", count, || {
            for i in 0..count {
                let start = scattered(i) % (count - 10);
                black_box(
                    zset.range(start..start + 10).map(|(member, _)| member.len()).sum::<usize>(),
                );
            }
        });
        time("pop_min", count, || while zset.pop_min().is_some() {});
    }
}

fn main() {
    for count in [1000, 50_000, 1_000_000] {
        println!("--- {count} keys");
        tables(count);
    }
    println!("--- collections");
    lists();
    hashes();
    sets();
    zsets();
}
