//! Random commands from templates over a handful of keys and members, for scripts that are ended at a
//! random moment (`undone`): types clash, collections grow and shrink.

use super::Random;

/// Templates; `[a|b]` draws one alternative, `{…}` is there or not, `…*` repeats one to three
/// times. Words starting with `$` are drawn by `draw`.
const TEMPLATES: &[&str] = &[
    // strings
    "SET $k $v",
    "SET $k $v [NX|XX|GET|KEEPTTL|EX 100000|PX 100000000|XX GET|NX GET|FOO]",
    "SETNX $k $v",
    "SETEX $k $ttl $v",
    "GET $k",
    "GETSET $k $v",
    "GETDEL $k",
    "GETEX $k {[PERSIST|EX 100000|PXAT 33177117420000|FOO]}",
    "MGET $k $k $k",
    "MSET $k $v $k $v",
    "MSETNX $k $v $k $v",
    "APPEND $k $v",
    "STRLEN $k",
    "GETRANGE $k $i $i",
    "SETRANGE $k $small $v",
    "INCR $k",
    "DECR $k",
    "INCRBY $k $n",
    "DECRBY $k $n",
    "INCRBYFLOAT $k $f",
    "LCS $k $k {[LEN|IDX|IDX WITHMATCHLEN|IDX MINMATCHLEN 2]}",
    // keys
    "DEL $k $k",
    "UNLINK $k",
    "EXISTS $k $k",
    "TOUCH $k $k",
    "TYPE $k",
    "EXPIRE $k $ttl {[NX|XX|GT|LT]}",
    "PEXPIREAT $k 33177117420000 {[NX|XX|GT|LT]}",
    "EXPIREAT $k $n",
    "PERSIST $k",
    "TTL $k",
    "PTTL $k",
    "EXPIRETIME $k",
    "RENAME $k $k",
    "RENAMENX $k $k",
    "COPY $k $k {REPLACE}",
    "KEYS [*|k*|?1|[k]2]",
    "DBSIZE",
    // lists
    "[LPUSH|RPUSH] $k $m*",
    "[LPUSHX|RPUSHX] $k $m*",
    "[LPOP|RPOP] $k {$count}",
    "LLEN $k",
    "LRANGE $k $i $i",
    "LINDEX $k $i",
    "LSET $k $i $m",
    "LINSERT $k [BEFORE|AFTER|HERE] $m $m",
    "LREM $k $i $m",
    "LTRIM $k $i $i",
    "LPOS $k $m {RANK $i} {COUNT $count} {MAXLEN $count}",
    "LMOVE $k $k [LEFT|RIGHT] [LEFT|RIGHT]",
    "RPOPLPUSH $k $k",
    "LMPOP 2 $k $k [LEFT|RIGHT] {COUNT $count}",
    // hashes
    "HSET $k $m $v $m $v",
    "HSETNX $k $m $v",
    "HGET $k $m",
    "HMGET $k $m $m $m",
    "HDEL $k $m*",
    "HGETALL $k",
    "[HKEYS|HVALS|HLEN] $k",
    "HEXISTS $k $m",
    "HSTRLEN $k $m",
    "HINCRBY $k $m $n",
    "HINCRBYFLOAT $k $m $f",
    // sets
    "SADD $k $m*",
    "SREM $k $m*",
    "SCARD $k",
    "SISMEMBER $k $m",
    "SMISMEMBER $k $m $m",
    "SMEMBERS $k",
    "SMOVE $k $k $m",
    "[SINTER|SUNION|SDIFF] $k $k",
    "[SINTERSTORE|SUNIONSTORE|SDIFFSTORE] $k $k $k",
    "SINTERCARD 2 $k $k {LIMIT $count}",
    // sorted sets
    "ZADD $k $s $m $s $m",
    "ZADD $k [NX|XX|GT|LT|CH|NX CH|XX CH|GT CH|LT CH|XX GT|NX GT] $s $m $s $m",
    "ZADD $k {[XX|NX|GT|LT]} INCR $s $m",
    "ZINCRBY $k $s $m",
    "ZREM $k $m*",
    "ZCARD $k",
    "ZSCORE $k $m",
    "ZMSCORE $k $m $m",
    "[ZRANK|ZREVRANK] $k $m",
    "ZRANGE $k $i $i {REV} {WITHSCORES}",
    "ZRANGE $k $b $b BYSCORE {REV} {LIMIT $small $i} {WITHSCORES}",
    "ZRANGE $x $lex $lex BYLEX {REV} {LIMIT $small $i}",
    "ZREVRANGE $k $i $i {WITHSCORES}",
    "[ZRANGEBYSCORE|ZREVRANGEBYSCORE] $k $b $b {WITHSCORES} {LIMIT $small $i}",
    "[ZRANGEBYLEX|ZREVRANGEBYLEX] $x $lex $lex {LIMIT $small $i}",
    "ZCOUNT $k $b $b",
    "ZLEXCOUNT $x $lex $lex",
    // Ranges of members mean something only where all scores are the same.
    "ZADD $x {[NX|XX|CH]} 0 $m 0 $m 0 $m",
    "ZREM $x $m",
    "[ZUNIONSTORE|ZINTERSTORE] $x 2 $x $x",
    "ZRANGESTORE $x $x $lex $lex BYLEX",
    "ZREMRANGEBYRANK $k $i $i",
    "ZREMRANGEBYSCORE $k $b $b",
    "ZREMRANGEBYLEX $x $lex $lex",
    "[ZPOPMIN|ZPOPMAX] $k {$count}",
    "ZMPOP 2 $k $k [MIN|MAX] {COUNT $count}",
    "ZRANGESTORE $k $k $i $i {REV}",
    "ZRANGESTORE $k $k $b $b BYSCORE {LIMIT $small $i}",
    "[ZUNION|ZINTER|ZDIFF] 2 $k $k {WITHSCORES}",
    "[ZUNION|ZINTER] 2 $k $k WEIGHTS 2 -1 {AGGREGATE [SUM|MIN|MAX]} WITHSCORES",
    "[ZUNIONSTORE|ZINTERSTORE] $k 2 $k $k {WEIGHTS 2 3} {AGGREGATE [SUM|MIN|MAX]}",
    "ZDIFFSTORE $k 2 $k $k",
    "ZINTERCARD 2 $k $k {LIMIT $count}",
    // blocking commands that cannot block for long
    "[BLPOP|BRPOP] $k $k 0.001",
    "BLMOVE $k $k [LEFT|RIGHT] [LEFT|RIGHT] 0.001",
    "[BZPOPMIN|BZPOPMAX] $k 0.001",
];

/// A command at random, blocking ones only with timeouts of next to nothing.
pub(super) fn command(random: &mut Random) -> Vec<String> {
    let template = TEMPLATES[random.below(TEMPLATES.len())];
    let mut words = Vec::new();
    expand(template, random, &mut words);
    words
}

/// Expands one template; groups do not nest except `{…[…]…}`.
fn expand(template: &str, random: &mut Random, words: &mut Vec<String>) {
    let mut rest = template.trim();
    while !rest.is_empty() {
        let first = rest.as_bytes()[0];
        if first == b'{' || (first == b'[' && rest.contains('|')) {
            let close = closing(rest);
            let inner = &rest[1..close];
            rest = rest[close + 1..].trim_start();
            if first == b'{' {
                if random.below(3) == 0 {
                    expand(inner, random, words);
                }
            } else {
                let choices: Vec<&str> = inner.split('|').collect();
                expand(choices[random.below(choices.len())], random, words);
            }
            continue;
        }
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after.trim_start();
        match word.strip_suffix('*').filter(|word| word.starts_with('$')) {
            Some(repeated) => {
                for _ in 0..=random.below(3) {
                    words.push(draw(repeated, random));
                }
            }
            None if word.starts_with('$') => words.push(draw(word, random)),
            None => words.push(word.to_owned()),
        }
    }
}

/// Where the bracket at the start of a text is closed.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    text.len() - 1
}

fn draw(kind: &str, random: &mut Random) -> String {
    let pick =
        |random: &mut Random, choices: &[&str]| choices[random.below(choices.len())].to_owned();
    match kind {
        "$k" => format!("k{}", random.below(8)),
        "$x" => format!("lex{}", random.below(3)),
        "$m" => match random.below(4) {
            0 => random.below(12).to_string(),
            1 => pick(random, &["a", "b", "aa", "ab", "", "Z", "é"]),
            2 => "long".repeat(random.below(30)),
            _ => format!("m{}", random.below(40)),
        },
        "$v" => match random.below(5) {
            0 => (random.below(2000) as i64 - 1000).to_string(),
            1 => pick(random, &["", "abc", "3.5", "9223372036854775807", " 1", "0x10", "1e3"]),
            2 => "v".repeat(random.below(80)),
            _ => format!("value{}", random.below(10)),
        },
        "$n" => pick(
            random,
            &["1", "-1", "5", "100", "-9223372036854775808", "x", "9223372036854775807"],
        ),
        "$f" => pick(random, &["1", "0.5", "-2.25", "100.125", "x", "3"]),
        "$s" => pick(random, &["1", "2", "-1", "0.5", "2.25", "inf", "-inf", "100", "3", "3", "x"]),
        "$i" => pick(random, &["0", "1", "2", "3", "5", "-1", "-2", "-3", "100", "-100", "x"]),
        "$small" => pick(random, &["0", "1", "2", "3", "10"]),
        "$count" => pick(random, &["0", "1", "2", "3", "10", "-1", "x"]),
        "$ttl" => pick(random, &["100000", "200000", "0", "-1", "x"]),
        "$b" => pick(random, &["-inf", "+inf", "0", "1", "(1", "2", "(3", "0.5", "x", "100"]),
        "$lex" => pick(random, &["-", "+", "[a", "(a", "[m1", "(m2", "[b", "x"]),
        other => other.to_owned(),
    }
}
