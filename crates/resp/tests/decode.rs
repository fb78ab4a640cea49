//! Replies written and read back, and bytes that are no replies.

use proptest::prelude::*;
use resp::{DecodeError, Protocol, Reply, ReplyScanner, Value, decode};

#[track_caller]
fn check(bytes: &str, expected: Value) {
    assert_eq!(decode(bytes.as_bytes()), Ok(Some((expected, bytes.len()))));
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes.as_bytes()[..end]), Ok(None), "cut at {end}");
    }
    let mut scanner = ReplyScanner::new();
    for end in 0..bytes.len() {
        assert_eq!(scanner.scan(&bytes.as_bytes()[..end]), Ok(None), "cut at {end}");
    }
    assert_eq!(scanner.scan(bytes.as_bytes()), Ok(Some(bytes.len())));
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

#[test]
fn every_type() {
    check("+OK\r\n", Value::Status(b"OK".to_vec()));
    check("-ERR no\r\n", Value::Error(b"ERR no".to_vec()));
    check(":-42\r\n", Value::Integer(-42));
    check("$5\r\na\r\nbc\r\n", bulk("a\r\nbc"));
    check("$0\r\n\r\n", bulk(""));
    check("$-1\r\n", Value::NullBulk);
    check("*-1\r\n", Value::NullArray);
    check("_\r\n", Value::Null);
    check("#t\r\n", Value::Boolean(true));
    check("#f\r\n", Value::Boolean(false));
    check(",1.50\r\n", Value::Double("1.50".into()));
    check(",-inf\r\n", Value::Double("-inf".into()));
    check(",nan\r\n", Value::Double("nan".into()));
    check("(-123456789012345678901\r\n", Value::BigNumber(b"-123456789012345678901".to_vec()));
    check("=7\r\ntxt:abc\r\n", Value::Verbatim { format: b"txt".to_vec(), text: b"abc".to_vec() });
    check("*0\r\n", Value::Array(vec![]));
    check("*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", {
        Value::Array(vec![Value::Integer(1), Value::Array(vec![bulk("x")])])
    });
    check("%1\r\n$1\r\nk\r\n~1\r\n:2\r\n", {
        Value::Map(vec![(bulk("k"), Value::Set(vec![Value::Integer(2)]))])
    });
    check(">2\r\n$7\r\nmessage\r\n_\r\n", Value::Push(vec![bulk("message"), Value::Null]));
    check("|1\r\n+ttl\r\n:1\r\n$1\r\nx\r\n", {
        let attributes = vec![(Value::Status(b"ttl".to_vec()), Value::Integer(1))];
        Value::Attributed { attributes, value: Box::new(bulk("x")) }
    });
}

#[test]
fn only_the_first_reply_is_taken() {
    assert_eq!(decode(b":1\r\n:2\r\n"), Ok(Some((Value::Integer(1), 4))));
}

#[test]
fn damaged_replies() {
    for (bytes, expected) in [
        (&b"x\r\n"[..], DecodeError::UnknownType { got: b'x' }),
        (b"\r\n", DecodeError::UnknownType { got: b'\r' }),
        (b":1x\r\n", DecodeError::BadNumber),
        (b":\r\n", DecodeError::BadNumber),
        (b"$-2\r\n", DecodeError::BadLength),
        (b"*-2\r\n", DecodeError::BadLength),
        (b"%-1\r\n", DecodeError::BadLength),
        (b"$99999999999999999999\r\n", DecodeError::BadLength),
        (b"$9223372036854775807\r\n", DecodeError::MissingLineEnd),
        (b"$1\r\nabc", DecodeError::MissingLineEnd),
        (b"+a\rb", DecodeError::MissingLineEnd),
        (b"_x\r\n", DecodeError::BadLength),
        (b"#x\r\n", DecodeError::BadBoolean),
        (b",x\r\n", DecodeError::BadNumber),
        (b"(1.5\r\n", DecodeError::BadNumber),
        (b"(-\r\n", DecodeError::BadNumber),
        (b"=2\r\nab\r\n", DecodeError::BadVerbatim),
        (b"*1\r\n*1\r\n?", DecodeError::UnknownType { got: b'?' }),
    ] {
        let result = decode(bytes);
        if bytes == b"$9223372036854775807\r\n" {
            // As long as a length fits into memory's address range it may still arrive.
            assert_eq!(result, Ok(None));
        } else {
            assert_eq!(result, Err(expected), "{:?}", bytes.escape_ascii().to_string());
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    assert!(decode(&nested(128)).unwrap().is_some());
    assert_eq!(decode(&nested(129)), Err(DecodeError::TooDeep));
    assert_eq!(decode(&nested(1_000_000)), Err(DecodeError::TooDeep));
    assert_eq!(ReplyScanner::new().scan(&nested(1_000_000)), Ok(Some(4_000_004)));
}

#[test]
fn announced_lengths_reserve_nothing() {
    assert_eq!(decode(b"*9000000000000000000\r\n:1\r\n"), Ok(None));
    assert_eq!(decode(b"%9000000000000000000\r\n:1\r\n"), Ok(None));
    let endless = b"*9000000000000000000\r\n*9000000000000000000\r\n*9000000000000000000\r\n";
    assert_eq!(ReplyScanner::new().scan(endless), Err(DecodeError::BadLength));
}

/// Any tree that a RESP3 client can be sent.
fn values() -> impl Strategy<Value = Value> {
    let text = "[ -~]{0,8}".prop_map(String::into_bytes);
    let leaf = prop_oneof![
        text.clone().prop_map(Value::Status),
        text.prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bulk),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<f64>()
            .prop_map(|value| Value::Double(resp::DoubleText::new(value).as_str().to_owned())),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..12);
        prop_oneof![
            list.clone().prop_map(Value::Array),
            list.clone().prop_map(Value::Set),
            list.prop_map(Value::Push),
            prop::collection::vec((inner.clone(), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

/// Writes a tree the way handlers do, its aggregates deferred or not.
fn write(reply: &mut Reply<'_>, value: &Value, deferred: bool) {
    match value {
        Value::Status(text) => reply.status(std::str::from_utf8(text).unwrap()),
        Value::Error(text) => reply.error_bytes(text),
        Value::Integer(value) => reply.integer(*value),
        Value::Bulk(bytes) => reply.bulk(bytes),
        Value::Null => reply.null(),
        Value::Boolean(value) => reply.boolean(*value),
        Value::Double(text) => reply.double(text.parse().unwrap()),
        Value::Array(items) | Value::Set(items) | Value::Push(items) if deferred => {
            let mark = reply.deferred_array();
            items.iter().for_each(|item| write(reply, item, deferred));
            match value {
                Value::Array(_) => reply.finish_array(mark, items.len()),
                Value::Set(_) => reply.finish_set(mark, items.len()),
                _ => reply.finish_push(mark, items.len()),
            }
        }
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            match value {
                Value::Array(_) => reply.array(items.len()),
                Value::Set(_) => reply.set(items.len()),
                _ => reply.push(items.len()),
            }
            items.iter().for_each(|item| write(reply, item, deferred));
        }
        Value::Map(pairs) => {
            let mark = deferred.then(|| reply.deferred_array());
            if !deferred {
                reply.map(pairs.len());
            }
            for (key, value) in pairs {
                write(reply, key, deferred);
                write(reply, value, deferred);
            }
            if let Some(mark) = mark {
                reply.finish_map(mark, pairs.len());
            }
        }
        other => unreachable!("not generated: {other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tree in values(), deferred: bool) {
        let mut bytes = Vec::new();
        write(&mut Reply::new(&mut bytes, Protocol::Resp3), &tree, deferred);
        prop_assert_eq!(decode(&bytes), Ok(Some((tree, bytes.len()))));
        let mut scanner = ReplyScanner::new();
        for end in 0..bytes.len() {
            prop_assert_eq!(scanner.scan(&bytes[..end]), Ok(None));
        }
        prop_assert_eq!(scanner.scan(&bytes), Ok(Some(bytes.len())));
    }

    #[test]
    fn any_bytes_are_answered(
        bytes in prop::collection::vec(prop::sample::select(&b"+-:$*_#,(=%~>|0123\r\ntx"[..]), 0..60)
    ) {
        let decoded = decode(&bytes);
        let scanned = ReplyScanner::new().scan(&bytes);
        match decoded {
            Ok(Some((_, end))) => prop_assert_eq!(scanned, Ok(Some(end))),
            Ok(None) => prop_assert_ne!(scanned.map(|end| end.is_some()), Ok(true)),
            Err(_) => prop_assert!(scanned.is_err()),
        }
    }
}
