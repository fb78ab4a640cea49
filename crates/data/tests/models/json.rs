//! Documents against serde_json's values, and edits against copies.

use data::Json;
use data::json::{Inverse, Node, Object, Path, Place, Style};
use fastrand::Rng;
use proptest::prelude::*;

fn text(json: &Json) -> String {
    let mut out = Vec::new();
    json.root().write(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn json(text: &str) -> Json {
    Json::parse(text).expect("JSON")
}

fn values() -> impl Strategy<Value = serde_json::Value> {
    let scalars = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,30}".prop_map(Into::into),
    ];
    scalars.prop_recursive(5, 80, 40, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..10).prop_map(Into::into),
            prop::collection::hash_map(".{0,20}", inner, 0..40)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn text_is_read_and_written(value in values()) {
        let compact = json(&value.to_string());
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        prop_assert_eq!(&read(&text(&compact)), &value);
        let mut pretty = Vec::new();
        let style = Style { indent: b"  ", newline: b"\n", space: b" " };
        compact.root().write_in(style, usize::MAX, &mut pretty).expect("no bound");
        prop_assert_eq!(&read(std::str::from_utf8(&pretty).unwrap()), &value);
        prop_assert_eq!(&compact, &compact.clone());
    }
}

/// A place of any node.
fn any_place(json: &Json, rng: &mut Rng) -> Place {
    let mut place = Place::new();
    while let Some(node) = json.at(&place) {
        let len = match node {
            Node::Array(nodes) => nodes.len(),
            Node::Object(object) => object.len(),
            _ => 0,
        };
        if len == 0 || rng.u8(..3) == 0 || place.len() > 5 {
            break;
        }
        place.push(rng.usize(..len));
    }
    place
}

fn any_node(rng: &mut Rng) -> Node {
    match rng.u8(..6) {
        0 => Node::Int(rng.i64(..)),
        1 => Node::text(&"x".repeat(rng.usize(..30))),
        2 => Node::array((0..rng.usize(..4)).map(|number| Node::Int(number as i64)).collect()),
        3 => {
            let mut object = Object::new();
            (0..rng.usize(..30)).for_each(|_| {
                object.set(&format!("name {}", rng.u8(..40)), Node::Float(rng.f64()));
            });
            Node::object(object)
        }
        4 => Node::Bool(true),
        _ => Node::Null,
    }
}

fn any_edit(json: &mut Json, rng: &mut Rng) -> Option<Inverse> {
    let place = any_place(json, rng);
    Some(match json.at(&place)? {
        _ if rng.u8(..6) == 0 => json.replace(&place, any_node(rng)),
        _ if rng.u8(..4) == 0 && !place.is_empty() => json.remove(&place),
        Node::Array(nodes) => {
            let len = nodes.len();
            let (one, other) = (rng.usize(..=len), rng.usize(..=len));
            match rng.bool() {
                true => json.insert(&place, one, vec![any_node(rng), any_node(rng)]),
                false => json.take(&place, one.min(other)..one.max(other)),
            }
        }
        Node::Object(object) => {
            let name = format!("name {}", rng.u8(..40));
            if object.find(&name).is_some() {
                return None;
            }
            json.add(&place, &name, any_node(rng))
        }
        Node::Text(_) => json.append_text(&place, &"ä".repeat(rng.usize(..9))),
        _ => return None,
    })
}

#[test]
fn edits_are_undone() {
    let seed =
        std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..300 {
        let mut json = Json::of(any_node(&mut rng));
        let before = text(&json);
        let mut inverses: Vec<Inverse> = Vec::new();
        for _ in 0..rng.usize(1..60) {
            let Some(inverse) = any_edit(&mut json, &mut rng) else { continue };
            if !inverses.last_mut().is_some_and(|last| last.covers(&inverse)) {
                inverses.push(inverse);
            }
            // What is written finds every member it names.
            assert_eq!(Json::parse(&text(&json)).expect("JSON"), json);
        }
        let places = Path::parse("$..*").unwrap().locate(&json).unwrap();
        for place in places {
            let path = json.spell(&place).expect("the place is there");
            let found = Path::parse(&path).expect("what is spelled is a path").locate(&json);
            assert_eq!(found, Ok(vec![place]), "{path}");
        }
        inverses.into_iter().rev().for_each(|inverse| json.undo(inverse));
        assert_eq!(text(&json), before);
    }
}

/// What a path leads to, as an array.
fn select(document: &str, path: &str) -> String {
    let (document, path) = (json(document), Path::parse(path).expect(path));
    let found = path.select(&document).expect("not too much");
    text(&Json::of(Node::array(found.into_iter().cloned().collect())))
}

#[test]
fn paths() {
    let store = r#"{"books":[{"t":"A","price":8.95},{"t":"B","price":12},{"t":"C","isbn":"x"}],"max":10,"a b":{"c":[1,2,3,4]},"$":1,"ключ":2}"#;
    for (path, found) in [
        ("$.max", "[10]"),
        (".max", "[10]"),
        ("max", "[10]"),
        ("$['max']", "[10]"),
        (r#"$["a b"].c"#, "[[1,2,3,4]]"),
        ("$.$", "[1]"),
        ("$.ключ", "[2]"),
        ("$.books[0].t", r#"["A"]"#),
        ("$.books[-1].t", r#"["C"]"#),
        ("$.books.[1].t", r#"["B"]"#),
        ("$.books[5]", "[]"),
        ("$.books[*].t", r#"["A","B","C"]"#),
        ("$..t", r#"["A","B","C"]"#),
        ("$.books[0,2].t", r#"["A","C"]"#),
        ("$.books[0]['price','t']", r#"[8.95,"A"]"#),
        ("$..c[1:3]", "[2,3]"),
        ("$..c[:-1]", "[1,2,3]"),
        ("$..c[::2]", "[1,3]"),
        ("$..c[-2:]", "[3,4]"),
        ("$.books[?(@.price<10)].t", r#"["A"]"#),
        ("$.books[?(@.price > $.max)].t", r#"["B"]"#),
        ("$.books[?@.isbn].t", r#"["C"]"#),
        ("$.books[?(!@.isbn && @.price>=8.95)].t", r#"["A","B"]"#),
        ("$.books[?(@.t=='A' || @.t == \"C\")].t", r#"["A","C"]"#),
        ("$.books[?(@.t =~ '[AB]')].t", r#"["A","B"]"#),
        ("$.books[?(@.price != 12)].t", r#"["A","C"]"#),
        ("$.books[?(@.price in [1, 12.0])].t", r#"["B"]"#),
        ("$.books[?(@.price nin [12])].t", r#"["A","C"]"#),
        ("$['a b'][?(@ == [1,2,3,4])]", "[[1,2,3,4]]"),
        ("$..c[?(@>2)]", "[3,4]"),
        ("$..c[?(@ == 3.0)]", "[3]"),
        ("$", &format!("[{store}]")),
    ] {
        assert_eq!(select(store, path), found, "{path}");
    }
    // What several ways lead to is found once.
    assert_eq!(select(r#"{"a":{"a":{"a":1}}}"#, "$..a..a"), r#"[{"a":1},1]"#);
    assert_eq!(select("[7]", "$[0,0,-1]"), "[7]");
}

#[test]
fn what_is_no_path() {
    for path in [
        "",
        " ",
        "$.",
        "$..",
        "$[",
        "$[]",
        "$['a]",
        "$[a]",
        "$[1:2:0]",
        "$[01]",
        "$.a b",
        "$.[",
        "$[?(]",
        "$[?(@.a==)]",
        "$[?(@.a=1)]",
        "$[?(@.a>1]",
        "$.a]",
        "$[-inf]",
        "a\0b",
        "$[\"\\n\"]",
        "....a",
    ] {
        let error = Path::parse(path).map(|_| ()).expect_err(path).to_string();
        assert!(error.starts_with("Error occurred on position "), "{path}: {error}");
    }
    // No nesting is deep enough to end the thread.
    for part in ["[?(", "[?(@", "[?!(", "(", "!"] {
        assert!(Path::parse(&format!("$[?{}", part.repeat(100_000))).is_err());
    }
}

#[test]
fn filters_in_filters_end() {
    let document = json(&format!("[{}1]", "1,".repeat(3_000)));
    let path = Path::parse("$[?($[?($[?(@>2)])])]").unwrap();
    assert!(path.select(&document).is_err(), "3,000 times 3,000 times 3,000");
}

#[test]
fn styles() {
    let document = json(r#"{"a":[1,{}],"b":[],"c":"\u0001\"\\\b\t/é"}"#);
    let styled = |style, most| {
        let mut out = Vec::new();
        document.root().write_in(style, most, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let style = Style { indent: b"\t", newline: b"\n", space: b" " };
    let wanted = "{\n\t\"a\": [\n\t\t1,\n\t\t{}\n\t],\n\t\"b\": [],\n\t\"c\": \"\\u0001\\\"\\\\\\b\\t/é\"\n}";
    assert_eq!(styled(style, wanted.len()).as_deref(), Ok(wanted));
    assert!(styled(style, wanted.len() - 1).is_err());
    let indent = vec![b' '; 1 << 20];
    assert!(styled(Style { indent: &indent, ..Style::default() }, 1 << 10).is_err());
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Json::parse(&nested(data::json::DEPTH_MAX)).is_ok());
    let error = Json::parse(&nested(data::json::DEPTH_MAX + 1)).expect_err("too deep");
    assert!(error.to_string().starts_with("recursion limit exceeded"), "{error}");
}

#[test]
fn numbers_stay_what_they_are() {
    for number in [
        "0",
        "-0.0",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "1.0",
        "0.1",
        "1e16",
        "1.5e300",
        "5e-324",
        "0.00001",
        "1e-6",
        "1234567890123456.0",
    ] {
        assert_eq!(text(&json(number)), number);
    }
    assert_eq!(text(&json("18446744073709551616")), "1.8446744073709552e19");
    assert!(Json::parse("1e999").is_err());
}
