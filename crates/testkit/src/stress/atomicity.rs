//! Transactions and scripts under many clients: nothing lost, nothing doubled, nothing half.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Arena, Random, Verdict, call, connect, expect, in_threads, integer};
use crate::value::Value;

const MERGE: &str = "local stored = redis.call('GET', KEYS[1])
local list = stored and cjson.decode(stored) or {}
for _, element in ipairs(cjson.decode(ARGV[1])) do list[#list + 1] = element end
local merged = cjson.encode(list)
redis.call('SET', KEYS[1], merged)
return merged";

/// Producers append JSON elements by script, consumers take the list by MULTI, GET, DEL, EXEC.
pub fn exactly_once(arena: &Arena) -> Verdict {
    const PRODUCERS: usize = 8;
    const CONSUMERS: usize = 4;
    const BATCH: usize = 20;
    let total = arena.count(240_000) / (PRODUCERS * BATCH) * (PRODUCERS * BATCH);
    let server = arena.start(4, &[])?;
    let seen: Vec<AtomicU8> = (0..total).map(|_| AtomicU8::new(0)).collect();
    let consumed = AtomicUsize::new(0);
    let keys = ["queue:a", "queue:b", "queue:c"];
    let deadline = Instant::now() + Duration::from_secs(240);
    in_threads(PRODUCERS + CONSUMERS, |number| {
        let mut client = connect(&server)?;
        if number < PRODUCERS {
            let share = total / PRODUCERS;
            for first in (number * share..(number + 1) * share).step_by(BATCH) {
                let ids: Vec<String> =
                    (first..first + BATCH).map(|id| format!("{{\"id\":{id}}}")).collect();
                let json = format!("[{}]", ids.join(","));
                let key = keys[(number + first / BATCH) % keys.len()];
                call(&mut client, &["EVAL", MERGE, "1", key, &json])?;
            }
            return Ok(());
        }
        let mut turn = number;
        while consumed.load(Ordering::Acquire) < total {
            expect(Instant::now() < deadline, || {
                format!("only {} of {total} arrived in time", consumed.load(Ordering::Acquire))
            })?;
            let key = keys[turn % keys.len()];
            turn += 1;
            call(&mut client, &["MULTI"])?;
            call(&mut client, &["GET", key])?;
            call(&mut client, &["DEL", key])?;
            let reply = call(&mut client, &["EXEC"])?;
            let Some([value, deleted]) = reply.elements() else {
                return Err(format!("EXEC answered {}", reply.to_talk()));
            };
            let Some(json) = value.text() else {
                expect(*deleted == Value::Integer(0), || "DEL found what GET did not".into())?;
                continue;
            };
            expect(*deleted == Value::Integer(1), || "GET found what DEL did not".into())?;
            let mut count = 0;
            for element in json.split("\"id\":").skip(1) {
                let digits: String = element.chars().take_while(char::is_ascii_digit).collect();
                let id: usize = digits.parse().map_err(|_| format!("odd element {element}"))?;
                let cell = seen.get(id).ok_or_else(|| format!("element {id} was never sent"))?;
                expect(cell.fetch_add(1, Ordering::AcqRel) == 0, || format!("{id} came twice"))?;
                count += 1;
            }
            consumed.fetch_add(count, Ordering::AcqRel);
        }
        Ok(())
    })?;
    let missing = seen.iter().filter(|cell| cell.load(Ordering::Acquire) == 0).count();
    expect(missing == 0, || format!("{missing} of {total} were lost"))?;
    let left = integer(&mut connect(&server)?, &["DBSIZE"])?;
    expect(left == 0, || format!("{left} keys are left"))?;
    Ok(format!("{total} elements"))
}

/// WATCH, GET, MULTI, SET, EXEC until it succeeds.
pub fn watched_counters(arena: &Arena) -> Verdict {
    const CLIENTS: usize = 6;
    let each = arena.count(3_000);
    let server = arena.start(4, &[])?;
    let retries = AtomicUsize::new(0);
    in_threads(CLIENTS, |number| {
        let mut client = connect(&server)?;
        let mut random = Random::new(arena.seed + number as u64);
        for _ in 0..each {
            let key = format!("counter:{}", random.below(3));
            loop {
                call(&mut client, &["WATCH", &key])?;
                let value = call(&mut client, &["GET", &key])?.integer().unwrap_or(0);
                call(&mut client, &["MULTI"])?;
                call(&mut client, &["SET", &key, &(value + 1).to_string()])?;
                match call(&mut client, &["EXEC"])? {
                    Value::Array(_) => break,
                    Value::NilArray => retries.fetch_add(1, Ordering::Relaxed),
                    other => return Err(format!("EXEC answered {}", other.to_talk())),
                };
            }
        }
        Ok(())
    })?;
    let mut client = connect(&server)?;
    let mut sum = 0;
    for number in 0..3 {
        let key = format!("counter:{number}");
        sum += call(&mut client, &["GET", &key])?.integer().unwrap_or(0);
    }
    let wanted = (CLIENTS * each) as i64;
    expect(sum == wanted, || format!("{sum} instead of {wanted}; seed {}", arena.seed))?;
    Ok(format!("{wanted} increments, {} retries", retries.into_inner()))
}

/// Writers set ten keys to one value; whoever reads all ten must find one value.
pub fn seen_whole(arena: &Arena) -> Verdict {
    const KEYS: usize = 10;
    let server = arena.start(4, &[])?;
    let names: Vec<String> = (0..KEYS).map(|number| format!("part:{number}")).collect();
    let done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    let rounds = arena.count(20_000);
    in_threads(6, |number| {
        let mut client = connect(&server)?;
        if number < 3 {
            for round in 0..rounds {
                let value = format!("{number}:{round}");
                match number {
                    0 => {
                        let mut command = vec!["MSET"];
                        for name in &names {
                            command.extend([name.as_str(), &value]);
                        }
                        call(&mut client, &command)?;
                    }
                    1 => {
                        call(&mut client, &["MULTI"])?;
                        for name in &names {
                            call(&mut client, &["SET", name, &value])?;
                        }
                        call(&mut client, &["EXEC"])?;
                    }
                    _ => {
                        let script = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[1]) end";
                        let count = KEYS.to_string();
                        let mut command = vec!["EVAL", script, &count];
                        command.extend(names.iter().map(String::as_str));
                        command.push(&value);
                        call(&mut client, &command)?;
                    }
                }
                if round * 10 > rounds && done.load(Ordering::Acquire) {
                    break;
                }
            }
            done.store(true, Ordering::Release);
            return Ok(());
        }
        while !done.load(Ordering::Acquire) {
            let values = if number == 5 {
                let script = "return redis.call('MGET', unpack(KEYS))";
                let count = KEYS.to_string();
                let mut command = vec!["EVAL", script, &count];
                command.extend(names.iter().map(String::as_str));
                call(&mut client, &command)?
            } else {
                let mut command = vec!["MGET"];
                command.extend(names.iter().map(String::as_str));
                call(&mut client, &command)?
            };
            let items = values.elements().unwrap_or_default();
            let same = items.len() == KEYS && items.windows(2).all(|pair| pair[0] == pair[1]);
            expect(same, || format!("half a write was seen: {}", values.to_talk()))?;
            reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(format!("{} consistent reads", reads.into_inner()))
}

/// Elements wander between keys by LMOVE, SMOVE, RENAME, EXEC and scripts; their number stays.
pub fn conserved(arena: &Arena) -> Verdict {
    const LISTS: usize = 8;
    const ELEMENTS: usize = 400;
    let each = arena.count(20_000);
    let server = arena.start(4, &[])?;
    let mut client = connect(&server)?;
    for element in 0..ELEMENTS {
        let list = format!("list:{}", element % LISTS);
        call(&mut client, &["RPUSH", &list, &element.to_string()])?;
        let set = format!("set:{}", element % LISTS);
        call(&mut client, &["SADD", &set, &element.to_string()])?;
    }
    let count = "local n = 0
        for i = 0, 7 do n = n + redis.call('LLEN', 'list:' .. i) + redis.call('SCARD', 'set:' .. i) end
        return n";
    in_threads(6, |number| {
        let mut client = connect(&server)?;
        let mut random = Random::new(arena.seed + number as u64);
        for round in 0..each {
            let (from, to) = (random.below(LISTS), random.below(LISTS));
            let (list, other) = (format!("list:{from}"), format!("list:{to}"));
            match random.below(5) {
                0 => call(&mut client, &["LMOVE", &list, &other, "LEFT", "RIGHT"])?,
                1 => call(&mut client, &["RPOPLPUSH", &list, &other])?,
                2 => {
                    let (from, to) = (format!("set:{from}"), format!("set:{to}"));
                    let member = random.below(ELEMENTS).to_string();
                    call(&mut client, &["SMOVE", &from, &to, &member])?
                }
                3 => {
                    call(&mut client, &["MULTI"])?;
                    call(&mut client, &["LMOVE", &list, &other, "RIGHT", "LEFT"])?;
                    call(&mut client, &["LMOVE", &other, &list, "RIGHT", "LEFT"])?;
                    call(&mut client, &["EXEC"])?
                }
                _ => {
                    let script = "local e = redis.call('LPOP', KEYS[1])
                        if e then redis.call('RPUSH', KEYS[2], e) end return e";
                    call(&mut client, &["EVAL", script, "2", &list, &other])?
                }
            };
            if round % 100 == 0 {
                let total = integer(&mut client, &["EVAL", count, "0"])?;
                expect(total == 2 * ELEMENTS as i64, || {
                    format!("a script counted {total} elements; seed {}", arena.seed)
                })?;
            }
        }
        Ok(())
    })?;
    let mut found: Vec<String> = Vec::new();
    for number in 0..LISTS {
        let list = format!("list:{number}");
        let items = call(&mut client, &["LRANGE", &list, "0", "-1"])?;
        found.extend(items.elements().unwrap_or_default().iter().filter_map(Value::text));
    }
    found.sort();
    found.dedup();
    expect(found.len() == ELEMENTS, || {
        format!("{} of {ELEMENTS} list elements are left; seed {}", found.len(), arena.seed)
    })?;
    Ok(format!("{} moves", 6 * each))
}

/// Scripts that touch keys they did not declare, as most scripts of real libraries do.
pub fn undeclared_keys(arena: &Arena) -> Verdict {
    let each = arena.count(10_000);
    let server = arena.start(4, &[])?;
    let script = "local n = redis.call('INCR', KEYS[1] .. ':id')
        redis.call('HSET', KEYS[1] .. ':' .. n, 'n', n)
        redis.call('LPUSH', KEYS[1] .. ':wait', n)
        redis.call('ZADD', 'all', n, KEYS[1] .. n)
        redis.call('INCR', 'total')
        return n";
    in_threads(6, |number| {
        let mut client = connect(&server)?;
        let key = format!("jobs{}", number % 3);
        let mut last = 0;
        for _ in 0..each {
            let n = integer(&mut client, &["EVAL", script, "1", &key])?;
            expect(n > last, || format!("{n} after {last}"))?;
            last = n;
        }
        Ok(())
    })?;
    let mut client = connect(&server)?;
    let wanted = 6 * each as i64;
    let total = integer(&mut client, &["GET", "total"])?;
    expect(total == wanted, || format!("total is {total} instead of {wanted}"))?;
    let all = integer(&mut client, &["ZCARD", "all"])?;
    expect(all == wanted, || format!("the sorted set holds {all} instead of {wanted}"))?;
    for queue in 0..3 {
        let (id, wait) = (format!("jobs{queue}:id"), format!("jobs{queue}:wait"));
        let ids = integer(&mut client, &["GET", &id])?;
        let waiting = integer(&mut client, &["LLEN", &wait])?;
        expect(ids == waiting, || format!("{ids} ids but {waiting} waiting"))?;
    }
    Ok(format!("{wanted} runs"))
}
