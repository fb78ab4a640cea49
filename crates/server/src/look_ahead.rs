//! Guessing the keys of pipelined requests from their bytes, before they are parsed and checked.
//!
//! The worker asks for the memory of these keys while it still works on earlier requests; so does who
//! loads an append-only file, which is made of requests too. A wrong guess costs nothing but time, so
//! names are told apart by a few letters and options are ignored.

use engine::{Inside, PREFETCH_KEYS_MAX, Target};
use smallvec::SmallVec;

/// Requests with more arguments end the look ahead: it should not cost more than it gains, least
/// of all for a request that arrives in pieces.
const ARGS_MAX: usize = 64;

/// A script's last argument is taken for a member up to this length in bytes.
const GUESSED_MEMBER_MAX: usize = 64;

pub type Targets<'a> = SmallVec<[Target<'a>; PREFETCH_KEYS_MAX]>;

/// Where the keys of a command are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One key here, of a string.
    Key(usize),
    /// The first argument, of a collection.
    Collection,
    /// The first argument, and a member of it here.
    Member(usize),
    /// The first key of a script. The last argument is a member of it more often than any other is:
    /// limiters and queues add what they were handed.
    Script,
    /// From the first argument on, every so many.
    Every(usize),
}

fn shape(name: &[u8]) -> Shape {
    let mut lower = [0; 8];
    let len = name.len().min(lower.len());
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from | 0x20;
    }
    match &lower[..len] {
        b"mget" | b"del" | b"exists" | b"unlink" | b"touch" => Shape::Every(1),
        b"mset" | b"msetnx" => Shape::Every(2),
        [b'e', b'v', b'a', b'l', ..] | [b'f', b'c', b'a', b'l', b'l', ..] => Shape::Script,
        b"hgetall" | b"hkeys" | b"hvals" | b"hlen" | b"zcard" | b"scard" => Shape::Collection,
        b"zadd" | b"zincrby" => Shape::Member(3),
        b"zscore" | b"zrem" | b"zmscore" | b"zrank" | b"zrevrank" => Shape::Member(2),
        [b'h', ..] => Shape::Member(2),
        [b's', b'a' | b'r' | b'i' | b'm', ..] => Shape::Member(2),
        [b'z', ..] => Shape::Collection,
        [b'l' | b'r', b'p' | b'i' | b'l' | b'r' | b's', ..] => Shape::Collection,
        _ => Shape::Key(1),
    }
}

/// The likely targets of the requests from `at` on; and where to look the next time, which is
/// beyond all bytes when the request at `at` is not whole.
pub fn targets(buffer: &[u8], from: usize) -> (Targets<'_>, usize) {
    let mut targets = Targets::new();
    let mut at = from;
    while targets.len() < PREFETCH_KEYS_MAX {
        let whole = targets.len();
        let Some(end) = request(buffer, at, &mut targets) else {
            targets.truncate(whole);
            break;
        };
        at = end;
    }
    (targets, if at == from { usize::MAX } else { at })
}

/// Adds the targets of one request; answers where it ends, if it is whole and an array.
fn request<'a>(buffer: &'a [u8], at: usize, targets: &mut Targets<'a>) -> Option<usize> {
    let (count, mut at) = length(buffer, at, b'*')?;
    if count > ARGS_MAX {
        return None;
    }
    let mut wanted = Shape::Key(1);
    for index in 0..count {
        let (len, start) = length(buffer, at, b'$')?;
        let arg = buffer.get(start..start + len)?;
        at = start + len + 2;
        let key = |inside| Target { key: arg, inside };
        match (index, wanted) {
            (0, _) => wanted = shape(arg),
            (_, Shape::Key(place)) if index == place => targets.push(key(Inside::Nothing)),
            (_, Shape::Every(step))
                if (index - 1).is_multiple_of(step) && targets.len() < PREFETCH_KEYS_MAX =>
            {
                targets.push(key(Inside::Nothing));
            }
            (3, Shape::Script) => targets.push(key(Inside::Body)),
            (4.., Shape::Script) if index + 1 == count && len <= GUESSED_MEMBER_MAX => {
                if let Some(target) = targets.last_mut() {
                    target.inside = Inside::Member(arg);
                }
            }
            (1, Shape::Collection | Shape::Member(_)) => targets.push(key(Inside::Body)),
            (_, Shape::Member(place)) if index == place => {
                if let Some(target) = targets.last_mut() {
                    target.inside = Inside::Member(arg);
                }
            }
            _ => {}
        }
    }
    (at <= buffer.len()).then_some(at)
}

/// A header line of digits and the position behind it.
fn length(buffer: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let mut bytes = buffer.get(at..)?.iter();
    if *bytes.next()? != kind {
        return None;
    }
    let mut value = 0_usize;
    for (offset, &byte) in bytes.take(9).enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + usize::from(byte - b'0'),
            b'\r' => return Some((value, at + 1 + offset + 2)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(requests: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for request in requests {
            let args: Vec<&str> = request.split(' ').collect();
            bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
            for arg in args {
                bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
            }
        }
        bytes
    }

    fn seen(requests: &[&str]) -> Vec<String> {
        let bytes = encode(requests);
        let (targets, _) = targets(&bytes, 0);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let show = |target: &Target<'_>| match target.inside {
            Inside::Nothing => text(target.key),
            Inside::Body => format!("{}:", text(target.key)),
            Inside::Member(member) => format!("{}:{}", text(target.key), text(member)),
        };
        targets.iter().map(show).collect()
    }

    #[test]
    fn finds_keys_and_members() {
        assert_eq!(seen(&["GET a", "set b 1 EX 5", "Incr c"]), ["a", "b", "c"]);
        assert_eq!(seen(&["HSET h f v g w", "HGETALL h", "hdel h f"]), ["h:f", "h:", "h:f"]);
        assert_eq!(seen(&["SADD s m", "SETEX k 5 v", "SISMEMBER s n"]), ["s:m", "k", "s:n"]);
        assert_eq!(seen(&["ZADD z 1 m", "ZRANGE z 0 9", "ZSCORE z m"]), ["z:m", "z:", "z:m"]);
        assert_eq!(seen(&["LPUSH l v", "RPOP l", "EVALSHA 00 1 k"]), ["l:", "l:", "k:"]);
        assert_eq!(seen(&["EVALSHA 00 1 k 1 m", "FCALL f 1 k m"]), ["k:m", "k:m"]);
        assert_eq!(seen(&["MSET a 1 b 2", "MGET c d", "DEL e f"]), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(seen(&["PING", "GET a", "EVAL x 0"]), ["a"]);
    }

    #[test]
    fn stops_at_what_is_not_whole_and_takes_any_bytes() {
        let bytes = encode(&["GET a", "MSET b 1 c 2"]);
        for cut in 0..bytes.len() {
            let (found, next) = targets(&bytes[..cut], 0);
            let first = encode(&["GET a"]).len();
            let expected = if cut < first { (0, usize::MAX) } else { (1, first) };
            assert_eq!((found.len(), next), expected, "cut at {cut}");
        }
        for odd in [&b"*"[..], b"*1\r\n$-1\r\n", b"*2\r\n$3\r\nGET\r\n$999999999\r\n", b"PING\r\n"]
        {
            assert!(targets(odd, 0).0.is_empty());
        }
        let many: Vec<String> = (0..40).map(|at| format!("MGET a{at} b{at} c{at}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(seen(&many).len(), PREFETCH_KEYS_MAX);
    }
}
