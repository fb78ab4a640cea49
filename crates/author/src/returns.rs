//! What commands answer to a script that did not ask for RESP3. Rows say nothing of replies, so
//! it stands here, for the commands whose reply has one form.

/// Types as editors know them, and the commands that answer with them.
pub const RETURNS: &[(&str, &str)] = &[
    (
        "integer",
        "append bitcount copy dbsize decr decrby del exists expire expireat expiretime getbit hdel \
         hexists hincrby hlen hset hsetnx hstrlen incr incrby linsert llen lpush lpushx lrem \
         msetnx move persist pexpire pexpireat pexpiretime publish pttl renamenx rpush rpushx sadd \
         scard sdiffstore setnx setrange sinterstore sintercard sismember smove spublish srem \
         strlen sunionstore touch ttl unlink zcard zcount zdiffstore zinterstore zintercard \
         zlexcount zrangestore zrem zremrangebylex zremrangebyrank zremrangebyscore zunionstore",
    ),
    ("string", "echo getrange hincrbyfloat incrbyfloat substr"),
    ("string|false", "get getdel getex getset hget lindex lmove randomkey rpoplpush zscore"),
    ("integer|false", "zrank zrevrank"),
    ("redis.value[]", "hmget mget zmscore"),
    (
        "string[]",
        "hgetall hkeys hvals keys lrange sdiff sinter smembers sunion zdiff zinter zpopmax \
         zpopmin zrange zrangebylex zrangebyscore zrevrange zrevrangebylex zrevrangebyscore zunion",
    ),
    ("integer[]", "smismember"),
    ("redis.time", "time"),
    (
        "redis.status",
        "flushall flushdb hmset lset ltrim mset ping psetex rename select setex swapdb type",
    ),
    ("redis.status|string|false", "set"),
    ("redis.scanned", "hscan scan sscan zscan"),
];

/// Commands that answer with one string, or with a list when they are told how many.
pub const COUNTED: &str = "hrandfield lpop rpop spop srandmember zrandmember";

/// The type of a command's reply; `any` where it depends.
pub fn of(command: &str) -> &'static str {
    let known = RETURNS.iter().find(|(_, names)| names.split_whitespace().any(|n| n == command));
    known.map_or("any", |(kind, _)| kind)
}
